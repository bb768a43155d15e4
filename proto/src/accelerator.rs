//! KVM or emulation: the frontend's status tells what MicroVMs would be run by, and each shim goes by the same.

use std::{
    fs::{self, OpenOptions},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::config::{Accelerator, Vm};

/// `_IO(KVMIO, 0x01)`.
const KVM_CREATE_VM: libc::c_ulong = 0xae01;

/// What a guest's processor is run by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The processor itself.
    Kvm,
    /// QEMU's emulation.
    Tcg,
}

impl Choice {
    /// Chooses by configuration and machine. What is forced is not questioned: its boot's timeout tells.
    ///
    /// # Errors
    /// `auto`, KVM cannot be used, and TCG is not allowed; the text says why, and what would allow it.
    pub fn of(config: &Vm) -> Result<Self, String> {
        match config.accelerator {
            Accelerator::Kvm => Ok(Self::Kvm),
            Accelerator::Tcg => Ok(Self::Tcg),
            Accelerator::Auto => match kvm_is_usable() {
                Ok(()) => Ok(Self::Kvm),
                Err(_) if config.allow_tcg => Ok(Self::Tcg),
                Err(reason) => Err(format!(
                    "KVM cannot be used: {reason}; vm.allow_tcg = true would allow QEMU's emulation, which is no \
                     security boundary"
                )),
            },
        }
    }

    /// The name that status and errors use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Whether stock guests run here by KVM; a VM is made, and let go again.
///
/// # Errors
/// They do not; the text says why.
pub fn kvm_is_usable() -> Result<(), String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").map_err(|error| format!("/proc/cpuinfo: {error}"))?;
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
    drop(unsafe { OwnedFd::from_raw_fd(vm) });
    Ok(())
}

fn has_virtualization_flag(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_ascii_whitespace().any(|flag| matches!(flag, "vmx" | "svm")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualization_is_told_by_a_whole_flag() {
        assert!(has_virtualization_flag("processor: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualization_flag("flags : svm\n"));
        assert!(!has_virtualization_flag("flags\t\t: fpu vmx_fake svm_lock\nvmx flags : vmx\n"));
        assert!(!has_virtualization_flag(""));
    }

    #[test]
    fn what_is_forced_is_taken() {
        for (forced, choice) in [(Accelerator::Kvm, Choice::Kvm), (Accelerator::Tcg, Choice::Tcg)] {
            assert_eq!(Choice::of(&Vm { accelerator: forced, ..Vm::default() }), Ok(choice));
        }
    }
}
