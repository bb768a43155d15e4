package e2e

import (
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
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
	c := onNode(t).runPod().idle("main", limited(&cri.LinuxContainerResources{
		CpuShares: 1024, MemoryLimitInBytes: 64 << 20, Unified: map[string]string{"memory.high": "max", "pids.max": "77"},
	}))
	for _, step := range []struct {
		change *cri.LinuxContainerResources
		values map[string]string
	}{
		{&cri.LinuxContainerResources{CpuPeriod: 100_000, CpuQuota: 20_000}, map[string]string{
			"cpu.max": "20000 100000", "cpu.weight": "100", "memory.max": fmt.Sprint(64 << 20), "pids.max": "77", "memory.swap.max": "0",
		}},
		{&cri.LinuxContainerResources{CpuShares: 2}, map[string]string{"cpu.weight": "1", "cpu.max": "20000 100000"}},
		{&cri.LinuxContainerResources{MemoryLimitInBytes: 48 << 20}, map[string]string{
			"memory.max": fmt.Sprint(48 << 20), "memory.swap.max": "0", "pids.max": "77",
		}},
		{&cri.LinuxContainerResources{MemoryLimitInBytes: 48 << 20, MemorySwapLimitInBytes: 80 << 20}, map[string]string{
			"memory.max": fmt.Sprint(48 << 20), "memory.swap.max": fmt.Sprint(32 << 20),
		}},
		{&cri.LinuxContainerResources{Unified: map[string]string{"memory.high": fmt.Sprint(40 << 20)}}, map[string]string{
			"memory.high": fmt.Sprint(40 << 20), "memory.max": fmt.Sprint(48 << 20), "pids.max": "77",
		}},
		{&cri.LinuxContainerResources{Unified: map[string]string{"pids.max": "55"}}, map[string]string{
			"pids.max": "55", "memory.high": fmt.Sprint(40 << 20),
		}},
		{&cri.LinuxContainerResources{CpuQuota: -1}, map[string]string{"cpu.max": "max 100000", "cpu.weight": "1"}},
	} {
		c.update(step.change)
		for file, want := range step.values {
			equal(t, fmt.Sprintf("%s after %v", file, step.change), c.exec("cat", "/sys/fs/cgroup/"+file), want)
		}
	}
	// The rules of its devices are replaced with each change.
	c.exec("sh", "-c", ": </dev/null >/dev/zero")
	told := c.status().Resources.GetLinux()
	equal(t, "pids.max told", told.GetUnified()["pids.max"], "55")
	equal(t, "quota told", told.GetCpuQuota(), -1)
	equal(t, "swap told", told.GetMemorySwapLimitInBytes(), 80<<20)

	for file, value := range map[string]string{"memory.max": "much", "cpu.no-such": "1"} {
		err := c.Runtime.UpdateContainerResources(t.Context(), c.id, &cri.ContainerResources{
			Linux: &cri.LinuxContainerResources{Unified: map[string]string{file: value}},
		})
		refused(t, err, codes.InvalidArgument, c.id, file, value)
	}
	equal(t, "memory.max after a refusal", c.exec("cat", "/sys/fs/cgroup/memory.max"), fmt.Sprint(48<<20))
	equal(t, "told after a refusal", c.status().Resources.GetLinux().GetUnified()["memory.max"], "")
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
