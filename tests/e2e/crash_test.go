package e2e

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
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
	p.dies()
	status := c.exited()
	if status.ExitCode == 0 || status.Reason == "" || status.Reason == "Completed" {
		t.Errorf("exit code %d, reason %q, message %q", status.ExitCode, status.Reason, status.Message)
	}
	n.until("the pod's other processes to end", func() error {
		left, shims := n.PodProcesses(p.id, ""), n.PodProcesses(p.id, "a3s-box-shim")
		if len(left) != len(shims) || len(shims) > 1 || len(shims) == 1 && process == "a3s-box-shim" {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
	// The shim stays to tell what happened, and no longer.
	must(t, n.Runtime.StopPodSandbox(t.Context(), p.id))
	n.until("the shim to end", func() error {
		if left := n.PodProcesses(p.id, ""); len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
}

// dies waits until the pod is not ready.
func (p *pod) dies() {
	p.t.Helper()
	p.until("the pod to be not ready", func() error {
		if state := p.status().State; state != cri.PodSandboxState_SANDBOX_NOTREADY {
			return errors.New(state.String())
		}
		return nil
	})
}

func TestPodDiesWithItsVM(t *testing.T)           { podDiesWith(t, "qemu") }
func TestPodDiesWithItsFileServer(t *testing.T)   { podDiesWith(t, "virtiofsd") }
func TestPodDiesWithItsVsockBackend(t *testing.T) { podDiesWith(t, "vhost-device-vsock") }
func TestPodDiesWithItsShim(t *testing.T)         { podDiesWith(t, "a3s-box-shim") }

func (p *pod) signal(process string, signal syscall.Signal) {
	p.t.Helper()
	found := p.PodProcesses(p.id, process)
	equal(p.t, "processes "+process, len(found), 1)
	must(p.t, syscall.Kill(found[0].PID, signal))
}

func TestGuestThatHangsIsGivenUp(t *testing.T) {
	// It takes twice as long at most.
	n := ownNode(t, fixture.Options{Config: fixture.Config{"vm.unresponsive_timeout_s": 6}})
	p := n.runPod()
	c := p.idle("main")
	p.signal("qemu", syscall.SIGSTOP)
	status := c.exited()
	contains(t, "the container's message", status.Message, "unresponsive_timeout_s")
	if status.ExitCode == 0 {
		t.Error("exit code 0")
	}
	equal(t, "pod", p.status().State, cri.PodSandboxState_SANDBOX_NOTREADY)
}

func TestGuestThatPanicsIsQuoted(t *testing.T) {
	n := onNode(t)
	p := n.runPod(privilegedPod)
	c := p.idle("main", privileged)
	_, _, err := n.Runtime.ExecSync(t.Context(), c.id, []string{"sh", "-c", "echo c > /proc/sysrq-trigger"}, patience)
	if err == nil {
		t.Error("an exec outlived its kernel")
	}
	contains(t, "the container's message", c.exited().Message, "Kernel panic", "sysrq triggered crash")
	p.dies()
}

func TestShimThatHangsHoldsUpItsOwnPodOnly(t *testing.T) {
	n := onNode(t)
	hung, well := n.runPod(), n.runPod()
	c, other := hung.idle("main"), well.idle("main")
	hung.signal("a3s-box-shim", syscall.SIGSTOP)
	resume := sync.OnceFunc(func() { hung.signal("a3s-box-shim", syscall.SIGCONT) })
	t.Cleanup(resume)
	n.restart(func() {})
	equal(t, "hung pod", hung.status().State, cri.PodSandboxState_SANDBOX_READY)
	equal(t, "exec elsewhere", other.exec("echo", "alive"), "alive")
	_, _, err := n.Runtime.ExecSync(t.Context(), c.id, []string{"true"}, time.Second)
	refused(t, err, codes.Unavailable)
	resume()
	n.until("the pod to be found again", func() error {
		_, _, err := n.Runtime.ExecSync(t.Context(), c.id, []string{"true"}, patience)
		return err
	})
}

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

// What kubelet's podPidsLimit allows a pod on the host, or the node itself has left, may be used up.
func TestPodThatGetsNoMoreThreadsLives(t *testing.T) {
	p := onNode(t).runPod()
	c := p.idle("main")
	cgroup := fixture.PodCgroup(p.CgroupParent(), p.id)
	// It has more of them already.
	must(t, fixture.SetCgroupValue(cgroup, "pids.max", "1"))
	_, _, err := p.Runtime.ExecSync(t.Context(), c.id, []string{"true"}, patience)
	refused(t, err, codes.ResourceExhausted, c.id, "no thread", "Resource temporarily unavailable")
	if _, err := p.Runtime.PodSandboxStats(t.Context(), p.id); err != nil {
		t.Errorf("stats: %v", err)
	}
	must(t, fixture.SetCgroupValue(cgroup, "pids.max", "max"))
	equal(t, "exec", c.exec("echo", "alive"), "alive")
	equal(t, "pod", p.status().State, cri.PodSandboxState_SANDBOX_READY)
}
