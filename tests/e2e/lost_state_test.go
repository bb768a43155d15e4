package e2e

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

// What the frontend has written down is damaged, and later all that lives ends with the host.
func TestStateThatIsLost(t *testing.T) {
	n := ownNode(t, fixture.Options{})
	p := n.runPod()
	c := p.idle("main")
	address := p.podIP()
	n.restart(func() {
		mustWrite(t, filepath.Join(n.RootDir(), "state.redb"), "no database")
	})
	equal(t, "pod", p.status().State, cri.PodSandboxState_SANDBOX_READY)
	equal(t, "pod IP", p.podIP(), address)
	equal(t, "annotation", p.status().Annotations["example.com/note"], "kept")
	equal(t, "container", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	equal(t, "exec", c.exec("echo", "alive"), "alive")

	// A reboot leaves the disk: no process, no cgroup, nothing below /run, no network namespace.
	n.restart(func() {
		for _, process := range n.PodProcesses(p.id, "") {
			must(t, syscall.Kill(process.PID, syscall.SIGKILL))
		}
		cgroup := fixture.PodCgroup(n.CgroupParent(), p.id)
		n.until("the pod's processes to end", func() error { return fixture.RemoveCgroup(cgroup) })
		must(t, os.RemoveAll(filepath.Dir(filepath.Dir(n.PodDir(p.id)))))
		namespace := filepath.Join(filepath.Dir(n.RootDir()), "netns", "a3s-"+p.id)
		must(t, unix.Unmount(namespace, unix.MNT_DETACH))
		must(t, os.Remove(namespace))
	})
	equal(t, "pod", p.status().State, cri.PodSandboxState_SANDBOX_NOTREADY)
	if status := c.status(); status.State != cri.ContainerState_CONTAINER_EXITED || status.ExitCode == 0 || status.Reason == "" {
		t.Errorf("the container is %s with exit code %d and reason %q", status.State, status.ExitCode, status.Reason)
	}
	// Of the removal, with its leases and its scratch disk, the leak check tells.
	p.remove()
	n.runPod().idle("main").exec("true")
}
