package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestVMMRunsConfinedUnderAUserOfItsOwn(t *testing.T) {
	n := onNode(t)
	first, second := n.runPod().vmm(), n.runPod().vmm()
	if first.uid == 0 || second.uid == 0 || first.uid == second.uid {
		t.Errorf("the VMMs run under uids %d and %d", first.uid, second.uid)
	}
	contains(t, "the VMM's status", first.status, "NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000")
}

type vmm struct {
	uid    uint32
	status string
}

// vmm looks at the pod's QEMU.
func (p *pod) vmm() vmm {
	p.t.Helper()
	found := p.PodProcesses(p.id, "qemu")
	if len(found) != 1 {
		p.t.Fatalf("the pod has %d VMMs: %v", len(found), found)
	}
	proc := filepath.Join("/proc", strconv.Itoa(found[0].PID))
	info, err := os.Stat(proc)
	must(p.t, err)
	return vmm{info.Sys().(*syscall.Stat_t).Uid, mustRead(p.t, filepath.Join(proc, "status"))}
}

func TestPodsProcessesAreInItsCgroup(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	found := n.PodProcesses(p.id, "")
	if len(found) < 4 {
		t.Errorf("shim, VMM and two helpers are due: %v", found)
	}
	for _, process := range found {
		cgroups := mustRead(t, filepath.Join("/proc", strconv.Itoa(process.PID), "cgroup"))
		contains(t, "the cgroups of "+process.Name, cgroups, n.CgroupParent()+"/")
	}
}

func TestPodsMountsAreNotTheHosts(t *testing.T) {
	p := onNode(t).runPod()
	p.idle("main")
	if table := mustRead(t, "/proc/self/mountinfo"); strings.Contains(table, p.PodDir(p.id)) {
		t.Errorf("the host's mount table has the pod's mounts:\n%s", table)
	}
}

func TestSocketIsForRoot(t *testing.T) {
	info, err := os.Stat(onNode(t).Socket())
	must(t, err)
	equal(t, "mode", info.Mode().Perm(), 0o660)
	equal(t, "owner", info.Sys().(*syscall.Stat_t).Uid, 0)
}

func TestOtherUsersAreRefused(t *testing.T) {
	n := onNode(t)
	must(t, os.Chmod(n.Socket(), 0o666))
	t.Cleanup(func() { must(t, os.Chmod(n.Socket(), 0o660)) })
	equal(t, "bytes that root hears of HTTP/2", greeting(t, n.Socket(), 0) > 0, true)
	equal(t, "bytes that nobody hears", greeting(t, n.Socket(), 65534), 0)
}

// greeting connects as a user, and counts what the server says first.
func greeting(t *testing.T, socket string, uid int) (length int) {
	t.Helper()
	done := make(chan error)
	go func() {
		// The thread takes the user with it: it is never unlocked, and ends with this function.
		runtime.LockOSThread()
		done <- func() error {
			if _, _, failed := syscall.RawSyscall(syscall.SYS_SETRESGID, ^uintptr(0), uintptr(uid), ^uintptr(0)); failed != 0 {
				return failed
			}
			if _, _, failed := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); failed != 0 {
				return failed
			}
			connection, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer syscall.Close(connection)
			patience := syscall.NsecToTimeval(patience.Nanoseconds())
			if err := syscall.SetsockoptTimeval(connection, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &patience); err != nil {
				return err
			}
			if err := syscall.Connect(connection, &syscall.SockaddrUnix{Name: socket}); err != nil {
				return err
			}
			length, err = syscall.Read(connection, make([]byte, 64))
			return err
		}()
	}()
	must(t, <-done)
	return length
}

func TestNothingOfAPodIsOpenToOthers(t *testing.T) {
	p := onNode(t).runPod()
	p.idle("main")
	info, err := os.Stat(p.PodDir(p.id))
	must(t, err)
	equal(t, "mode of the pod's directory", info.Mode().Perm(), 0o700)
	sockets := map[string]string{}
	for line := range strings.Lines(mustRead(t, "/proc/net/unix")) {
		if fields := strings.Fields(line); len(fields) == 8 {
			sockets["socket:["+fields[6]+"]"] = fields[7]
		}
	}
	for _, process := range p.PodProcesses(p.id, "") {
		descriptors, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", process.PID))
		must(t, err)
		for _, descriptor := range descriptors {
			target, _ := os.Readlink(descriptor)
			if name := sockets[target]; strings.HasPrefix(name, "@") {
				t.Errorf("%s has an abstract socket: %s", process.Name, name)
			}
		}
	}
}
