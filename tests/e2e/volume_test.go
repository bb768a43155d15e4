package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

func mounted(mounts ...*cri.Mount) func(*cri.ContainerConfig) {
	return func(config *cri.ContainerConfig) { config.Mounts = mounts }
}

func TestFileChangedOnTheHostIsSeenInTheContainer(t *testing.T) {
	n := onNode(t)
	dir := n.hostDir()
	mustWrite(t, dir+"/file", "first")
	c := n.runPod().idle("main", mounted(&cri.Mount{HostPath: dir, ContainerPath: "/volume"}))
	equal(t, "before", c.exec("cat", "/volume/file"), "first")
	mustWrite(t, dir+"/file", "changed")
	mustWrite(t, dir+"/new", "new")
	c.until("the change to be seen", func() error {
		if got, _, _ := c.tryExec("cat", "/volume/file", "/volume/new"); got != "changednew" {
			return fmt.Errorf("the container reads %q", got)
		}
		return nil
	})
	c.exec("sh", "-c", "echo from the container > /volume/answer")
	equal(t, "written by the container", mustRead(t, dir+"/answer"), "from the container\n")
}

func TestReadOnlyVolumeCannotBeWritten(t *testing.T) {
	n := onNode(t)
	c := n.runPod().idle("main", mounted(&cri.Mount{HostPath: n.hostDir(), ContainerPath: "/volume", Readonly: true}))
	_, stderr, code := c.tryExec("touch", "/volume/file")
	equal(t, "exit code of touch", code, 1)
	contains(t, "touch", stderr, "Read-only file system")
}

func TestHostToContainerVolumeHasTheMountsBelowIt(t *testing.T) {
	n := onNode(t)
	dir := n.hostDir()
	must(t, os.Mkdir(dir+"/below", 0o755))
	must(t, unix.Mount("tmpfs", dir+"/below", "tmpfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(dir+"/below", unix.MNT_DETACH) })
	mustWrite(t, dir+"/below/file", "of another file system")
	c := n.runPod().idle("main", mounted(&cri.Mount{
		HostPath: dir, ContainerPath: "/volume", Propagation: cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
	}))
	equal(t, "the file", c.exec("cat", "/volume/below/file"), "of another file system")
}

func TestOneFileIsAVolume(t *testing.T) {
	n := onNode(t)
	path := n.hostDir() + "/hosts"
	mustWrite(t, path, "10.0.0.1 elsewhere\n")
	c := n.runPod().idle("main", mounted(&cri.Mount{HostPath: path, ContainerPath: "/etc/hosts"}))
	equal(t, "/etc/hosts", c.exec("cat", "/etc/hosts"), "10.0.0.1 elsewhere")
}

func TestVolumeIsSharedByContainers(t *testing.T) {
	n := onNode(t)
	volume := mounted(&cri.Mount{HostPath: n.hostDir(), ContainerPath: "/volume"})
	p := n.runPod()
	first, second := p.idle("first", volume), p.idle("second", volume)
	first.exec("sh", "-c", "echo hello > /volume/note")
	equal(t, "note", second.exec("cat", "/volume/note"), "hello")
}

func TestVolumesDeviceIsFreeAfterStopContainer(t *testing.T) {
	n := onNode(t)
	mountPoint, device := n.loopVolume()
	p := n.runPod()
	c := p.idle("main", mounted(&cri.Mount{HostPath: mountPoint, ContainerPath: "/volume"}))
	c.exec("sh", "-c", "echo data > /volume/file; mkdir /volume/dir; ls -lR /volume; sync")
	must(t, n.Runtime.StopContainer(t.Context(), c.id, 5))
	must(t, unix.Unmount(mountPoint, 0))
	run(t, "losetup", "--detach", device)
	if _, err := os.Stat(filepath.Join("/sys/block", filepath.Base(device), "loop")); err == nil {
		t.Errorf("%s is still in use", device)
	}
	equal(t, "pod", p.status().State, cri.PodSandboxState_SANDBOX_READY)
}

// loopVolume mounts an ext4 file system that lies on a loop device.
func (n *node) loopVolume() (mountPoint, device string) {
	n.t.Helper()
	dir := n.hostDir()
	mountPoint = filepath.Join(dir, "mount")
	must(n.t, os.Mkdir(mountPoint, 0o755))
	disk := filepath.Join(dir, "disk")
	must(n.t, os.WriteFile(disk, nil, 0o600))
	must(n.t, os.Truncate(disk, 32<<20))
	run(n.t, "mkfs.ext4", "-q", disk)
	device = run(n.t, "losetup", "--find", "--show", disk)
	must(n.t, unix.Mount(device, mountPoint, "ext4", 0, ""))
	n.t.Cleanup(func() {
		// What is left of a test that failed.
		if n.t.Failed() {
			_ = unix.Unmount(mountPoint, unix.MNT_DETACH)
			_ = exec.Command("losetup", "--detach", device).Run()
		}
	})
	return mountPoint, device
}

func run(t *testing.T, program string, arguments ...string) string {
	t.Helper()
	output, err := exec.Command(program, arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", program, arguments, err, output)
	}
	return strings.TrimSpace(string(output))
}

// A dead NFS server's file system, or one in user space whose server never answers.
func TestHostPathThatHangsHoldsUpItsOwnContainerOnly(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	server, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	must(t, err)
	silent := n.Path("silent")
	must(t, os.Mkdir(silent, 0o755))
	must(t, syscall.Mount("silent", silent, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", server.Fd())))
	t.Cleanup(func() { must(t, syscall.Unmount(silent, 0)) })
	// What waits for it fails then.
	t.Cleanup(func() { _ = server.Close() })
	n.pull(busybox)
	// As many as would occupy all of the frontend's threads.
	const callers = 24
	created := make(chan error, callers)
	for i := range callers {
		config := fixture.ContainerConfig(fmt.Sprintf("hung-%d", i), busybox, "true")
		config.Mounts = []*cri.Mount{{HostPath: filepath.Join(silent, "data"), ContainerPath: "/data"}}
		go func() {
			_, err := n.Runtime.CreateContainer(t.Context(), p.id, config, p.config)
			created <- err
		}()
	}
	equal(t, "exec elsewhere", n.runPod().idle("main").exec("echo", "alive"), "alive")
	must(t, server.Close())
	for range callers {
		refused(t, <-created, codes.Internal, silent)
	}
}

// Its files come to the guest by the same way as those of other volumes, and of images.
func TestVolumeThatHangsHoldsUpNoOther(t *testing.T) {
	n := onNode(t)
	hung, device := n.loopVolume()
	well := n.hostDir()
	p := n.runPod()
	user := p.idle("user", mounted(bind(hung, "/volume")))
	other := p.idle("other", mounted(bind(well, "/volume")))
	user.exec("sh", "-c", "for i in $(seq 16); do : > /volume/$i; done")
	thaw := freeze(t, hung)
	user.exec("sh", "-c", "for i in $(seq 16); do echo $i >> /volume/$i & done > /dev/null 2>&1")
	for i := range 20 {
		name := fmt.Sprint("file-", i)
		mustWrite(t, filepath.Join(well, name), name)
		equal(t, "a file of another volume", other.exec("cat", "/volume/"+name), name)
	}
	thaw()
	for i := range 16 {
		n.until("the volume's files to be written", func() error {
			if text := mustRead(t, filepath.Join(hung, fmt.Sprint(i+1))); text == "" {
				return fmt.Errorf("%d is empty", i+1)
			}
			return nil
		})
	}
	must(t, n.Runtime.StopContainer(t.Context(), user.id, 5))
	must(t, unix.Unmount(hung, 0))
	run(t, "losetup", "--detach", device)
}

// freeze lets whoever writes to a file system wait, until it is thawed.
func freeze(t *testing.T, mountPoint string) (thaw func()) {
	t.Helper()
	const freezing, thawing = 0xc0045877, 0xc0045878 // FIFREEZE and FITHAW of linux/fs.h
	dir, err := os.Open(mountPoint)
	must(t, err)
	must(t, unix.IoctlSetInt(int(dir.Fd()), freezing, 0))
	thaw = sync.OnceFunc(func() {
		must(t, unix.IoctlSetInt(int(dir.Fd()), thawing, 0))
		must(t, dir.Close())
	})
	t.Cleanup(thaw)
	return thaw
}
