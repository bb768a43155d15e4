//! KVM or TCG: which of them a node may and can use.

use std::{
    arch::x86_64::{__cpuid, __cpuid_count, _rdtsc},
    fs::{self, OpenOptions},
    io,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use a3s_box_proto::config::{Accelerator as Wish, Vm};

/// `_IO(KVMIO, 0x01)`.
const KVM_CREATE_VM: libc::c_ulong = 0xae01;

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
            Self::Kvm => "kvm",
            Self::Tcg { .. } => "tcg",
        }
    }

    /// Memory that it takes of the host besides the guest's, MiB.
    pub fn buffer_mb(self) -> u64 {
        match self {
            Self::Kvm => 0,
            Self::Tcg { code_buffer_mb, .. } => code_buffer_mb,
        }
    }

    /// Chooses by configuration and machine. A forced one is not questioned: its boot's timeout tells.
    ///
    /// # Errors
    /// `auto`, KVM cannot be used, and TCG is not allowed; the text says why, and what would allow it.
    pub fn choose(config: &Vm) -> io::Result<Self> {
        let tcg = || Self::Tcg { code_buffer_mb: config.tcg_code_buffer_mb, tsc_khz: tsc_khz() };
        match config.accelerator {
            Wish::Kvm => Ok(Self::Kvm),
            Wish::Tcg => Ok(tcg()),
            Wish::Auto => match kvm_is_usable() {
                Ok(()) => Ok(Self::Kvm),
                Err(_) if config.allow_tcg => Ok(tcg()),
                Err(reason) => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!(
                        "KVM cannot be used: {reason}; vm.allow_tcg = true would allow QEMU's emulation, which is \
                         no security boundary"
                    ),
                )),
            },
        }
    }
}

fn kvm_is_usable() -> Result<(), String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // A /dev/kvm without either flag is a paravirtual one, in which a stock kernel hangs.
    if !has_virtualization_flag(&cpuinfo) {
        return Err("the processor has neither of the flags vmx and svm".into());
    }
    let kvm = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| format!("/dev/kvm: {error}"))?;
    // SAFETY: an ioctl on an open descriptor that takes a number; it returns a new descriptor or -1.
    let vm = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0) };
    if vm < 0 {
        return Err(format!("KVM_CREATE_VM: {}", io::Error::last_os_error()));
    }
    // SAFETY: the descriptor was just returned to us and nobody else knows it.
    unsafe { libc::close(vm) };
    Ok(())
}

fn has_virtualization_flag(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm")))
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
    use super::*;

    #[test]
    fn virtualization_is_told_by_a_whole_flag() {
        assert!(has_virtualization_flag("model\t: 1\nflags\t\t: fpu vmx sse\n"));
        assert!(!has_virtualization_flag("flags\t\t: fpu vmx_fake svm_lock\nvmx flags : vnmi\n"));
    }

    #[test]
    fn what_is_forced_is_taken() {
        let config = Vm { accelerator: Wish::Kvm, ..Vm::default() };
        assert_eq!(Accelerator::choose(&config).unwrap(), Accelerator::Kvm);
        let config = Vm { accelerator: Wish::Tcg, ..Vm::default() };
        let Ok(Accelerator::Tcg { code_buffer_mb: 64, tsc_khz }) = Accelerator::choose(&config) else {
            panic!("not TCG")
        };
        assert!((500_000..10_000_000).contains(&tsc_khz), "{tsc_khz}");
    }
}
