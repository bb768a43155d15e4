package e2e

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A pod that loses a process of its own is reported dead, and its removal leaves nothing.
func podDiesWith(t *testing.T, process string) {
	n := onNode(t)
	p := n.runPod()
	c := p.idle("main")
	found := n.PodProcesses(p.id, process)
	if len(found) == 0 {
		t.Fatalf("the pod has no process %q, only %v", process, n.PodProcesses(p.id, ""))
	}
	for _, one := range found {
		must(t, syscall.Kill(one.PID, syscall.SIGKILL))
	}
	n.until("the pod to be not ready", func() error {
		if state := p.status().State; state != cri.PodSandboxState_SANDBOX_NOTREADY {
			return errors.New(state.String())
		}
		return nil
	})
	status := c.exited()
	if status.ExitCode == 0 || status.Reason == "" || status.Reason == "Completed" {
		t.Errorf("exit code %d, reason %q, message %q", status.ExitCode, status.Reason, status.Message)
	}
	n.until("the pod's other processes to end", func() error {
		if left := n.PodProcesses(p.id, ""); len(left) > 0 && process == "a3s-box-shim" || len(left) > 1 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
}

func TestPodDiesWithItsVM(t *testing.T)           { podDiesWith(t, "qemu") }
func TestPodDiesWithItsFileServer(t *testing.T)   { podDiesWith(t, "virtiofsd") }
func TestPodDiesWithItsVsockBackend(t *testing.T) { podDiesWith(t, "vhost-device-vsock") }
func TestPodDiesWithItsShim(t *testing.T)         { podDiesWith(t, "a3s-box-shim") }

func TestShimKilledWhileTheFrontendIsDownIsNoticed(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	c := p.idle("main")
	n.restart(func() {
		for _, shim := range n.PodProcesses(p.id, "a3s-box-shim") {
			must(t, syscall.Kill(shim.PID, syscall.SIGKILL))
		}
	})
	equal(t, "pod", p.status().State, cri.PodSandboxState_SANDBOX_NOTREADY)
	if status := c.status(); status.State != cri.ContainerState_CONTAINER_EXITED || status.ExitCode == 0 {
		t.Errorf("the container is %s with exit code %d", status.State, status.ExitCode)
	}
}
