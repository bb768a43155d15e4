package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"
)

// Every subscriber hears all, and the first after a restart also hears what happened while no frontend ran.
func TestEventsReachAllWhoListen(t *testing.T) {
	n := onNode(t)
	first, second := n.listen(), n.listen()
	p := n.runPod()
	dir := n.hostDir()
	c := p.shell("main", "until [ -e /host/go ]; do usleep 10000; done; exit 5", mounted(bind(dir, "/host")))
	other := p.idle("other")
	for _, events := range []*events{first, second} {
		events.until("the start", c.id, "CREATED STARTED")
	}
	n.restart(func() {
		must(t, os.WriteFile(dir+"/go", nil, 0o644))
		n.until("the container's exit to be recorded", func() error {
			_, err := readFile(n.PodDir(p.id) + "/containers/" + c.id + "/exit.json")
			return err
		})
	})
	third := n.listen()
	third.until("the exit while no frontend ran", c.id, "STOPPED")
	equal(t, "exit code in the event", exitCode(third.of(c.id)[0], c.id), 5)

	for _, vmm := range n.PodProcesses(p.id, "qemu") {
		must(t, syscall.Kill(vmm.PID, syscall.SIGKILL))
	}
	third.until("the end of the other container with its VM", other.id, "STOPPED")
	third.until("the end of the pod", p.id, "STOPPED")
	last := third.of(p.id)[0]
	equal(t, "pod in the event", last.PodSandboxStatus.State, cri.PodSandboxState_SANDBOX_NOTREADY)
	if exitCode(last, other.id) == 0 {
		t.Errorf("the event of the pod's end has no exit of its container: %v", last)
	}
	p.remove()
	third.until("the removal of the container", c.id, "STOPPED DELETED")
	third.until("the removal of the pod", p.id, "STOPPED DELETED")
}

func exitCode(event *cri.ContainerEventResponse, id string) int32 {
	for _, status := range event.ContainersStatuses {
		if status.Id == id {
			return status.ExitCode
		}
	}
	return -1
}

// A guest that answers nothing costs nobody else anything.
func TestStuckGuestHoldsUpNobody(t *testing.T) {
	n := onNode(t)
	stuck, well := n.runPod(), n.runPod()
	c, other := stuck.idle("main"), well.idle("main")
	vmm := n.PodProcesses(stuck.id, "qemu")
	equal(t, "VMMs", len(vmm), 1)
	must(t, syscall.Kill(vmm[0].PID, syscall.SIGSTOP))
	resume := func() { must(t, syscall.Kill(vmm[0].PID, syscall.SIGCONT)) }
	defer resume()

	stuck.fromMemory(map[string]func() error{
		"ListPodSandbox":   func() error { return firstError(n.Runtime.ListPodSandbox(t.Context(), nil)) },
		"ListContainers":   func() error { return firstError(n.Runtime.ListContainers(t.Context(), nil)) },
		"PodSandboxStatus": func() error { return firstError(n.Runtime.PodSandboxStatus(t.Context(), stuck.id, true)) },
		"ContainerStatus":  func() error { return firstError(n.Runtime.ContainerStatus(t.Context(), c.id, true)) },
		"Status":           func() error { return firstError(n.Runtime.Status(t.Context(), true)) },
	})
	// The first to ask waits for it in vain, and later ones don't.
	listed := func() []string {
		t.Helper()
		pods, err := n.Runtime.ListPodSandboxStats(t.Context(), nil)
		must(t, err)
		var ids []string
		for _, pod := range pods {
			ids = append(ids, pod.Attributes.Id)
		}
		return ids
	}
	equal(t, "pods with figures", fmt.Sprint(listed()), fmt.Sprint([]string{well.id}))
	best := time.Hour
	for range 5 {
		begun := time.Now()
		equal(t, "pods with figures", fmt.Sprint(listed()), fmt.Sprint([]string{well.id}))
		_, err := n.Runtime.ListContainerStats(t.Context(), nil)
		must(t, err)
		best = min(best, time.Since(begun))
	}
	if best > time.Second {
		t.Errorf("figures take %s", best)
	}
	_, err := n.Runtime.ContainerStats(t.Context(), c.id)
	refused(t, err, codes.DeadlineExceeded)
	begun := time.Now()
	_, _, err = n.Runtime.ExecSync(t.Context(), c.id, []string{"true"}, time.Second)
	if took := time.Since(begun); !errors.Is(err, criclient.ErrCommandTimedOut) || took > 6*time.Second {
		t.Errorf("an exec with a timeout of 1 s took %s: %v", took, err)
	}
	equal(t, "exec elsewhere", other.exec("echo", "alive"), "alive")
	resume()
	n.until("the guest to be heard again", func() error {
		if ids := listed(); !slices.Contains(ids, stuck.id) {
			return fmt.Errorf("pods with figures: %v", ids)
		}
		return nil
	})
}

// fromMemory checks that calls are answered while nobody of the pod's answers: the frontend knows it itself.
func (p *pod) fromMemory(calls map[string]func() error) {
	p.t.Helper()
	p.signal("a3s-box-shim", syscall.SIGSTOP)
	defer p.signal("a3s-box-shim", syscall.SIGCONT)
	for name, call := range calls {
		if err := call(); err != nil {
			p.t.Errorf("%s: %v", name, err)
		}
	}
}

// The metrics that kubelet names have true values, and labels as their descriptors say.
func TestMetricsAreTrue(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	limits := limited(&cri.LinuxContainerResources{
		CpuPeriod: 100_000, CpuQuota: 50_000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, Unified: map[string]string{"pids.max": "77"},
	})
	c := p.shell("main", `trap 'exit 0' TERM; sleep 3600 & sleep 3600 & nc -l -p 1234 & 
		dd if=/dev/zero of=/file bs=1M count=4 2> /dev/null; sync; echo ready; wait; wait`, limits)
	c.says("ready")
	c.exec("ping", "-c", "1", n.Gateway().String())

	descriptors, err := n.Runtime.ListMetricDescriptors(t.Context())
	must(t, err)
	labels := map[string][]string{}
	for _, descriptor := range descriptors {
		labels[descriptor.Name] = descriptor.LabelKeys
	}
	all, err := n.Runtime.ListPodSandboxMetrics(t.Context())
	must(t, err)
	equal(t, "pods with metrics", len(all), 1)
	equal(t, "pod", all[0].PodSandboxId, p.id)
	equal(t, "containers with metrics", len(all[0].ContainerMetrics), 1)
	values := map[string]uint64{}
	for _, metric := range append(all[0].Metrics, all[0].ContainerMetrics[0].Metrics...) {
		keys := labels[metric.Name]
		if len(metric.LabelValues) != len(keys) {
			t.Fatalf("%s has labels %q with values %q", metric.Name, keys, metric.LabelValues)
		}
		equal(t, metric.Name+": pod", metric.LabelValues[0], p.config.Metadata.Name)
		equal(t, metric.Name+": namespace", metric.LabelValues[1], p.config.Metadata.Namespace)
		equal(t, metric.Name+": id", slices.Contains([]string{p.id, c.id}, metric.LabelValues[3]), true)
		name := metric.Name
		// Those that tell its values apart.
		if more := metric.LabelValues[5:]; len(more) > 0 {
			name += "{" + strings.Join(more, ",") + "}"
		}
		values[name] = metric.Value.GetValue()
	}
	for name, want := range map[string]uint64{
		"container_threads_max":             77,
		"container_spec_cpu_period":         100_000,
		"container_spec_cpu_quota":          50_000,
		"container_spec_cpu_shares":         512,
		"container_spec_memory_limit_bytes": 64 << 20,
		"container_oom_events_total":        0,
		"container_processes":               4,
		"container_threads":                 4,
		"container_sockets":                 1,
	} {
		if got, there := values[name]; !there || got != want {
			t.Errorf("%s is %d (there: %t), want %d", name, got, there, want)
		}
	}
	for name, least := range map[string]uint64{
		"container_cpu_cfs_periods_total":                       1,
		"container_memory_usage_bytes":                          100_000,
		"container_memory_working_set_bytes":                    100_000,
		"container_memory_max_usage_bytes":                      4 << 20,
		"container_memory_rss":                                  10_000,
		"container_memory_cache":                                1,
		"container_memory_kernel_usage":                         1,
		"container_memory_failures_total{pgfault,container}":    100,
		"container_fs_usage_bytes{/}":                           4 << 20,
		"container_fs_limit_bytes{/}":                           512 << 20,
		"container_fs_inodes_total{/}":                          1000,
		"container_fs_inodes_free{/}":                           1000,
		"container_file_descriptors":                            10,
		"container_ulimits_soft{max_open_files}":                64,
		"container_start_time_seconds":                          uint64(time.Now().Add(-10 * time.Minute).Unix()),
		"container_last_seen":                                   uint64(time.Now().Add(-time.Minute).Unix()),
		"container_network_receive_bytes_total{eth0}":           50,
		"container_network_transmit_bytes_total{eth0}":          50,
		"container_network_receive_packets_total{eth0}":         1,
		"container_network_transmit_packets_total{eth0}":        1,
		"a3s_box_pod_host_memory_bytes":                         32 << 20,
		"a3s_box_pod_host_cpu_seconds_total":                    1,
		"container_pressure_cpu_waiting_seconds_total":          0,
		"container_pressure_io_stalled_seconds_total":           0,
		"container_network_receive_packets_dropped_total{eth0}": 0,
		"container_network_transmit_errors_total{eth0}":         0,
		"container_memory_total_inactive_file_bytes":            0,
		"container_spec_memory_swap_limit_bytes":                0,
		"container_cpu_usage_seconds_total":                     0,
	} {
		if got, there := values[name]; !there || got < least {
			t.Errorf("%s is %d (there: %t), want at least %d", name, got, there, least)
		}
	}
	written := uint64(0)
	for name, value := range values {
		if strings.HasPrefix(name, "container_fs_writes_bytes_total{") {
			written += value
		}
	}
	if written < 4<<20 {
		t.Errorf("%d bytes were written to disks: %v", written, values)
	}
	stats := c.stats()
	if stats.Cpu.Psi.GetSome() == nil || stats.Memory.Psi.GetFull() == nil || stats.Io.GetPsi().GetSome() == nil {
		t.Errorf("pressure is missing: %v", stats)
	}
	if stats.Swap.GetSwapUsageBytes() == nil || stats.Swap.GetSwapAvailableBytes() == nil {
		t.Errorf("swap is missing: %v", stats)
	}
}

// The long lists come as streams too, with the same content.
func TestListsAreAlsoStreams(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	c := p.idle("main")
	connection, err := grpc.NewClient("unix://"+n.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer connection.Close()
	runtime, images := cri.NewRuntimeServiceClient(connection), cri.NewImageServiceClient(connection)
	ctx := t.Context()

	pods := receive(t, func() (grpc.ServerStreamingClient[cri.StreamPodSandboxesResponse], error) {
		return runtime.StreamPodSandboxes(ctx, &cri.StreamPodSandboxesRequest{Filter: &cri.PodSandboxFilter{Id: p.id}})
	}, (*cri.StreamPodSandboxesResponse).GetPodSandboxes)
	sameIDs(t, "pods", pods, (*cri.PodSandbox).GetId, []string{p.id})
	containers := receive(t, func() (grpc.ServerStreamingClient[cri.StreamContainersResponse], error) {
		return runtime.StreamContainers(ctx, &cri.StreamContainersRequest{Filter: &cri.ContainerFilter{PodSandboxId: p.id}})
	}, (*cri.StreamContainersResponse).GetContainers)
	sameIDs(t, "containers", containers, (*cri.Container).GetId, []string{c.id})
	none := receive(t, func() (grpc.ServerStreamingClient[cri.StreamContainersResponse], error) {
		return runtime.StreamContainers(ctx, &cri.StreamContainersRequest{Filter: &cri.ContainerFilter{Id: strings.Repeat("0", 64)}})
	}, (*cri.StreamContainersResponse).GetContainers)
	equal(t, "containers of an unknown id", len(none), 0)
	containerStats := receive(t, func() (grpc.ServerStreamingClient[cri.StreamContainerStatsResponse], error) {
		return runtime.StreamContainerStats(ctx, &cri.StreamContainerStatsRequest{})
	}, (*cri.StreamContainerStatsResponse).GetContainerStats)
	sameIDs(t, "container stats", containerStats, func(one *cri.ContainerStats) string { return one.Attributes.Id }, []string{c.id})
	podStats := receive(t, func() (grpc.ServerStreamingClient[cri.StreamPodSandboxStatsResponse], error) {
		return runtime.StreamPodSandboxStats(ctx, &cri.StreamPodSandboxStatsRequest{})
	}, (*cri.StreamPodSandboxStatsResponse).GetPodSandboxStats)
	sameIDs(t, "pod stats", podStats, func(one *cri.PodSandboxStats) string { return one.Attributes.Id }, []string{p.id})
	metrics := receive(t, func() (grpc.ServerStreamingClient[cri.StreamPodSandboxMetricsResponse], error) {
		return runtime.StreamPodSandboxMetrics(ctx, &cri.StreamPodSandboxMetricsRequest{})
	}, (*cri.StreamPodSandboxMetricsResponse).GetPodSandboxMetrics)
	sameIDs(t, "metrics", metrics, (*cri.PodSandboxMetrics).GetPodSandboxId, []string{p.id})
	streamed := receive(t, func() (grpc.ServerStreamingClient[cri.StreamImagesResponse], error) {
		return images.StreamImages(ctx, &cri.StreamImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: busybox}}})
	}, (*cri.StreamImagesResponse).GetImages)
	equal(t, "images", len(streamed), 1)
	_, err = receiveAll(runtime.StreamPodSandboxes(ctx, &cri.StreamPodSandboxesRequest{Filter: &cri.PodSandboxFilter{State: &cri.PodSandboxStateValue{State: 9}}}))
	refused(t, err, codes.InvalidArgument, "9")
}

func receive[M, T any](t *testing.T, open func() (grpc.ServerStreamingClient[M], error), items func(*M) []*T) []*T {
	t.Helper()
	messages, err := receiveAll(open())
	must(t, err)
	var all []*T
	for _, message := range messages {
		all = append(all, items(message)...)
	}
	return all
}

func receiveAll[M any](stream grpc.ServerStreamingClient[M], err error) ([]*M, error) {
	var all []*M
	for err == nil {
		var message *M
		if message, err = stream.Recv(); err == nil {
			all = append(all, message)
		}
	}
	if errors.Is(err, io.EOF) {
		return all, nil
	}
	return nil, err
}

// resize gives a pod another limit of memory, as kubelet does.
func (n *node) resize(id string, memory int64) error {
	return firstError(n.Runtime.UpdatePodSandboxResources(n.t.Context(), &cri.UpdatePodSandboxResourcesRequest{
		PodSandboxId: id, Resources: &cri.LinuxContainerResources{MemoryLimitInBytes: memory},
	}))
}

// What crictl's inspect and inspectp show beyond the status.
func TestVerboseStatusesTellWhatRunsThePod(t *testing.T) {
	n := onNode(t)
	p := n.runPod(annotated("a3s.box/memory-mb", "224"))
	c := p.idle("main", limited(&cri.LinuxContainerResources{CpuPeriod: 100_000, CpuQuota: 50_000}))
	vmm := n.PodProcesses(p.id, "qemu")
	equal(t, "VMMs", len(vmm), 1)
	check := func(limit int64) {
		t.Helper()
		response, err := n.Runtime.PodSandboxStatus(t.Context(), p.id, true)
		must(t, err)
		equal(t, "statuses of containers", len(response.ContainersStatuses), 1)
		equal(t, "container", response.ContainersStatuses[0].Id, c.id)
		if age := time.Since(time.Unix(0, response.Timestamp)); age < 0 || age > time.Minute {
			t.Errorf("the status is %s old", age)
		}
		var pod struct {
			PID int
			VM  struct {
				PID                               int
				MemoryBytes                       uint64
				VCPUs                             int
				Accelerator, Kernel, AgentVersion string
			}
			Config struct {
				Hostname string
				Linux    struct {
					Resources struct {
						MemoryLimitInBytes int64 `json:"memory_limit_in_bytes"`
					}
				}
			}
		}
		must(t, json.Unmarshal([]byte(response.Info["info"]), &pod))
		equal(t, "the pod's pid", pod.PID, vmm[0].PID)
		equal(t, "the VMM's pid", pod.VM.PID, vmm[0].PID)
		equal(t, "memory", pod.VM.MemoryBytes, 224<<20)
		equal(t, "processors", pod.VM.VCPUs, 1)
		equal(t, "kernel", pod.VM.Kernel, c.exec("uname", "-r"))
		equal(t, "the pod's configuration", pod.Config.Hostname, p.config.Hostname)
		equal(t, "the pod's limit", pod.Config.Linux.Resources.MemoryLimitInBytes, limit)
		if pod.VM.Accelerator == "" || pod.VM.AgentVersion == "" {
			t.Errorf("the VM is %+v", pod.VM)
		}
	}
	check(0)
	response, err := n.Runtime.ContainerStatus(t.Context(), c.id, true)
	must(t, err)
	var info struct {
		SandboxID string
		PID       int
		Config    struct {
			Metadata struct{ Name string }
			Command  []string
		}
		RuntimeSpec struct {
			Process struct{ Args []string }
			Linux   struct {
				Resources struct{ CPU struct{ Quota int } }
			}
		}
	}
	must(t, json.Unmarshal([]byte(response.Info["info"]), &info))
	equal(t, "sandbox", info.SandboxID, p.id)
	equal(t, "pid", info.PID, vmm[0].PID)
	equal(t, "name in the configuration", info.Config.Metadata.Name, "main")
	equal(t, "command", fmt.Sprint(info.RuntimeSpec.Process.Args), fmt.Sprint(c.config.Command))
	equal(t, "quota", info.RuntimeSpec.Linux.Resources.CPU.Quota, 50_000)
	refused(t, n.resize(p.id, 1<<30), codes.FailedPrecondition, p.id, "cannot grow")
	must(t, n.resize(p.id, 128<<20))
	// A frontend that has just come knows it too.
	n.restart(func() {})
	check(128 << 20)

	status, err := n.Runtime.Status(t.Context(), false)
	must(t, err)
	equal(t, "handlers", len(status.RuntimeHandlers), 2)
	for _, handler := range status.RuntimeHandlers {
		equal(t, handler.Name+": recursive read-only mounts", handler.Features.RecursiveReadOnlyMounts, true)
		equal(t, handler.Name+": user namespaces", handler.Features.UserNamespaces, false)
	}
	equal(t, "mount options", status.Features.MountOptions, true)
	equal(t, "supplemental groups policy", status.Features.SupplementalGroupsPolicy, true)
}

// What Status promises of mounts is true.
func TestPromisedMountFeaturesAreThere(t *testing.T) {
	n := onNode(t)
	host := n.hostDir()
	must(t, os.Mkdir(host+"/below", 0o755))
	must(t, unix.Mount("none", host+"/below", "tmpfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(host+"/below", unix.MNT_DETACH) })
	c := n.runPod().idle("main", mounted(
		&cri.Mount{HostPath: host, ContainerPath: "/data", Readonly: true, RecursiveReadOnly: true},
		&cri.Mount{HostPath: n.hostDir(), ContainerPath: "/plain", MountOptions: []string{"noexec"}},
	))
	for _, path := range []string{"/data/file", "/data/below/file"} {
		_, stderr, code := c.tryExec("touch", path)
		equal(t, "exit code of touch "+path, code, 1)
		contains(t, "touch", stderr, "Read-only file system")
	}
	contains(t, "the mount with an option", c.exec("grep", " /plain ", "/proc/mounts"), "noexec")
}
