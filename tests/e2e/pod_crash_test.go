package e2e

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

// What there is of a pod in the making, in the order in which it comes.
var milestones = []string{"r/pods/*", "netns/*", "r/pods/*/shim.sock", "cni-cache/a3s-box/*.json", "leases/*/[0-9]*", "r/pods/*/vsock/vsock"}

// killedWhen kills the frontend in a call, as soon as something of a pod is there, or gone, and starts it again.
func (n *node) killedWhen(pattern string, there bool, call func() error) {
	n.t.Helper()
	reached := func() bool {
		found, err := filepath.Glob(filepath.Join(filepath.Dir(n.RootDir()), pattern))
		must(n.t, err)
		return (len(found) > 0) == there
	}
	if reached() {
		n.t.Fatalf("%s is so before the call", pattern)
	}
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	for deadline := time.Now().Add(patience); !reached(); time.Sleep(time.Millisecond) {
		select {
		case err := <-ended:
			// It came with the call's end, between two looks.
			must(n.t, err)
			if !reached() {
				n.t.Fatalf("%s does not come", pattern)
			}
			n.t.Logf("%s was too late", pattern)
			return
		default:
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s does not come", pattern)
		}
	}
	must(n.t, n.Kill())
	<-ended
	must(n.t, n.Restart(n.t.Context()))
}

func (p *pod) containers() []*cri.Container {
	p.t.Helper()
	found, err := p.Runtime.ListContainers(p.t.Context(), &cri.ContainerFilter{PodSandboxId: p.id})
	must(p.t, err)
	return found
}

// Whenever the frontend is killed while it makes a pod, the next one has the pod whole, or nothing of it.
func TestFrontendKilledWhileItMakesAPod(t *testing.T) {
	n := ownNode(t, fixture.Options{})
	for _, milestone := range milestones {
		config := n.PodConfig("killed")
		service := n.Runtime
		n.killedWhen(milestone, true, func() error {
			return firstError(service.RunPodSandbox(t.Context(), config, ""))
		})
		pods, err := n.Runtime.ListPodSandbox(t.Context(), nil)
		must(t, err)
		for _, pod := range pods {
			equal(t, "pod after "+milestone, pod.State, cri.PodSandboxState_SANDBOX_READY)
			must(t, n.Runtime.RemovePodSandbox(t.Context(), pod.Id))
		}
		if err := n.Leaks(t.Context()); err != nil {
			t.Errorf("killed at %s: %v", milestone, err)
		}
	}
	// kubelet tries again with the same name.
	config := n.PodConfig("killed")
	service := n.Runtime
	n.killedWhen("r/pods/*/vsock/vsock", true, func() error {
		return firstError(service.RunPodSandbox(t.Context(), config, ""))
	})
	p := &pod{node: n, config: config}
	n.until("the name to be free", func() (err error) {
		p.id, err = n.Runtime.RunPodSandbox(t.Context(), config, "")
		return err
	})
	t.Cleanup(p.remove)

	// A container is made, or can be.
	c := &container{pod: p, config: fixture.ContainerConfig("started", images.Busybox, "sleep", "1000")}
	n.pull(images.Busybox)
	service = n.Runtime
	n.killedWhen("r/pods/*/containers/*", true, func() error {
		return firstError(service.CreateContainer(t.Context(), p.id, c.config, p.config))
	})
	if made := p.containers(); len(made) > 0 {
		equal(t, "container", made[0].State, cri.ContainerState_CONTAINER_CREATED)
		c.id = made[0].Id
	} else {
		c = p.create(c.config)
	}

	// Its shim goes on with a container that it was told to start.
	service = n.Runtime
	n.killedWhen("logs/*/started/0.log", true, func() error { return service.StartContainer(t.Context(), c.id) })
	n.until("the container to run", func() error {
		if c.status().State == cri.ContainerState_CONTAINER_RUNNING {
			return nil
		}
		return errors.Join(errors.New("it does not run"), n.Runtime.StartContainer(t.Context(), c.id))
	})
	equal(t, "exec", c.exec("echo", "alive"), "alive")

	// It ends with its own exit code, and is removed.
	service = n.Runtime
	n.killedWhen("r/pods/*/containers/*/exit.json", true, func() error { return service.StopContainer(t.Context(), c.id, 0) })
	equal(t, "exit code", c.exited().ExitCode, 137)
	service = n.Runtime
	n.killedWhen("r/pods/*/containers/*", false, func() error { return service.RemoveContainer(t.Context(), c.id) })
	must(t, n.Runtime.RemoveContainer(t.Context(), c.id))
	equal(t, "containers left", len(p.containers()), 0)

	// And so it is while a pod is removed.
	for _, milestone := range []string{"r/pods/*/shim.sock", "netns/*", "r/pods/*"} {
		if p == nil {
			p = n.runPod()
		}
		p.idle("main")
		service, removed := n.Runtime, p.id
		n.killedWhen(milestone, false, func() error { return service.RemovePodSandbox(t.Context(), removed) })
		pods, err := n.Runtime.ListPodSandbox(t.Context(), nil)
		must(t, err)
		for _, pod := range pods {
			equal(t, "pod in its removal", pod.State, cri.PodSandboxState_SANDBOX_NOTREADY)
		}
		containers, err := n.Runtime.ListContainers(t.Context(), nil)
		must(t, err)
		for _, container := range containers {
			equal(t, "container", container.State, cri.ContainerState_CONTAINER_EXITED)
		}
		must(t, n.Runtime.RemovePodSandbox(t.Context(), removed))
		if err := n.Leaks(t.Context()); err != nil {
			t.Fatal(errors.Join(errors.New("killed in the removal at "+milestone), err))
		}
		p = nil
	}
}
