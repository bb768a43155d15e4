//! The kernel's random generator.

use std::{fs::File, io, os::fd::AsRawFd};

/// Bytes of a seed: the generator's own key length, twice.
pub const SEED: usize = 64;

/// `_IOW('R', 0x03, int[2])`
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;

/// `struct rand_pool_info` with its buffer.
#[repr(C)]
struct Pool {
    bits: libc::c_int,
    length: libc::c_int,
    bytes: [u8; SEED],
}

/// Whether it gives bytes without waiting.
pub fn is_seeded() -> bool {
    let mut byte = [0u8];
    // SAFETY: one byte of ours is written.
    unsafe { libc::getrandom(byte.as_mut_ptr().cast(), 1, libc::GRND_NONBLOCK) == 1 }
}

/// Seeds it. The file is /dev/random, opened for writing.
pub fn credit(random: &File, bytes: [u8; SEED]) -> io::Result<()> {
    let pool = Pool { bits: (SEED * 8) as libc::c_int, length: SEED as libc::c_int, bytes };
    // SAFETY: the structure has the layout that the request reads.
    match unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const pool) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
