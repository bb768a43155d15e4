package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

// podFixed of packaging/kubernetes/runtimeclass.yaml.
const overheadMB = 176

func podLimits(cpuQuota, memoryMB int64) func(*cri.PodSandboxConfig) {
	return func(config *cri.PodSandboxConfig) {
		config.Linux.Resources = &cri.LinuxContainerResources{CpuPeriod: 100_000, CpuQuota: cpuQuota, MemoryLimitInBytes: memoryMB << 20}
		config.Linux.Overhead = &cri.LinuxContainerResources{MemoryLimitInBytes: overheadMB << 20}
	}
}

// holding starts a container that keeps so many MiB of memory.
func (p *pod) holding(name string, mebibytes int) *container {
	p.t.Helper()
	c := p.shell(name, strings.Join(fill(mebibytes), " ")+" of=/dev/stdout 2>/dev/null | { head -c 1 >/dev/null; echo held; exec sleep 3600; }",
		limited(memory(int64(mebibytes)+8)))
	c.says("held")
	return c
}

// As under kubelet: the pod's cgroup has the sum of the limits and the overhead, and no more.
func TestSumOfLimitsIsUsableWithinLimitAndOverhead(t *testing.T) {
	n := onNode(t)
	const each = 100
	parent, remove, err := n.Cgroup("limited", (2*each+overheadMB)<<20)
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	must(t, err)
	p := n.runPod(podLimits(150_000, 2*each), func(config *cri.PodSandboxConfig) { config.Linux.CgroupParent = parent })
	equal(t, "processors", p.shell("nproc", "nproc").succeeds(), "2\n")
	for _, name := range []string{"one", "two"} {
		p.holding(name, each-8)
	}
	for _, process := range []string{"a3s-box-shim", "qemu", "virtiofsd", "vhost-device-vsock"} {
		for _, found := range n.PodProcesses(p.id, process) {
			members := strings.Join(fixture.CgroupValues(fixture.PodCgroup(parent, p.id), "cgroup.procs"), "\n") + "\n"
			contains(t, "the pod's cgroup", members, fmt.Sprintf("%d\n", found.PID))
		}
	}
	equal(t, "state", p.status().State, cri.PodSandboxState_SANDBOX_READY)
}

func TestCgroupWithoutRoomForTheVMIsRefused(t *testing.T) {
	n := onNode(t)
	parent, remove, err := n.Cgroup("small", 128<<20)
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	must(t, err)
	_, err = n.tryPod("", podLimits(0, 128), func(config *cri.PodSandboxConfig) { config.Linux.CgroupParent = parent })
	refused(t, err, codes.InvalidArgument, "128 MiB", "podFixed.memory")
}

func TestSmallestVMBoots(t *testing.T) {
	onNode(t).runPod(annotated("a3s.box/memory-mb", "64")).idle("main").exec("true")
}

func TestOvercommittedGuestKillsContainersAndNotItself(t *testing.T) {
	p := onNode(t).runPod(func(config *cri.PodSandboxConfig) { config.Linux.SecurityContext.Privileged = true })
	quiet := p.idle("quiet", limited(&cri.LinuxContainerResources{OomScoreAdj: -997}))
	// Its limit is more than the guest has.
	for _, c := range []*container{p.shell("limited", "exec tail /dev/zero", limited(memory(4096))), p.shell("unlimited", "exec tail /dev/zero")} {
		status := c.exited()
		equal(t, "exit code", status.ExitCode, 137)
		equal(t, "reason", status.Reason, "OOMKilled")
	}
	// What it takes is no process's own.
	tmpfs := p.shell("tmpfs", "mkdir /t && mount -t tmpfs -o size=4g none /t && exec dd if=/dev/zero of=/t/file bs=1M", func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.Privileged = true
	})
	equal(t, "exit code of the one that fills a tmpfs", tmpfs.exited().ExitCode, 137)
	quiet.exec("true")
	p.idle("next").exec("true")
}

func TestMemoryLimitTooLowToBeginIsAnError(t *testing.T) {
	p := onNode(t).runPod()
	config := fixture.ContainerConfig("tiny", busybox, "true")
	config.Linux.Resources = &cri.LinuxContainerResources{MemoryLimitInBytes: 128 << 10}
	c := p.create(config)
	err := p.Runtime.StartContainer(t.Context(), c.id)
	if err == nil {
		t.Fatal("it started")
	}
	contains(t, "the error", err.Error(), c.id, "memory limit")
	p.idle("next").exec("true")
}

// The host's kernel finds all memory of a pod in its VM: it is to spare that as it would the container it would spare most.
func TestHostSparesThePodAsItsContainers(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	score := func(process string) string {
		t.Helper()
		found := n.PodProcesses(p.id, process)
		if len(found) == 0 {
			t.Fatalf("the pod has no %s", process)
		}
		return strings.TrimSpace(mustRead(t, fmt.Sprintf("/proc/%d/oom_score_adj", found[0].PID)))
	}
	frontend, err := strconv.Atoi(strings.TrimSpace(mustRead(t, fmt.Sprintf("/proc/%d/oom_score_adj", n.FrontendPID()))))
	must(t, err)
	equal(t, "the shim", score("a3s-box-shim"), strconv.Itoa(frontend+1))
	equal(t, "the VM without containers", score("qemu"), "0")
	scored := func(name string, score int64) *container {
		return p.idle(name, limited(&cri.LinuxContainerResources{OomScoreAdj: score}))
	}
	scored("first", 700)
	equal(t, "the VM with a container of 700", score("qemu"), "700")
	equal(t, "virtiofsd", score("virtiofsd"), "700")
	second := scored("second", 300)
	equal(t, "the VM with another of 300", score("qemu"), "300")
	must(t, p.Runtime.StopContainer(t.Context(), second.id, 5))
	equal(t, "the VM without that", score("qemu"), "700")
}

func TestForkBombMeetsItsLimit(t *testing.T) {
	p := onNode(t).runPod(annotated("a3s.box/pids-limit", "20"))
	bomb := p.shell("bomb", "while sleep 3600 & do :; done")
	equal(t, "exit code of the bomb", bomb.exited().ExitCode, 2)
	_, stderr := bomb.log()
	contains(t, "the bomb's last words", stderr, "can't fork")

	// As many processes as it may have.
	full := p.shell("full", "for i in $(seq 19); do sleep 3600 & done; echo full; wait")
	full.says("full")
	_, _, err := p.Runtime.ExecSync(t.Context(), full.id, []string{"true"}, patience)
	refused(t, err, codes.ResourceExhausted, "pids.max", full.id)
	p.idle("next").exec("true")
	must(t, p.Runtime.StopContainer(t.Context(), full.id, 1))
	equal(t, "state", full.status().State, cri.ContainerState_CONTAINER_EXITED)
}

// The guest's kernel has fewer threads than a container may have processes.
func TestForkBombLeavesTheAgentWhatItNeeds(t *testing.T) {
	p := onNode(t).runPod(annotated("a3s.box/memory-mb", "96"))
	other := p.idle("other")
	// The shell that cannot go on ends, and leaves a place.
	bomb := p.shell("bomb", "sh -c 'while sleep 3600 & do :; done'; sleep 3600 & echo full; exec sleep 3600")
	bomb.says("full")
	_, _, err := p.Runtime.ExecSync(t.Context(), other.id, []string{"true"}, patience)
	refused(t, err, codes.ResourceExhausted, "threads-max", other.id)
	must(t, p.Runtime.StopContainer(t.Context(), bomb.id, 1))
	other.exec("true")
}

func TestHugePagesComeFromAPoolOfThePod(t *testing.T) {
	pages := func(bytes uint64) []*cri.HugepageLimit { return []*cri.HugepageLimit{{PageSize: "2MB", Limit: bytes}} }
	p := onNode(t).runPod(func(config *cri.PodSandboxConfig) {
		config.Linux.SecurityContext.Privileged = true
		config.Linux.Resources = &cri.LinuxContainerResources{HugepageLimits: pages(8 << 20)}
	})
	c := p.idle("main", limited(&cri.LinuxContainerResources{HugepageLimits: pages(4 << 20)}), func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.Privileged = true
	})
	contains(t, "meminfo", c.exec("grep", "HugePages_Total", "/proc/meminfo"), " 4")
	c.exec("sh", "-c", "mkdir /huge && mount -t hugetlbfs none /huge && fallocate -l 4M /huge/a")
	if _, _, code := c.tryExec("fallocate", "-l", "2M", "/huge/b"); code == 0 {
		t.Error("the container took more huge pages than it may have")
	}

	// kubelet's emptyDir of medium HugePages: what lies there is of the same pool, and within the container's limit.
	volume := p.kubeletVolume("empty-dir", "huge")
	must(t, unix.Mount("nodev", volume, "hugetlbfs", 0, "pagesize=2Mi"))
	t.Cleanup(func() { _ = unix.Unmount(volume, unix.MNT_DETACH) })
	must(t, os.Chmod(volume, 0o777))
	c.exec("rm", "/huge/a")
	user := p.idle("user", limited(&cri.LinuxContainerResources{HugepageLimits: pages(6 << 20)}), mounted(bind(volume, "/huge")),
		func(config *cri.ContainerConfig) {
			config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 1000}
		})
	contains(t, "the volume", user.exec("grep", " /huge ", "/proc/mounts"), "hugetlbfs", "pagesize=2M")
	user.exec("fallocate", "-l", "6M", "/huge/a")
	contains(t, "meminfo with 3 of 4 used", user.exec("grep", "HugePages_Free", "/proc/meminfo"), " 1")
	if _, _, code := user.tryExec("fallocate", "-l", "2M", "/huge/b"); code == 0 {
		t.Error("the container took more huge pages of the volume than it may have")
	}
	user.exec("rm", "/huge/a")

	p.pull(busybox)
	greedy := fixture.ContainerConfig("greedy", busybox, "true")
	greedy.Linux.Resources.HugepageLimits = pages(16 << 20)
	_, err := p.Runtime.CreateContainer(t.Context(), p.id, greedy, p.config)
	refused(t, err, codes.InvalidArgument, "2MB", "8388608")

	other := p.kubeletVolume("empty-dir", "gigantic")
	if err := unix.Mount("nodev", other, "hugetlbfs", 0, "pagesize=1Gi"); err != nil {
		t.Logf("this machine has no huge pages of 1 GiB: %v", err)
		return
	}
	t.Cleanup(func() { _ = unix.Unmount(other, unix.MNT_DETACH) })
	config := fixture.ContainerConfig("gigantic", busybox, "true")
	mounted(bind(other, "/huge"))(config)
	err = p.Runtime.StartContainer(t.Context(), p.create(config).id)
	refused(t, err, codes.InvalidArgument, other, "1073741824")
}

func TestCpusetsKeepThePodsProcessesOnTheHost(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	on := func(cpus string) *cri.LinuxContainerResources { return &cri.LinuxContainerResources{CpusetCpus: cpus} }
	runsOn := func(when, cpus string) {
		t.Helper()
		for _, process := range n.PodProcesses(p.id, "qemu") {
			text := mustRead(t, fmt.Sprintf("/proc/%d/status", process.PID))
			contains(t, when, text, "Cpus_allowed_list:\t"+cpus+"\n")
		}
	}
	all := strings.TrimSpace(mustRead(t, "/sys/devices/system/cpu/online"))
	first := p.idle("first", limited(on("0")))
	runsOn("one container on processor 0", "0")
	equal(t, "the guest's own processors", first.exec("nproc"), "1")
	if all != "0" {
		first.update(on("1"))
		runsOn("the same on processor 1", "1")
		second := p.idle("second", limited(on("0")))
		runsOn("another one on processor 0", "0-1")
		must(t, p.Runtime.StopContainer(t.Context(), second.id, 5))
		runsOn("the other one has ended", "1")
	}
	p.idle("anywhere")
	runsOn("a container without a word", all)

	for _, c := range []struct{ cpus, mems, field, missing string }{
		{"0,4000", "", "cpuset_cpus", "4000"}, {"", "77", "cpuset_mems", "77"}, {"0-", "", "cpuset_cpus", "0-"},
	} {
		config := fixture.ContainerConfig("bad", busybox, "true")
		config.Linux.Resources.CpusetCpus, config.Linux.Resources.CpusetMems = c.cpus, c.mems
		_, err := p.Runtime.CreateContainer(t.Context(), p.id, config, p.config)
		refused(t, err, codes.InvalidArgument, c.field, c.missing)
		if c.cpus != "" {
			err := p.Runtime.UpdateContainerResources(t.Context(), first.id, &cri.ContainerResources{Linux: on(c.cpus)})
			refused(t, err, codes.InvalidArgument, c.field, c.missing)
		}
	}
}
