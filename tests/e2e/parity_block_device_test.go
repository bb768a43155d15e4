package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

func devices(devices ...*cri.Device) func(*cri.ContainerConfig) {
	return func(config *cri.ContainerConfig) { config.Devices = devices }
}

// loopDevice is a block device of the host, and the file that it lies on.
func (n *node) loopDevice() (device, disk string) {
	n.t.Helper()
	disk = filepath.Join(n.hostDir(), "disk")
	must(n.t, os.WriteFile(disk, nil, 0o600))
	must(n.t, os.Truncate(disk, 8<<20))
	device = run(n.t, "losetup", "--find", "--show", disk)
	n.t.Cleanup(func() {
		if n.isLoopInUse(device) {
			run(n.t, "losetup", "--detach", device)
		}
	})
	return device, disk
}

func (n *node) isLoopInUse(device string) bool {
	_, err := os.Stat(filepath.Join("/sys/block", filepath.Base(device), "loop"))
	return err == nil
}

// A container has a block device of the host under whatever name, with the rights that were asked for, until it ends.
func TestParityBlockDevice(t *testing.T) {
	n := onNode(t)
	writable, disk := n.loopDevice()
	readable, kept := n.loopDevice()
	must(t, os.WriteFile(kept, append([]byte("kept\n"), make([]byte, 8<<20-5)...), 0o600))
	p := n.runPod()
	use := devices(
		&cri.Device{HostPath: writable, ContainerPath: "/dev/xvda", Permissions: "rwm"},
		&cri.Device{HostPath: readable, ContainerPath: "/dev/disks/readable", Permissions: "r"},
	)
	c := p.idle("main", use)
	equal(t, "size", c.exec("blockdev", "--getsize64", "/dev/xvda"), fmt.Sprint(8<<20))
	c.exec("sh", "-c", "echo written | dd of=/dev/xvda conv=fsync,notrunc")
	run(t, "sync", disk)
	equal(t, "on the host", mustRead(t, disk)[:8], "written\n")
	equal(t, "readable", c.exec("sh", "-c", "head -n 1 /dev/disks/readable"), "kept")
	if _, _, code := c.tryExec("dd", "if=/dev/zero", "of=/dev/disks/readable", "count=1"); code == 0 {
		t.Error("a device that may be read was written")
	}
	c.update(&cri.LinuxContainerResources{CpuShares: 200})
	c.exec("dd", "if=/dev/xvda", "of=/dev/null", "count=1")
	_, _, code := p.idle("other").tryExec("ls", "/dev/xvda")
	equal(t, "exit code of ls in another container", code, 1)

	again := p.idle("again", devices(&cri.Device{HostPath: writable, ContainerPath: "/dev/same", Permissions: "rwm"}))
	equal(t, "for another container", again.exec("head", "-n", "1", "/dev/same"), "written")
	for _, c := range []*container{c, again} {
		must(t, n.Runtime.StopContainer(t.Context(), c.id, 5))
	}
	for _, device := range []string{writable, readable} {
		run(t, "losetup", "--detach", device)
		n.until(device+" to be free", func() error {
			if n.isLoopInUse(device) {
				return fmt.Errorf("it is in use")
			}
			return nil
		})
	}
}

// What is read-only is so at the VMM: root in the guest cannot change that.
func TestReadOnlyBlockDeviceCannotBeWrittenByTheGuest(t *testing.T) {
	n := onNode(t)
	device, disk := n.loopDevice()
	p := n.runPod(privilegedPod)
	c := p.idle("main", devices(&cri.Device{HostPath: device, ContainerPath: "/dev/disk", Permissions: "r"}))
	equal(t, "size", c.exec("blockdev", "--getsize64", "/dev/disk"), fmt.Sprint(8<<20))
	hostile := p.idle("hostile", privileged)
	node := "mknod /tmp/disk b $(tr : ' ' < /sys/block/sda/dev)"
	hostile.exec("sh", "-c", node+" && head -c 512 /tmp/disk > /dev/null")
	_, _, code := hostile.tryExec("sh", "-c", "blockdev --setrw /tmp/disk; echo hostile | dd of=/tmp/disk conv=fsync,notrunc")
	equal(t, "exit code of dd", code, 1)
	run(t, "sync", disk)
	equal(t, "on the host", mustRead(t, disk)[:8], string(make([]byte, 8)))
	must(t, n.Runtime.StopContainer(t.Context(), c.id, 5))
}

func TestOtherDevicesAreRefusedByName(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	p.pull(busybox)
	for _, path := range []string{"/dev/mem", "/dev/no-such-disk", n.hostDir()} {
		config := fixture.ContainerConfig("device", busybox, "true")
		devices(&cri.Device{HostPath: path, ContainerPath: "/dev/x", Permissions: "rw"})(config)
		_, err := n.Runtime.CreateContainer(t.Context(), p.id, config, p.config)
		refused(t, err, codes.InvalidArgument, path, "block device")
	}
	config := fixture.ContainerConfig("device", busybox, "true")
	config.CDIDevices = []*cri.CDIDevice{{Name: "vendor.example/gpu=0"}}
	_, err := n.Runtime.CreateContainer(t.Context(), p.id, config, p.config)
	refused(t, err, codes.InvalidArgument, "vendor.example/gpu=0")
}
