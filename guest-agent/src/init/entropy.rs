//! The kernel's random generator has a seed from the start.

use std::{fs::File, io::Read};

use crate::{
    error::{Failed, Step},
    sys::entropy::{SEED, credit, is_seeded},
};

/// Seeds the generator from virtio-rng where the processor had no instruction for it. Without a seed the first
/// getrandom of a container would wait for interrupts of an idle machine.
pub fn ensure() -> Result<(), Failed> {
    if is_seeded() {
        return Ok(());
    }
    let mut seed = [0; SEED];
    File::open("/dev/hwrng")
        .and_then(|mut source| source.read_exact(&mut seed))
        .step(|| "read /dev/hwrng".to_owned())?;
    let random = File::options().write(true).open("/dev/random").step(|| "open /dev/random".to_owned())?;
    credit(&random, seed).step(|| "credit entropy".to_owned())
}
