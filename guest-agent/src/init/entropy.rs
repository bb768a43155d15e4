//! The kernel's random generator.

use std::{fs::File, io::Read, os::fd::AsRawFd};

use crate::error::{Failed, Step};

/// Bytes taken from the host: the generator's own key length, twice.
const SEED: usize = 64;

/// `_IOW('R', 0x03, int[2])`
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;

/// `struct rand_pool_info` with its buffer.
#[repr(C)]
struct Pool {
    bits: libc::c_int,
    length: libc::c_int,
    bytes: [u8; SEED],
}

/// Seeds the generator from virtio-rng where the processor had no instruction for it. Without a seed the first
/// getrandom of a container would wait for interrupts of an idle machine.
pub fn ensure() -> Result<(), Failed> {
    if is_seeded() {
        return Ok(());
    }
    let mut pool = Pool { bits: (SEED * 8) as libc::c_int, length: SEED as libc::c_int, bytes: [0; SEED] };
    File::open("/dev/hwrng")
        .and_then(|mut source| source.read_exact(&mut pool.bytes))
        .step(|| "read /dev/hwrng".to_owned())?;
    let random = File::options().write(true).open("/dev/random").step(|| "open /dev/random".to_owned())?;
    // SAFETY: the structure has the layout that the request reads.
    match unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const pool) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()).step(|| "credit entropy".to_owned()),
    }
}

fn is_seeded() -> bool {
    let mut byte = [0u8];
    // SAFETY: one byte of ours is written.
    unsafe { libc::getrandom(byte.as_mut_ptr().cast(), 1, libc::GRND_NONBLOCK) == 1 }
}
