// Package kubelet runs a static pod through a real kubelet.
package kubelet

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"a3s.box/tests/fixture"
)

const patience = 2 * time.Minute

//go:embed pod.yaml
var manifest string

func TestStaticPodLivesThroughKubelet(t *testing.T) {
	node := startNode(t)
	k := startKubelet(t, node)
	config := node.Path("config")
	must(t, os.Mkdir(config, 0o755))
	must(t, os.WriteFile(filepath.Join(config, "greeting"), []byte("a file of the host\n"), 0o644))
	k.add(t, "static", manifest, "HOST_DIR", config, "RELEASE", "first")

	pod := k.until(t, "static", "a ready pod", ready)

	t.Run("probes and volumes", func(t *testing.T) { k.checkVolumes(t, pod) })
	t.Run("logs", func(t *testing.T) { k.checkLogs(t, pod) })
	t.Run("streaming", func(t *testing.T) { k.checkStreaming(t, pod) })
	t.Run("restarts", func(t *testing.T) { checkRestarts(t, pod) })
	t.Run("statistics", func(t *testing.T) { k.checkStatistics(t) })

	t.Run("a volume that kubelet writes anew", func(t *testing.T) {
		k.add(t, "static", manifest, "HOST_DIR", config, "RELEASE", "second")
		k.checkSwap(t, pod)
	})

	t.Run("a pod within limits and overhead", func(t *testing.T) { k.checkGuaranteed(t, node) })

	k.remove(t, "static")
	k.ends(t, node, pod)
}

func startNode(t *testing.T) *fixture.Node {
	t.Helper()
	node, err := fixture.Start(t.Context(), fixture.Options{})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the frontend's log:\n%s", node.Log(0))
		}
		// By now kubelet has ended, and what it keeps on its own account is gone.
		if err := errors.Join(node.Leaks(context.Background()), node.Close(context.Background())); err != nil {
			t.Error(err)
		}
	})
	return node
}

func ready(pod *corev1.Pod) error {
	if pod.Status.Phase != corev1.PodRunning || len(pod.Status.ContainerStatuses) != len(pod.Spec.Containers) {
		return fmt.Errorf("%s", pod.Status.Phase)
	}
	for _, status := range pod.Status.ContainerStatuses {
		if !status.Ready {
			return fmt.Errorf("%s is not ready: %+v", status.Name, status.State)
		}
	}
	return nil
}

// The init container wrote the page into the emptyDir that it shares with the web server.
func (k *kubelet) checkVolumes(t *testing.T, pod *corev1.Pod) {
	page, err := get(&http.Client{Timeout: 5 * time.Second}, "http://"+net.JoinHostPort(pod.Status.PodIP, "8080")+"/")
	must(t, err)
	if page != "hello from a pod\n" {
		t.Errorf("the pod's page is %q", page)
	}
	work := filepath.Join(k.root, "pods", string(pod.UID), "volumes/kubernetes.io~empty-dir/work/index.html")
	if text, err := os.ReadFile(work); err != nil || string(text) != page {
		t.Errorf("the emptyDir on the host: %q, %v", text, err)
	}
}

// A program that watches a volume is told soon when kubelet's AtomicWriter has swapped it, and reads the new content then.
// Of the volumes that it writes, a kubelet without an API server has the downward API's only.
func (k *kubelet) checkSwap(t *testing.T, pod *corev1.Pod) {
	const soon = 2 * time.Second
	volumes := filepath.Join(k.root, "pods", string(pod.UID), "volumes")
	told := filepath.Join(volumes, "kubernetes.io~empty-dir/work/told")
	must(t, fixture.Until(t.Context(), patience, "the container to be told", func() error {
		if text, err := os.ReadFile(told); err != nil || !strings.Contains(string(text), `release="second"`) {
			return fmt.Errorf("it read %q (%v)", text, err)
		}
		return nil
	}))
	swapped, err := os.Lstat(filepath.Join(volumes, "kubernetes.io~downward-api/about/..data"))
	must(t, err)
	read, err := os.Stat(told)
	must(t, err)
	after := read.ModTime().Sub(swapped.ModTime())
	t.Logf("told after %s", after)
	if after > soon {
		t.Errorf("the container was told after %s", after)
	}
	now := k.until(t, "static", "the same pod", ready)
	if now.UID != pod.UID || container(now, "limited").RestartCount != 0 {
		t.Errorf("pod %s with %d restarts, not %s with none", now.UID, container(now, "limited").RestartCount, pod.UID)
	}
}

func (k *kubelet) checkLogs(t *testing.T, pod *corev1.Pod) {
	log := func(container, query string) string {
		text, err := get(k.client, fmt.Sprintf("%s/containerLogs/default/%s/%s?%s", k.address, pod.Name, container, query))
		must(t, err)
		return text
	}
	if text := log("prepare", ""); text != "prepared\n" {
		t.Errorf("the init container's log is %q", text)
	}
	var release string
	text := log("limited", "")
	if _, err := fmt.Sscanf(text, "hello from %s\na file of the host\n", &release); err != nil {
		t.Errorf("the log is %q: %v", text, err)
	}
	for query, want := range map[string]string{"": "run 3 of", "previous=true": "run 2 of"} {
		if text := log("unlimited", query); !strings.HasPrefix(text, want) || !strings.Contains(text, `app="static"`) {
			t.Errorf("the log of the third run (%q) is %q", query, text)
		}
	}
}

func checkRestarts(t *testing.T, pod *corev1.Pod) {
	for _, status := range pod.Status.InitContainerStatuses {
		if ended := status.State.Terminated; ended == nil || ended.ExitCode != 0 || ended.Reason != "Completed" {
			t.Errorf("the init container: %+v", status.State)
		}
	}
	crashed := container(pod, "unlimited")
	last := crashed.LastTerminationState.Terminated
	if crashed.RestartCount != 2 || last == nil || last.ExitCode != 3 || last.Reason != "Error" {
		t.Errorf("%d restarts, the last end: %+v", crashed.RestartCount, last)
	}
	// Kubelet's first back-off is 10 s, and times are whole seconds.
	const heldBack = 9 * time.Second
	if running := crashed.State.Running; last != nil && running.StartedAt.Sub(last.FinishedAt.Time) < heldBack {
		t.Errorf("ended %s, started again %s", last.FinishedAt, running.StartedAt)
	}
	if restarts := container(pod, "limited").RestartCount; restarts != 0 {
		t.Errorf("the other container was restarted %d times", restarts)
	}
}

// checkStatistics waits until the summary, which is taken every ten seconds, has what the pod is known to use.
func (k *kubelet) checkStatistics(t *testing.T) {
	const mib = 1 << 20
	must(t, fixture.Until(t.Context(), patience, "true figures", func() error {
		var summary stats.Summary
		if err := k.read("/stats/summary", &summary); err != nil {
			return err
		}
		if len(summary.Pods) != 1 || len(summary.Pods[0].Containers) != 2 {
			return fmt.Errorf("%+v", summary.Pods)
		}
		pod := summary.Pods[0]
		figures := map[string]stats.ContainerStats{}
		for _, one := range pod.Containers {
			figures[one.Name] = one
		}
		limited, unlimited := figures["limited"], figures["unlimited"]
		for _, figure := range []struct {
			what        string
			value       *uint64
			least, most uint64
		}{
			{"memory of the limited container", memory(limited.Memory), 16 * mib, 64 * mib},
			{"memory of the unlimited container", memory(unlimited.Memory), 16 << 10, 16 * mib},
			{"memory of the pod", memory(pod.Memory), 16 * mib, 192 * mib},
			{"writable layer of the limited container", used(limited.Rootfs), 8 * mib, 12 * mib},
			{"writable layer of the unlimited container", used(unlimited.Rootfs), 0, mib},
			{"processor time of the limited container", processor(limited.CPU), 1_000_000, 120_000_000_000},
			{"processor time of the pod", processor(pod.CPU), 1_000_000, 240_000_000_000},
			{"bytes received", received(pod.Network), 100, 64 * mib},
			{"processes of the pod", processes(pod.ProcessStats), 2, 200},
		} {
			if figure.value == nil || *figure.value < figure.least || *figure.value > figure.most {
				return fmt.Errorf("%s: %s, expected from %d to %d", figure.what, shown(figure.value), figure.least, figure.most)
			}
		}
		return nil
	}))
}

// ends waits until kubelet has ended the pod and given its volumes back.
func (k *kubelet) ends(t *testing.T, node *fixture.Node, pod *corev1.Pod) {
	var sandboxes []*cri.PodSandbox
	must(t, fixture.Until(t.Context(), patience, "kubelet to end the pod", func() (err error) {
		sandboxes, err = sandboxesOf(t, node, pod)
		for _, one := range sandboxes {
			if one.State == cri.PodSandboxState_SANDBOX_READY {
				return errors.New("it is ready")
			}
		}
		return err
	}))
	must(t, fixture.Until(t.Context(), patience, "kubelet to give the volumes back", func() error {
		if _, err := os.Stat(filepath.Join(k.root, "pods", string(pod.UID))); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the pod's directory is there (%v)", err)
		}
		return nil
	}))
	// What kubelet keeps of a dead pod it would collect minutes later.
	for _, one := range sandboxes {
		must(t, node.Runtime.RemovePodSandbox(t.Context(), one.Id))
	}
}

func sandboxesOf(t *testing.T, node *fixture.Node, pod *corev1.Pod) ([]*cri.PodSandbox, error) {
	return node.Runtime.ListPodSandbox(t.Context(), &cri.PodSandboxFilter{
		LabelSelector: map[string]string{"io.kubernetes.pod.uid": string(pod.UID)},
	})
}

func container(pod *corev1.Pod, name string) corev1.ContainerStatus {
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == name {
			return status
		}
	}
	return corev1.ContainerStatus{}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
