package e2e

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

func TestPodIsReadyAndSaysWhatItIs(t *testing.T) {
	n := onNode(t)
	before := time.Now()
	p := n.runPod()
	status := p.status()
	equal(t, "state", status.State, cri.PodSandboxState_SANDBOX_READY)
	equal(t, "metadata", status.Metadata.String(), p.config.Metadata.String())
	equal(t, "label", status.Labels["app"], "pod")
	equal(t, "annotation", status.Annotations["example.com/note"], "kept")
	equal(t, "network namespace", status.Linux.Namespaces.Options.Network, cri.NamespaceMode_POD)
	if created := time.Unix(0, status.CreatedAt); created.Before(before) || created.After(time.Now()) {
		t.Errorf("created at %s, which is not between %s and now", created, before)
	}
	if _, err := netip.ParseAddr(status.Network.Ip); err != nil {
		t.Errorf("pod IP: %v", err)
	}
}

func TestStoppedPodIsNotReadyAndRemovedPodIsUnknown(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	c := p.idle("main")
	must(t, n.Runtime.StopPodSandbox(t.Context(), p.id))
	stopped := p.status()
	equal(t, "pod", stopped.State, cri.PodSandboxState_SANDBOX_NOTREADY)
	equal(t, "address, which another pod may have now", stopped.Network.Ip, "")
	equal(t, "container", c.status().State, cri.ContainerState_CONTAINER_EXITED)
	_, err := n.Runtime.PodSandboxStats(t.Context(), p.id)
	refused(t, err, codes.FailedPrecondition, p.id, "not ready")
	if left := n.PodProcesses(p.id, ""); len(left) > 0 {
		t.Errorf("processes of a stopped pod: %v", left)
	}
	must(t, n.Runtime.RemovePodSandbox(t.Context(), p.id))
	_, err = n.Runtime.PodSandboxStatus(t.Context(), p.id, false)
	refused(t, err, codes.NotFound, p.id)
	_, err = n.Runtime.ContainerStatus(t.Context(), c.id, false)
	refused(t, err, codes.NotFound, c.id)
}

func TestStopAndRemoveMayBeRepeated(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	c := p.idle("main")
	for range 2 {
		must(t, n.Runtime.StopContainer(t.Context(), c.id, 1))
	}
	for range 2 {
		must(t, n.Runtime.RemoveContainer(t.Context(), c.id))
	}
	for range 2 {
		must(t, n.Runtime.StopPodSandbox(t.Context(), p.id))
	}
	for range 2 {
		must(t, n.Runtime.RemovePodSandbox(t.Context(), p.id))
	}
	unknown := strings.Repeat("0", 64)
	must(t, n.Runtime.RemoveContainer(t.Context(), unknown))
	must(t, n.Runtime.StopPodSandbox(t.Context(), unknown))
	must(t, n.Runtime.RemovePodSandbox(t.Context(), unknown))
}

func TestRemovingAPodRemovesItsRunningContainers(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	c := p.idle("main")
	must(t, n.Runtime.StopPodSandbox(t.Context(), p.id))
	must(t, n.Runtime.RemovePodSandbox(t.Context(), p.id))
	left, err := n.Runtime.ListContainers(t.Context(), &cri.ContainerFilter{Id: c.id})
	must(t, err)
	equal(t, "containers left", len(left), 0)
}

func TestPodsAndContainersAreListedByFilter(t *testing.T) {
	n := onNode(t)
	first := n.runPod()
	second := n.runPod(func(config *cri.PodSandboxConfig) { config.Labels = map[string]string{"app": "other"} })
	running := first.idle("running", func(config *cri.ContainerConfig) { config.Labels = map[string]string{"part": "b"} })
	ended := second.shell("ended", "exit 0", func(config *cri.ContainerConfig) { config.Labels = map[string]string{"part": "a"} })
	ended.exited()
	must(t, n.Runtime.StopPodSandbox(t.Context(), second.id))

	ready := &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}
	for _, c := range []struct {
		filter *cri.PodSandboxFilter
		want   []string
	}{
		{nil, []string{first.id, second.id}},
		{&cri.PodSandboxFilter{Id: first.id}, []string{first.id}},
		{&cri.PodSandboxFilter{Id: first.id[:20]}, []string{first.id}},
		{&cri.PodSandboxFilter{State: ready}, []string{first.id}},
		{&cri.PodSandboxFilter{LabelSelector: map[string]string{"app": "other"}}, []string{second.id}},
		{&cri.PodSandboxFilter{Id: first.id, LabelSelector: map[string]string{"app": "other"}}, nil},
	} {
		listed, err := n.Runtime.ListPodSandbox(t.Context(), c.filter)
		must(t, err)
		sameIDs(t, c.filter.String(), listed, (*cri.PodSandbox).GetId, c.want)
	}
	for _, c := range []struct {
		filter *cri.PodSandboxStatsFilter
		want   []string
	}{
		{nil, []string{first.id}},
		{&cri.PodSandboxStatsFilter{Id: first.id}, []string{first.id}},
		{&cri.PodSandboxStatsFilter{LabelSelector: map[string]string{"app": "pod"}}, []string{first.id}},
		{&cri.PodSandboxStatsFilter{LabelSelector: map[string]string{"app": "other"}}, nil},
		{&cri.PodSandboxStatsFilter{Id: second.id}, nil},
	} {
		listed, err := n.Runtime.ListPodSandboxStats(t.Context(), c.filter)
		must(t, err)
		sameIDs(t, c.filter.String(), listed, func(stats *cri.PodSandboxStats) string { return stats.Attributes.Id }, c.want)
	}
	for _, c := range []struct {
		filter *cri.ContainerStatsFilter
		want   []string
	}{
		{&cri.ContainerStatsFilter{Id: running.id}, []string{running.id}},
		{&cri.ContainerStatsFilter{LabelSelector: map[string]string{"part": "b"}}, []string{running.id}},
		{&cri.ContainerStatsFilter{LabelSelector: map[string]string{"part": "c"}}, nil},
		{&cri.ContainerStatsFilter{Id: running.id, PodSandboxId: second.id}, nil},
	} {
		listed, err := n.Runtime.ListContainerStats(t.Context(), c.filter)
		must(t, err)
		sameIDs(t, c.filter.String(), listed, func(stats *cri.ContainerStats) string { return stats.Attributes.Id }, c.want)
	}
	exited := &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_EXITED}
	for _, c := range []struct {
		filter *cri.ContainerFilter
		want   []string
	}{
		{nil, []string{running.id, ended.id}},
		{&cri.ContainerFilter{Id: running.id}, []string{running.id}},
		{&cri.ContainerFilter{PodSandboxId: second.id}, []string{ended.id}},
		{&cri.ContainerFilter{State: exited}, []string{ended.id}},
		{&cri.ContainerFilter{LabelSelector: map[string]string{"part": "a"}}, []string{ended.id}},
		{&cri.ContainerFilter{PodSandboxId: first.id, State: exited}, nil},
	} {
		listed, err := n.Runtime.ListContainers(t.Context(), c.filter)
		must(t, err)
		sameIDs(t, c.filter.String(), listed, (*cri.Container).GetId, c.want)
	}
}

func sameIDs[T any](t *testing.T, what string, listed []T, id func(T) string, want []string) {
	t.Helper()
	var got []string
	for _, element := range listed {
		got = append(got, id(element))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("filter {%s}: listed %v, want %v", what, got, want)
	}
}

func TestGuestRunsAKernelOfItsOwn(t *testing.T) {
	n := onNode(t)
	var host unix.Utsname
	must(t, unix.Uname(&host))
	c := n.runPod().idle("main")
	guest := c.exec("uname", "-r")
	if release := unix.ByteSliceToString(host.Release[:]); guest == release {
		t.Errorf("the container sees the host's kernel %s", release)
	}
	contains(t, "the guest's kernel release", guest, "a3s-box")
	// The agent's code: nothing else in the guest asks for such pages.
	equal(t, "files in huge pages", strings.Fields(c.exec("grep", "ShmemHugePages", "/proc/meminfo"))[1], "4096")
}

// The host writes to the guest's memory where an emulated processor does not see it: what it has translated of the program that was
// there before must not run.
func TestProgramsRunInMemoryThatHeldOthers(t *testing.T) {
	const programs = `ln -s usr/lib /host/lib; ln -s usr/lib64 /host/lib64
		for round in 1 2; do
			for program in ls sed tar bash perl grep; do
				chroot /host /usr/bin/$program --version >/dev/null || echo "round $round: $program: exit code $?"
			done
			echo 3 >/proc/sys/vm/drop_caches
		done`
	c := onNode(t).runPod(privilegedPod).idle("main", privileged, func(config *cri.ContainerConfig) {
		config.Mounts = []*cri.Mount{{HostPath: "/usr", ContainerPath: "/host/usr", Readonly: true}}
	})
	equal(t, "programs that failed", c.exec("sh", "-c", programs), "")
}

func TestContainersShareThePodsNamespacesButNotTheirProcesses(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	first, second := p.idle("first"), p.idle("second")
	for _, namespace := range []string{"ipc", "uts", "net"} {
		link := "/proc/self/ns/" + namespace
		equal(t, namespace+" namespace", first.exec("readlink", link), second.exec("readlink", link))
	}
	for _, namespace := range []string{"pid", "mnt"} {
		link := "/proc/self/ns/" + namespace
		if first.exec("readlink", link) == second.exec("readlink", link) {
			t.Errorf("two containers have one %s namespace", namespace)
		}
	}
	second.exec("sh", "-c", "sleep 4321 > /dev/null 2>&1 &")
	if processes := first.exec("ps"); strings.Contains(processes, "4321") {
		t.Errorf("a container sees another's processes:\n%s", processes)
	}
	equal(t, "first process", first.exec("sh", "-c", "tr '\\0' ' ' < /proc/1/comm"), "sh")
	equal(t, "hostname", second.exec("hostname"), "pod")
	first.exec("sh", "-c", "echo shared > /dev/shm/note")
	equal(t, "/dev/shm", second.exec("cat", "/dev/shm/note"), "shared")
}

func TestTwentyPodsAtOnce(t *testing.T) {
	n := onNode(t)
	pods := make([]*pod, 20)
	together(len(pods), func(i int) {
		var err error
		if pods[i], err = n.tryPod(""); err != nil {
			t.Errorf("pod %d: %v", i, err)
		}
	})
	if t.Failed() {
		return
	}
	addresses := map[string]bool{}
	for _, p := range pods {
		addresses[p.podIP()] = true
		equal(t, "hostname", p.idle("main").exec("hostname"), "pod")
	}
	equal(t, "distinct addresses", len(addresses), len(pods))

	// A hundred calls at once that end them, several for each, while containers are still made.
	service := n.Runtime
	together(6*len(pods), func(i int) {
		p := pods[i/6]
		var err error
		switch i % 6 {
		case 0, 1:
			err = service.StopPodSandbox(t.Context(), p.id)
		case 2, 3, 4:
			err = service.RemovePodSandbox(t.Context(), p.id)
		default:
			// It comes too early or too late; either way nothing of it is left.
			if id, err := service.CreateContainer(t.Context(), p.id, fixture.ContainerConfig("late", busybox, "true"), p.config); err == nil {
				_ = service.StartContainer(t.Context(), id)
			}
		}
		if err != nil {
			t.Errorf("call %d for pod %s: %v", i%6, p.id, err)
		}
	})
}

// together calls a function n times at once, and waits for all.
func together(n int, call func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { call(i) })
	}
	all.Wait()
}
