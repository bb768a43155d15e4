package e2e

import (
	"os"
	"path/filepath"
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
