package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
	utilexec "k8s.io/utils/exec"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

// patience bounds every wait for something that should happen soon.
const patience = 20 * time.Second

// The most of a shim's log that is quoted.
const quoted = 16 << 10

// node is a fixture.Node in one test: failures end the test, and whatever the test started is removed and looked for at its end.
type node struct {
	*fixture.Node
	t *testing.T
}

// onNode gives a test the shared node.
func onNode(t *testing.T) *node {
	t.Helper()
	return watch(t, shared)
}

// ownNode gives a test a node of its own, with the shared one's registry.
func ownNode(t *testing.T, options fixture.Options) *node {
	t.Helper()
	options.Registry = shared.Registry()
	started, err := fixture.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := started.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return watch(t, started)
}

func watch(t *testing.T, fixed *fixture.Node) *node {
	n := &node{fixed, t}
	start := fixed.LogPosition()
	t.Cleanup(func() {
		n.revive()
		if err := fixed.Leaks(context.Background()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the frontend's log:\n%s", fixed.Log(start))
		}
	})
	return n
}

// revive starts a frontend that has ended: a test that failed half-way may have left it so.
func (n *node) revive() {
	if n.FrontendPID() != 0 {
		return
	}
	if !n.t.Failed() {
		n.t.Error("the frontend has ended")
	}
	if err := n.Restart(context.Background()); err != nil {
		n.t.Error(err)
	}
}

// until waits for a condition, and fails the test if it does not come true.
func (n *node) until(what string, condition func() error) {
	n.t.Helper()
	if err := fixture.Until(n.t.Context(), patience, what, condition); err != nil {
		n.t.Fatal(err)
	}
}

// pull pulls an image unless it is there.
func (n *node) pull(reference string) string {
	n.t.Helper()
	spec := &cri.ImageSpec{Image: reference}
	found, err := n.Images.ImageStatus(n.t.Context(), spec, false)
	must(n.t, err)
	if found.Image != nil {
		return found.Image.Id
	}
	id, err := n.Images.PullImage(n.t.Context(), spec, nil, nil)
	must(n.t, err)
	return id
}

// pod is a running pod of a test.
type pod struct {
	*node
	id     string
	config *cri.PodSandboxConfig
}

// runPod runs a pod that is removed at the test's end.
func (n *node) runPod(change ...func(*cri.PodSandboxConfig)) *pod {
	n.t.Helper()
	p, err := n.tryPod("", change...)
	must(n.t, err)
	return p
}

// tryPod is runPod for a pod that may be refused.
func (n *node) tryPod(handler string, change ...func(*cri.PodSandboxConfig)) (*pod, error) {
	p := &pod{node: n, config: n.PodConfig("pod")}
	for _, change := range change {
		change(p.config)
	}
	var err error
	p.id, err = n.Runtime.RunPodSandbox(n.t.Context(), p.config, handler)
	if err != nil {
		return nil, err
	}
	n.t.Cleanup(p.remove)
	return p, nil
}

// remove is idempotent, as the calls are.
func (p *pod) remove() {
	p.t.Helper()
	if p.t.Failed() {
		if text, err := readFile(filepath.Join(p.PodDir(p.id), "shim.log")); err == nil {
			p.t.Logf("the shim's log:\n%s", text[max(0, len(text)-quoted):])
		}
	}
	if err := p.Runtime.StopPodSandbox(context.Background(), p.id); err != nil {
		p.t.Errorf("StopPodSandbox: %v", err)
	}
	if err := p.Runtime.RemovePodSandbox(context.Background(), p.id); err != nil {
		p.t.Errorf("RemovePodSandbox: %v", err)
	}
}

func (p *pod) status() *cri.PodSandboxStatus {
	p.t.Helper()
	response, err := p.Runtime.PodSandboxStatus(p.t.Context(), p.id, false)
	must(p.t, err)
	return response.Status
}

// container is a container of a test's pod; the pod's removal removes it.
type container struct {
	*pod
	id     string
	config *cri.ContainerConfig
}

// create makes a container, and pulls its image.
func (p *pod) create(config *cri.ContainerConfig) *container {
	p.t.Helper()
	p.pull(config.Image.Image)
	id, err := p.Runtime.CreateContainer(p.t.Context(), p.id, config, p.config)
	must(p.t, err)
	return &container{p, id, config}
}

// start makes and starts a container.
func (p *pod) start(config *cri.ContainerConfig) *container {
	p.t.Helper()
	c := p.create(config)
	must(p.t, p.Runtime.StartContainer(p.t.Context(), c.id))
	return c
}

// shell starts a busybox container that runs a script.
func (p *pod) shell(name, script string, change ...func(*cri.ContainerConfig)) *container {
	p.t.Helper()
	config := fixture.ContainerConfig(name, images.Busybox, "sh", "-c", script)
	for _, change := range change {
		change(config)
	}
	return p.start(config)
}

// idle starts a busybox container that waits to be told what to do, and ends when asked to.
func (p *pod) idle(name string, change ...func(*cri.ContainerConfig)) *container {
	p.t.Helper()
	return p.shell(name, "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done", change...)
}

func (c *container) status() *cri.ContainerStatus {
	c.t.Helper()
	response, err := c.Runtime.ContainerStatus(c.t.Context(), c.id, false)
	must(c.t, err)
	return response.Status
}

// exited waits until the container has exited.
func (c *container) exited() *cri.ContainerStatus {
	c.t.Helper()
	var last *cri.ContainerStatus
	c.until("the container to exit", func() error {
		if last = c.status(); last.State != cri.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("it is %s", last.State)
		}
		return nil
	})
	return last
}

// succeeds waits until the container has exited with code 0, and returns what it wrote to standard output.
func (c *container) succeeds() string {
	c.t.Helper()
	last := c.exited()
	stdout, stderr := c.log()
	if last.ExitCode != 0 {
		c.t.Fatalf("exit code %d, reason %q, message %q, stdout %q, stderr %q", last.ExitCode, last.Reason, last.Message, stdout, stderr)
	}
	return stdout
}

func (c *container) logPath() string {
	return filepath.Join(c.pod.config.LogDirectory, c.config.LogPath)
}

// log reads the container's log as kubelet does.
func (c *container) log() (stdout, stderr string) {
	c.t.Helper()
	var out, err bytes.Buffer
	must(c.t, logs.ReadLogs(c.t.Context(), c.logPath(), c.id, &logs.LogOptions{}, c.Runtime, &out, &err))
	return out.String(), err.String()
}

// says waits until the log has a word.
func (c *container) says(word string) {
	c.t.Helper()
	c.until(fmt.Sprintf("%q in the log", word), func() error {
		if stdout, _ := c.log(); !strings.Contains(stdout, word) {
			return fmt.Errorf("the log is %q", stdout)
		}
		return nil
	})
}

// exec runs a command in the container that must succeed.
func (c *container) exec(command ...string) string {
	c.t.Helper()
	stdout, stderr, code := c.tryExec(command...)
	if code != 0 {
		c.t.Fatalf("%q: exit code %d, stdout %q, stderr %q", command, code, stdout, stderr)
	}
	return strings.TrimSuffix(stdout, "\n")
}

// tryExec runs a command in the container, whatever its exit code.
func (c *container) tryExec(command ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	out, errOut, err := c.Runtime.ExecSync(c.t.Context(), c.id, command, patience)
	if exit := (utilexec.CodeExitError{}); errors.As(err, &exit) {
		return string(out), string(errOut), exit.Code
	}
	if err != nil {
		c.t.Fatalf("ExecSync %q: %v", command, err)
	}
	return string(out), string(errOut), 0
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func contains(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%s lacks %q: %s", what, word, text)
		}
	}
}

// refused checks that a call failed with a gRPC code and an error that names what a user has to know.
func refused(t *testing.T, err error, code codes.Code, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("it succeeded; %s was due, with %q", code, words)
	}
	if got := status.Code(err); got != code {
		t.Errorf("gRPC code %s, want %s: %v", got, code, err)
	}
	contains(t, "the error", err.Error(), words...)
}
