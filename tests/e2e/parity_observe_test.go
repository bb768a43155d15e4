package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

// How containers end, and how their statuses say so.
func TestParityObserveExits(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	limit := limited(&cri.LinuxContainerResources{MemoryLimitInBytes: 32 << 20})
	before := time.Now().UnixNano()
	for _, c := range []struct {
		name, script, reason string
		code                 int32
		change               []func(*cri.ContainerConfig)
	}{
		{name: "success", script: "exit 0", reason: "Completed"},
		{name: "failure", script: "exit 7", reason: "Error", code: 7},
		{name: "signal", script: "sh -c 'kill -11 $$'; exit $?", reason: "Error", code: 128 + 11},
		{name: "memory", script: "tail /dev/zero", reason: "OOMKilled", code: 137, change: []func(*cri.ContainerConfig){limit}},
	} {
		status := p.shell(c.name, c.script, c.change...).exited()
		equal(t, c.name+": exit code", status.ExitCode, c.code)
		equal(t, c.name+": reason", status.Reason, c.reason)
		now := time.Now().UnixNano()
		for _, at := range []int64{status.StartedAt, status.FinishedAt} {
			if times := []int64{before, status.CreatedAt, at, now}; !slices.IsSorted(times) {
				t.Errorf("%s: before, created, started or finished, now are %v", c.name, times)
			}
		}
		// containerd notes when it has heard of a start: what is as short as this may have ended by then.
		if n.ServedBy() == fixture.A3sBox && status.StartedAt > status.FinishedAt {
			t.Errorf("%s: started %d, finished %d", c.name, status.StartedAt, status.FinishedAt)
		}
	}
	killed := p.shell("killed", "trap '' TERM; echo ready; while :; do sleep 1; done")
	killed.says("ready")
	must(t, n.Runtime.StopContainer(t.Context(), killed.id, 0))
	equal(t, "killed: exit code", killed.status().ExitCode, 137)
	equal(t, "killed: reason", killed.status().Reason, "Error")

	missing := p.create(fixture.ContainerConfig("missing", busybox, "/no/such/program"))
	if err := n.Runtime.StartContainer(t.Context(), missing.id); err == nil {
		t.Fatal("a missing program was started")
	}
	status := missing.status()
	equal(t, "missing: state", status.State, cri.ContainerState_CONTAINER_EXITED)
	equal(t, "missing: reason", status.Reason, "StartError")
	equal(t, "missing: exit code", status.ExitCode, 128)
	contains(t, "missing: message", status.Message, "/no/such/program")
	if status.FinishedAt == 0 {
		t.Error("missing: it has no time of its end")
	}
}

// What a status says of a container that runs.
func TestParityObserveStatus(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	host := n.hostDir()
	resources := &cri.LinuxContainerResources{CpuPeriod: 100_000, CpuQuota: 50_000, CpuShares: 512, MemoryLimitInBytes: 64 << 20}
	c := p.idle("main", limited(resources), func(config *cri.ContainerConfig) {
		config.Labels = map[string]string{"part": "main", "empty": ""}
		config.Annotations = map[string]string{"example.com/note": "line\nline"}
		config.Mounts = []*cri.Mount{{HostPath: host, ContainerPath: "/data", Readonly: true}}
		config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 1234}
		config.Linux.SecurityContext.RunAsGroup = &cri.Int64Value{Value: 2345}
		config.Linux.SecurityContext.SupplementalGroups = []int64{3456}
		config.StopSignal = cri.Signal_SIGNAL_SIGUSR1
	})
	image, err := n.Images.ImageStatus(t.Context(), &cri.ImageSpec{Image: busybox}, false)
	must(t, err)
	status := c.status()
	equal(t, "state", status.State, cri.ContainerState_CONTAINER_RUNNING)
	equal(t, "image", status.Image.Image, busybox)
	equal(t, "image id", status.ImageId, image.Image.Id)
	equal(t, "image ref", status.ImageRef, image.Image.RepoDigests[0])
	equal(t, "log path", status.LogPath, c.logPath())
	equal(t, "stop signal", status.StopSignal, cri.Signal_SIGNAL_SIGUSR1)
	equal(t, "uid", status.User.GetLinux().GetUid(), 1234)
	equal(t, "gid", status.User.GetLinux().GetGid(), 2345)
	equal(t, "group", slices.Contains(status.User.GetLinux().GetSupplementalGroups(), 3456), true)
	equal(t, "labels", maps.Equal(status.Labels, c.config.Labels), true)
	equal(t, "annotations", maps.Equal(status.Annotations, c.config.Annotations), true)
	equal(t, "mounts", len(status.Mounts), 1)
	equal(t, "mount", status.Mounts[0].String(), c.config.Mounts[0].String())
	applied := status.Resources.GetLinux()
	equal(t, "quota", applied.GetCpuQuota(), resources.CpuQuota)
	equal(t, "period", applied.GetCpuPeriod(), resources.CpuPeriod)
	equal(t, "shares", applied.GetCpuShares(), resources.CpuShares)
	equal(t, "memory", applied.GetMemoryLimitInBytes(), resources.MemoryLimitInBytes)
	if status.FinishedAt != 0 || status.ExitCode != 0 || status.Reason != "" || status.Message != "" {
		t.Errorf("a running container has an end: %v", status)
	}
	listed, err := n.Runtime.ListContainers(t.Context(), &cri.ContainerFilter{Id: c.id})
	must(t, err)
	equal(t, "listed", len(listed), 1)
	equal(t, "listed image", listed[0].Image.Image, busybox)
	equal(t, "listed image id", listed[0].ImageId, status.ImageId)
	equal(t, "listed image ref", listed[0].ImageRef, status.ImageId)
	equal(t, "listed pod", listed[0].PodSandboxId, p.id)
}

// What happens to a pod and to its container is told in order, with the pod's status.
func TestParityObserveEvents(t *testing.T) {
	n := onNode(t)
	events := n.listen()
	p := n.runPod()
	c := p.shell("main", "exit 5")
	c.exited()
	events.until("the container's end", c.id, "CREATED STARTED STOPPED")
	must(t, n.Runtime.RemoveContainer(t.Context(), c.id))
	p.remove()
	events.until("the container's removal", c.id, "CREATED STARTED STOPPED DELETED")
	events.until("the pod's removal", p.id, "CREATED STARTED STOPPED DELETED")

	for _, event := range events.of(c.id) {
		if event.PodSandboxStatus.GetMetadata().GetUid() != p.config.Metadata.Uid || event.CreatedAt == 0 {
			t.Errorf("the event is %v", event)
		}
	}
	stopped := events.of(c.id)[2]
	equal(t, "statuses with the container's end", len(stopped.ContainersStatuses), 1)
	equal(t, "exit code in the event", stopped.ContainersStatuses[0].ExitCode, 5)
	equal(t, "pod in the event", stopped.PodSandboxStatus.State, cri.PodSandboxState_SANDBOX_READY)
}

// events are what a subscriber has heard.
type events struct {
	*node
	mutex sync.Mutex
	heard []*cri.ContainerEventResponse
}

// listen subscribes until the test ends.
func (n *node) listen() *events {
	n.t.Helper()
	e := &events{node: n}
	ctx, cancel := context.WithCancel(n.t.Context())
	channel, connected := make(chan *cri.ContainerEventResponse, 64), make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		defer close(channel)
		var once sync.Once
		err := n.Runtime.GetContainerEvents(ctx, channel, func(cri.RuntimeService_GetContainerEventsClient) { once.Do(func() { close(connected) }) })
		if err != nil && ctx.Err() == nil {
			n.t.Logf("the stream of events has ended: %v", err)
		}
	})
	done.Go(func() {
		for event := range channel {
			e.mutex.Lock()
			e.heard = append(e.heard, event)
			e.mutex.Unlock()
		}
	})
	n.t.Cleanup(func() { cancel(); done.Wait() })
	select {
	case <-connected:
	case <-time.After(patience):
		n.t.Fatal("nobody answers who asks for events")
	}
	return e
}

// of is what was heard of one container, or of one pod.
func (e *events) of(id string) []*cri.ContainerEventResponse {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return slices.DeleteFunc(slices.Clone(e.heard), func(event *cri.ContainerEventResponse) bool { return event.ContainerId != id })
}

// until waits for a sequence of kinds.
func (e *events) until(what, id, kinds string) {
	e.t.Helper()
	e.node.until(what, func() error {
		var got []string
		for _, event := range e.of(id) {
			name := strings.TrimPrefix(event.ContainerEventType.String(), "CONTAINER_")
			got = append(got, strings.TrimSuffix(name, "_EVENT"))
		}
		if heard := strings.Join(got, " "); heard != kinds {
			return fmt.Errorf("the events are %q", heard)
		}
		return nil
	})
}

// Figures grow with what a container does.
func TestParityObserveStats(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	c := p.idle("main", limited(&cri.LinuxContainerResources{MemoryLimitInBytes: 96 << 20}))
	before := c.stats()
	c.exec("sh", "-c", "dd if=/dev/urandom of=/file bs=1M count=8 2>/dev/null; sync; i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done")
	c.until("the figures to grow", func() error {
		after := c.stats()
		cpu := after.Cpu.UsageCoreNanoSeconds.GetValue() - before.Cpu.UsageCoreNanoSeconds.GetValue()
		written := int64(after.WritableLayer.UsedBytes.GetValue()) - int64(before.WritableLayer.UsedBytes.GetValue())
		if cpu < 1_000_000 || written < 8<<20 || written > 16<<20 {
			return fmt.Errorf("%d ns of CPU and %d bytes in the writable layer", cpu, written)
		}
		return nil
	})
	memory := c.stats().Memory
	if memory.UsageBytes.GetValue() < memory.WorkingSetBytes.GetValue() || memory.WorkingSetBytes.GetValue() == 0 {
		t.Errorf("usage and working set are %d and %d", memory.UsageBytes.GetValue(), memory.WorkingSetBytes.GetValue())
	}
	equal(t, "limit", memory.AvailableBytes.GetValue()+memory.WorkingSetBytes.GetValue(), 96<<20)
	if memory.RssBytes.GetValue() == 0 || memory.PageFaults.GetValue() == 0 {
		t.Errorf("rss and page faults: %v", memory)
	}
	if c.stats().WritableLayer.InodesUsed.GetValue() == 0 {
		t.Error("no inodes in the writable layer")
	}
	// The rate is of the last second or two, and in the list only, which is what kubelet reads.
	c.until("a rate of processor time", func() error {
		c.exec("sh", "-c", "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); done")
		all, err := n.Runtime.ListContainerStats(t.Context(), &cri.ContainerStatsFilter{PodSandboxId: p.id})
		must(t, err)
		equal(t, "containers with stats", len(all), 1)
		equal(t, "container", all[0].Attributes.Id, c.id)
		if all[0].Cpu.UsageNanoCores.GetValue() == 0 {
			return errors.New("it is 0")
		}
		return nil
	})
	pod, err := n.Runtime.PodSandboxStats(t.Context(), p.id)
	must(t, err)
	equal(t, "pod", pod.Attributes.Metadata.Uid, p.config.Metadata.Uid)
	equal(t, "interface", pod.Linux.Network.DefaultInterface.Name, "eth0")
	if pod.Linux.Cpu.UsageCoreNanoSeconds.GetValue() == 0 || pod.Linux.Memory.WorkingSetBytes.GetValue() == 0 || pod.Linux.Process.ProcessCount.GetValue() == 0 {
		t.Errorf("the pod's figures: %v", pod.Linux)
	}
	equal(t, "containers in the pod's stats", len(pod.Linux.Containers), 1)
}
