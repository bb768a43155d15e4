//! QEMU's command line, from what the VM is and what it is given.

use a3s_box_proto::ports::SHARE_TAG;

use crate::vm::{Accelerator, Plan};

/// The frequency of the processors' own timers, as QEMU emulates them: a count for each nanosecond.
const LAPIC_TIMER_KHZ: u32 = 1_000_000;

/// The SCSI controller.
pub(super) const SCSI: &str = "scsi";

/// The numbers under which QEMU inherits its descriptors.
#[derive(Debug, Clone)]
pub(super) struct Inherited {
    pub vsock: i32,
    pub share: i32,
    pub scratch: i32,
    pub console: i32,
    pub qmp: i32,
    pub kernel: i32,
    pub initramfs: i32,
    /// `/dev/kvm`, under KVM.
    pub kvm: Option<i32>,
    /// Taps and MAC addresses of the network devices.
    pub nics: Vec<(i32, String)>,
}

/// All arguments of a VM.
pub(super) fn arguments(plan: &Plan, inherited: &Inherited) -> Vec<String> {
    let mut arguments = Arguments::default();
    arguments.machine(plan);
    arguments.processor(plan, inherited);
    arguments.guest(plan, inherited);
    arguments.channels(inherited);
    arguments.devices(inherited);
    // What the process may no longer do once it runs; user and groups were changed before it began.
    arguments.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    arguments.0
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn pair(&mut self, name: &str, value: impl Into<String>) {
        self.0.extend([name.to_owned(), value.into()]);
    }

    fn machine(&mut self, plan: &Plan) {
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            self.0.push(flag.to_owned());
        }
        self.pair("-display", "none");
        self.pair(
            "-machine",
            "microvm,acpi=off,rtc=on,pit=on,pic=on,isa-serial=on,mem-merge=off,dump-guest-core=off,\
             memory-backend=memory",
        );
        self.pair("-smp", plan.size.vcpus.to_string());
        self.pair("-m", format!("{}M", plan.size.memory_mb));
        // Shared: the vhost-user backends map the guest's memory.
        self.pair(
            "-object",
            format!("memory-backend-memfd,id=memory,size={}M,share=on", plan.size.memory_mb),
        );
    }

    fn processor(&mut self, plan: &Plan, inherited: &Inherited) {
        if let Some(kvm) = inherited.kvm {
            self.pair("-add-fd", format!("fd={kvm},set=2"));
        }
        let (accelerator, processor) = match plan.accelerator {
            Accelerator::Kvm => ("kvm,device=/dev/fdset/2".into(), "host"),
            // Fast string instructions are slow ones where each of their steps is emulated, and a fifth level of page
            // tables is one more to walk: the kernel takes what it does without them.
            Accelerator::Tcg { code_buffer_mb, .. } => {
                (format!("tcg,tb-size={code_buffer_mb}"), "max,-erms,-fsrm,-fsrs,-fzrm,-fsrc,-la57")
            }
        };
        self.pair("-accel", accelerator);
        self.pair("-cpu", processor);
    }

    /// By descriptor: the VMM's user need not reach the directories that they lie in.
    fn guest(&mut self, plan: &Plan, inherited: &Inherited) {
        self.pair("-kernel", format!("/proc/self/fd/{}", inherited.kernel));
        self.pair("-initrd", format!("/proc/self/fd/{}", inherited.initramfs));
        self.pair("-append", kernel_arguments(plan));
    }

    fn channels(&mut self, inherited: &Inherited) {
        self.pair("-chardev", format!("socket,id=console,fd={}", inherited.console));
        self.pair("-serial", "chardev:console");
        self.pair("-chardev", format!("socket,id=qmp,fd={}", inherited.qmp));
        self.pair("-mon", "chardev=qmp,mode=control");
    }

    fn devices(&mut self, inherited: &Inherited) {
        self.pair("-chardev", format!("socket,id=vsock,fd={}", inherited.vsock));
        self.pair("-device", "vhost-user-vsock-device,chardev=vsock");
        self.pair("-chardev", format!("socket,id=share,fd={}", inherited.share));
        self.pair("-device", format!("vhost-user-fs-device,chardev=share,tag={SHARE_TAG},queue-size=1024"));
        self.pair("-add-fd", format!("fd={},set=1", inherited.scratch));
        // A full disk is the guest's error, not a VM that stops; what a flush would save is thrown away with the pod.
        self.pair(
            "-blockdev",
            "driver=file,node-name=scratch,filename=/dev/fdset/1,discard=unmap,cache.no-flush=on",
        );
        self.pair("-device", "virtio-blk-device,drive=scratch,werror=report,rerror=report");
        for (number, (tap, mac)) in inherited.nics.iter().enumerate() {
            self.pair("-netdev", format!("tap,id=nic{number},fd={tap}"));
            self.pair("-device", format!("virtio-net-device,netdev=nic{number},mac={mac}"));
        }
        // Block devices of containers are its disks: they come and go without PCI.
        self.pair("-device", format!("virtio-scsi-device,id={SCSI}"));
        self.pair("-object", "rng-random,id=rng,filename=/dev/urandom");
        self.pair("-device", "virtio-rng-device,rng=rng");
    }
}

fn kernel_arguments(plan: &Plan) -> String {
    // A dummy link is for whoever adds one: the kernel's own would be an interface that no plugin has made.
    // Few processors agree soon: moving a process into its cgroup would wait 25 ms for an ordinary grace period.
    // A microvm has no ACPI: the kernel would look for it, and call its absence a bug on the console.
    let mut line = String::from(
        "console=ttyS0 quiet reboot=t panic=-1 acpi=off dummy.numdummies=0 rcupdate.rcu_expedited=1",
    );
    // No disk is there at boot, and each that comes later comes with a word of the controller's.
    line += " scsi_mod.scan=manual";
    if plan.size.hugepages > 0 {
        line += &format!(" hugepagesz=2M hugepages={}", plan.size.hugepages);
    }
    if let Accelerator::Tcg { tsc_khz, .. } = plan.accelerator {
        // Emulated timers are too irregular for the kernel's calibrations: without the first, some boots hang; the
        // others spare it tests that take half of the boot's time.
        line += &format!(" tsc_early_khz={tsc_khz} lapic_timer_khz={LAPIC_TIMER_KHZ} no_timer_check");
        // The counter is the host's. Held against emulated ticks, which come late on a busy host, it would be found wrong, and the
        // guest would be left with a clock that steps by 10 ms.
        line += " tsc=reliable";
        // Nor does it get back the memory of code that ran once: packaging/kernel/patches says why.
        line += " keepinittext";
        // virtiofsd writes to the guest's memory behind QEMU's back, which so goes on to run the translation of what
        // was there before: programs crash. A page that the guest itself cleared before has none.
        line += " clear_page_cache";
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::Size;

    fn line(accelerator: Accelerator, vcpus: u32, nics: Vec<(i32, String)>) -> String {
        let plan =
            Plan { accelerator, size: Size { vcpus, memory_mb: 320, hugepages: 0 }, uid: 2_000_000_001 };
        let kvm = (accelerator == Accelerator::Kvm).then_some(18);
        let inherited = Inherited {
            vsock: 10,
            share: 11,
            scratch: 12,
            console: 13,
            qmp: 14,
            kernel: 15,
            initramfs: 16,
            kvm,
            nics,
        };
        arguments(&plan, &inherited).join(" ")
    }

    #[test]
    fn tcg_has_its_buffer_and_its_timer_arguments() {
        let line = line(Accelerator::Tcg { code_buffer_mb: 64, tsc_khz: 2_596_134 }, 1, Vec::new());
        for part in [
            "-accel tcg,tb-size=64 -cpu max,-erms,-fsrm,-fsrs,-fzrm,-fsrc,-la57",
            "-smp 1 -m 320M",
            "memory-backend-memfd,id=memory,size=320M,share=on",
            "tsc_early_khz=2596134 lapic_timer_khz=1000000 no_timer_check tsc=reliable keepinittext clear_page_cache",
            "-kernel /proc/self/fd/15 -initrd /proc/self/fd/16",
            "-add-fd fd=12,set=1",
            "elevateprivileges=deny,spawn=deny",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("netdev"));
    }

    #[test]
    fn huge_pages_are_reserved_at_boot() {
        let size = Size { vcpus: 1, memory_mb: 320, hugepages: 8 };
        let line = kernel_arguments(&Plan { accelerator: Accelerator::Kvm, size, uid: 1 });
        assert!(line.contains(" hugepagesz=2M hugepages=8"), "{line}");
    }

    #[test]
    fn kvm_has_none_of_them() {
        let line = line(Accelerator::Kvm, 2, vec![(17, "02:00:00:00:00:01".into())]);
        assert!(line.contains("-add-fd fd=18,set=2 -accel kvm,device=/dev/fdset/2 -cpu host"));
        assert!(
            line.contains("tap,id=nic0,fd=17 -device virtio-net-device,netdev=nic0,mac=02:00:00:00:00:01")
        );
        assert!(line.contains("-smp 2") && !line.contains("tsc") && !line.contains("lapic"));
    }
}
