package e2e

import (
	"errors"
	"fmt"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func limited(resources *cri.LinuxContainerResources) func(*cri.ContainerConfig) {
	return func(config *cri.ContainerConfig) { config.Linux.Resources = resources }
}

func TestLimitsAreInTheContainersCgroup(t *testing.T) {
	c := onNode(t).runPod().idle("main", limited(&cri.LinuxContainerResources{
		CpuPeriod:          100_000,
		CpuQuota:           50_000,
		CpuShares:          512,
		MemoryLimitInBytes: 64 << 20,
		Unified:            map[string]string{"pids.max": "77", "memory.oom.group": "1"},
	}))
	equal(t, "cpu.max", c.exec("cat", "/sys/fs/cgroup/cpu.max"), "50000 100000")
	equal(t, "cpu.weight", c.exec("cat", "/sys/fs/cgroup/cpu.weight"), "59")
	equal(t, "memory.swap.max", c.exec("cat", "/sys/fs/cgroup/memory.swap.max"), "0")
	equal(t, "memory.max", c.exec("cat", "/sys/fs/cgroup/memory.max"), fmt.Sprint(64<<20))
	equal(t, "pids.max", c.exec("cat", "/sys/fs/cgroup/pids.max"), "77")
	equal(t, "memory.oom.group", c.exec("cat", "/sys/fs/cgroup/memory.oom.group"), "1")
}

func TestUpdatedLimitsAreInTheContainersCgroup(t *testing.T) {
	n := onNode(t)
	c := n.runPod().idle("main", limited(&cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}))
	must(t, n.Runtime.UpdateContainerResources(t.Context(), c.id, &cri.ContainerResources{
		Linux: &cri.LinuxContainerResources{CpuPeriod: 100_000, CpuQuota: 20_000, MemoryLimitInBytes: 48 << 20},
	}))
	equal(t, "cpu.max", c.exec("cat", "/sys/fs/cgroup/cpu.max"), "20000 100000")
	equal(t, "memory.max", c.exec("cat", "/sys/fs/cgroup/memory.max"), fmt.Sprint(48<<20))
}

func TestVMHasTheSizeThatAnnotationsAskFor(t *testing.T) {
	p := onNode(t).runPod(annotated("a3s.box/vcpus", "2"), annotated("a3s.box/memory-mb", "320"))
	p.hasSize("2", 320)
}

// hasSize looks at the VM from within. The kernel keeps some of the memory for itself.
func (p *pod) hasSize(processors string, memoryMB int) {
	p.t.Helper()
	c := p.idle("size")
	equal(p.t, "processors", c.exec("nproc"), processors)
	var kb int
	_, err := fmt.Sscanf(c.exec("grep", "MemTotal", "/proc/meminfo"), "MemTotal: %d kB", &kb)
	must(p.t, err)
	if kb > memoryMB<<10 || kb < (memoryMB-64)<<10 {
		p.t.Errorf("MemTotal is %d kB in a VM of %d MiB", kb, memoryMB)
	}
}

func (c *container) stats() *cri.ContainerStats {
	c.t.Helper()
	stats, err := c.Runtime.ContainerStats(c.t.Context(), c.id)
	must(c.t, err)
	if stats.Cpu == nil || stats.Memory == nil || stats.WritableLayer == nil {
		must(c.t, errors.New("figures are missing: "+stats.String()))
	}
	return stats
}
