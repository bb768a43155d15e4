package e2e

import (
	"fmt"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

// Runs for 1.5 s of wall time, and writes processor time and wall time in hundredths of a second.
const burn = `now() { read up _ </proc/uptime; up=${up%.*}${up#*.}; }
now; begin=$up; while now; [ $up -lt $((begin+150)) ]; do :; done
read stat </proc/$$/stat; set -- $stat; echo $(($14+$15)) $((up-begin))`

// fill is a command that has so many MiB of memory at once.
func fill(mebibytes int) []string {
	return []string{"dd", "if=/dev/zero", "of=/dev/null", "count=1", fmt.Sprintf("bs=%dM", mebibytes)}
}

func memory(mebibytes int64) *cri.LinuxContainerResources {
	return &cri.LinuxContainerResources{MemoryLimitInBytes: mebibytes << 20}
}

func TestParityResources(t *testing.T) {
	p := onNode(t).runPod()

	t.Run("memory", func(t *testing.T) {
		for _, c := range []struct {
			name, script string
			code         int32
			reason       string
		}{
			{"below", "dd if=/dev/zero of=/dev/null bs=24M count=1", 0, "Completed"},
			{"above", "exec tail /dev/zero", 137, "OOMKilled"},
			{"child-above", "tail /dev/zero; exit 3", 3, "OOMKilled"},
		} {
			t.Run(c.name, func(t *testing.T) {
				status := p.in(t).shell(c.name, c.script, limited(memory(48))).exited()
				equal(t, "exit code", status.ExitCode, c.code)
				equal(t, "reason", status.Reason, c.reason)
			})
		}
	})

	t.Run("cpu quota", func(t *testing.T) {
		c := p.in(t).shell("quota", burn, limited(&cri.LinuxContainerResources{CpuPeriod: 50_000, CpuQuota: 10_000}))
		var used, elapsed int
		_, err := fmt.Sscan(c.succeeds(), &used, &elapsed)
		must(t, err)
		if used*100 > elapsed*35 {
			t.Errorf("%d of %d hundredths of a second used with a limit of 20 %%", used, elapsed)
		}
	})

	t.Run("oom_score_adj", func(t *testing.T) {
		c := p.in(t).idle("score", limited(&cri.LinuxContainerResources{OomScoreAdj: 700}))
		equal(t, "of the first process", c.exec("cat", "/proc/1/oom_score_adj"), "700")
		equal(t, "of an exec", c.exec("cat", "/proc/self/oom_score_adj"), "700")
	})

	t.Run("status shows what is applied", func(t *testing.T) {
		asked := &cri.LinuxContainerResources{
			CpuPeriod: 100_000, CpuQuota: 150_000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, OomScoreAdj: 500,
		}
		told := p.in(t).idle("told", limited(asked)).status().Resources.GetLinux()
		equal(t, "period", told.GetCpuPeriod(), asked.CpuPeriod)
		equal(t, "quota", told.GetCpuQuota(), asked.CpuQuota)
		equal(t, "shares", told.GetCpuShares(), asked.CpuShares)
		equal(t, "memory", told.GetMemoryLimitInBytes(), asked.MemoryLimitInBytes)
		equal(t, "oom_score_adj", told.GetOomScoreAdj(), asked.OomScoreAdj)
	})

	t.Run("processors and memory nodes by number", func(t *testing.T) {
		c := p.in(t).idle("cpuset", limited(&cri.LinuxContainerResources{CpusetCpus: "0", CpusetMems: "0"}))
		told := c.status().Resources.GetLinux()
		equal(t, "processors", told.GetCpusetCpus(), "0")
		equal(t, "memory nodes", told.GetCpusetMems(), "0")
	})
}

func TestParityResourcesChange(t *testing.T) {
	p := onNode(t).runPod()

	t.Run("running", func(t *testing.T) {
		p := p.in(t)
		c := p.idle("running", limited(&cri.LinuxContainerResources{CpuQuota: 50_000, CpuPeriod: 100_000, MemoryLimitInBytes: 32 << 20}))
		_, _, code := c.tryExec(fill(48)...)
		equal(t, "exit code of 48 MiB in 32", code, 137)
		c.update(memory(96))
		c.exec(fill(48)...)
		c.update(&cri.LinuxContainerResources{CpuQuota: 80_000})
		told := c.status().Resources.GetLinux()
		equal(t, "memory", told.GetMemoryLimitInBytes(), 96<<20)
		equal(t, "quota", told.GetCpuQuota(), 80_000)
		equal(t, "period", told.GetCpuPeriod(), 100_000)
		equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	})

	t.Run("not started yet", func(t *testing.T) {
		p := p.in(t)
		config := fixture.ContainerConfig("created", busybox, fill(48)...)
		limited(memory(32))(config)
		c := p.create(config)
		c.update(memory(96))
		equal(t, "memory", c.status().Resources.GetLinux().GetMemoryLimitInBytes(), 96<<20)
		must(t, p.Runtime.StartContainer(t.Context(), c.id))
		c.succeeds()
	})

	t.Run("exited", func(t *testing.T) {
		c := p.in(t).shell("exited", "exit 0", limited(memory(32)))
		c.succeeds()
		c.update(memory(96))
		equal(t, "memory", c.status().Resources.GetLinux().GetMemoryLimitInBytes(), 96<<20)
	})
}

// in is the pod in a part of its test.
func (p *pod) in(t *testing.T) *pod {
	return &pod{&node{p.Node, t}, p.id, p.config}
}

func (c *container) update(resources *cri.LinuxContainerResources) {
	c.t.Helper()
	must(c.t, c.Runtime.UpdateContainerResources(c.t.Context(), c.id, &cri.ContainerResources{Linux: resources}))
}
