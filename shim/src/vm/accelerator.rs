//! KVM or TCG, with what the latter needs to know of the machine.

use std::{
    arch::x86_64::{__cpuid, __cpuid_count, _rdtsc},
    io,
    time::{Duration, Instant},
};

use a3s_box_proto::{accelerator::Choice, config::Vm};

/// How the guest's processor is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// By QEMU's emulation, with a code buffer of so many MiB.
    Tcg {
        /// Size of the buffer of translated code, MiB.
        code_buffer_mb: u64,
        /// The rate of the host's time stamp counter, which the emulated one runs at.
        tsc_khz: u64,
    },
}

impl Accelerator {
    /// The name that status and errors use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => Choice::Kvm.name(),
            Self::Tcg { .. } => Choice::Tcg.name(),
        }
    }

    /// Memory that it takes of the host besides the guest's, MiB.
    pub fn buffer_mb(self) -> u64 {
        match self {
            Self::Kvm => 0,
            Self::Tcg { code_buffer_mb, .. } => code_buffer_mb,
        }
    }

    /// Chooses by configuration and machine, as the frontend's status tells.
    ///
    /// # Errors
    /// KVM cannot be used, and TCG is not allowed; the text says why, and what would allow it.
    pub fn choose(config: &Vm) -> io::Result<Self> {
        let choice =
            Choice::of(config).map_err(|reason| io::Error::new(io::ErrorKind::Unsupported, reason))?;
        Ok(match choice {
            Choice::Kvm => Self::Kvm,
            Choice::Tcg => Self::Tcg { code_buffer_mb: config.tcg_code_buffer_mb, tsc_khz: tsc_khz() },
        })
    }
}

/// The rate of the host's time stamp counter in kHz: from the processor or hypervisor where they tell, else measured.
fn tsc_khz() -> u64 {
    from_processor().or_else(from_hypervisor).unwrap_or_else(measure)
}

fn from_processor() -> Option<u64> {
    if __cpuid(0).eax < 0x15 {
        return None;
    }
    let leaf = __cpuid_count(0x15, 0);
    let (denominator, numerator, crystal) = (u64::from(leaf.eax), u64::from(leaf.ebx), u64::from(leaf.ecx));
    (denominator > 0 && numerator > 0 && crystal > 0).then(|| crystal * numerator / denominator / 1000)
}

/// The leaf by which VMware, and KVM-based clouds after it, tell a guest the rate.
fn from_hypervisor() -> Option<u64> {
    const HYPERVISOR_PRESENT: u32 = 1 << 31;
    if __cpuid(1).ecx & HYPERVISOR_PRESENT == 0 || __cpuid(0x4000_0000).eax < 0x4000_0010 {
        return None;
    }
    Some(u64::from(__cpuid(0x4000_0010).eax)).filter(|khz| *khz > 0)
}

/// Counts ticks for 10 ms, which is exact to some 10 ppm; the guest's kernel refines the value anyway.
fn measure() -> u64 {
    let start = Instant::now();
    // SAFETY: every x86-64 processor has the instruction.
    let first = unsafe { _rdtsc() };
    while start.elapsed() < Duration::from_millis(10) {
        std::hint::spin_loop();
    }
    // SAFETY: as above.
    let ticks = unsafe { _rdtsc() }.saturating_sub(first);
    let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
    ticks.saturating_mul(1_000_000) / nanos
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::config::Accelerator as Wish;

    use super::*;

    #[test]
    fn emulation_runs_at_the_rate_of_the_hosts_counter() {
        let config = Vm { accelerator: Wish::Tcg, ..Vm::default() };
        let Ok(Accelerator::Tcg { code_buffer_mb: 64, tsc_khz }) = Accelerator::choose(&config) else {
            panic!("not TCG")
        };
        assert!((500_000..10_000_000).contains(&tsc_khz), "{tsc_khz}");
    }
}
