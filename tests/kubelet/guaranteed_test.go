package kubelet

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"a3s.box/tests/fixture"
)

//go:embed guaranteed.yaml
var guaranteed string

const runtimeClass = "../../packaging/kubernetes/runtimeclass.yaml"

// checkGuaranteed runs a pod whose limits kubelet sums and sets on the host too, with the overhead that the RuntimeClass states,
// and which has a processor of the host for itself. The other pod has to leave that one.
func (k *kubelet) checkGuaranteed(t *testing.T, node *fixture.Node) {
	class, err := os.ReadFile(runtimeClass)
	must(t, err)
	overhead := regexp.MustCompile(`memory: (\d+Mi)`).FindSubmatch(class)
	if overhead == nil {
		t.Fatalf("%s states no memory", runtimeClass)
	}
	k.add(t, "guaranteed", guaranteed, "OVERHEAD", string(overhead[1]))
	pod := k.until(t, "guaranteed", "the pod that holds what it may to be ready", ready)

	var megabytes int64
	_, err = fmt.Sscanf(string(overhead[1]), "%dMi", &megabytes)
	must(t, err)
	parent := filepath.Join(node.CgroupParent(), "kubepods", "pod"+string(pod.UID))
	limits := append(fixture.CgroupValues(parent, "memory.limit_in_bytes"), fixture.CgroupValues(parent, "memory.max")...)
	if want := fmt.Sprint((80 + megabytes) << 20); strings.Join(limits, " ") != want {
		t.Errorf("kubelet limits the pod's memory on the host to %s, not to %s", limits, want)
	}

	own := processors(t, node, pod)
	if strings.ContainsAny(own, ",-") || own == "0" {
		t.Errorf("the pod's VM runs on processors %q", own)
	}
	must(t, fixture.Until(t.Context(), patience, "the other pod to leave the processor", func() error {
		other := processors(t, node, k.until(t, "static", "the other pod", ready))
		if !strings.HasPrefix(other, "0") || strings.HasSuffix(other, own) {
			return errors.New("it runs on " + other)
		}
		return nil
	}))
	if restarts := container(pod, "main").RestartCount; restarts != 0 {
		t.Errorf("%d restarts", restarts)
	}
	k.remove(t, "guaranteed")
	k.ends(t, node, pod)
}

// processors are those that the pod's VM may run on.
func processors(t *testing.T, node *fixture.Node, pod *corev1.Pod) string {
	t.Helper()
	sandboxes, err := sandboxesOf(t, node, pod)
	must(t, err)
	for _, sandbox := range sandboxes {
		for _, process := range node.PodProcesses(sandbox.Id, "qemu") {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process.PID))
			must(t, err)
			_, rest, _ := strings.Cut(string(status), "Cpus_allowed_list:\t")
			list, _, _ := strings.Cut(rest, "\n")
			return list
		}
	}
	t.Fatalf("pod %s has no VM", pod.Name)
	return ""
}
