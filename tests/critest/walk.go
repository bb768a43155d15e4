package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

// walk does by crictl what a person trying the runtime would do.
func walk(ctx context.Context, node *fixture.Node) error {
	sandbox := node.PodConfig("walk")
	podFile, err := writeJSON(node, "pod.json", sandbox)
	if err != nil {
		return err
	}
	containerFile, err := writeJSON(node, "container.json", container())
	if err != nil {
		return err
	}
	c := &crictl{ctx: ctx, config: node.Path("crictl.yaml")}
	endpoint := "unix://" + node.Socket()
	settings := fmt.Sprintf("runtime-endpoint: %s\nimage-endpoint: %s\ntimeout: %d\n", endpoint, endpoint, int(callTimeout.Seconds()))
	if err := os.WriteFile(c.config, []byte(settings), 0o644); err != nil {
		return err
	}
	c.do("info")
	c.do("pull", images.Busybox)
	c.do("images")
	events, stop := c.events()
	defer stop()
	pod := c.do("runp", podFile)
	c.do("pods")
	id := c.do("create", pod, containerFile, podFile)
	c.do("start", id)
	c.do("ps")
	c.eventually("hello from crictl", "logs", id)
	c.expect("a3s-box", "exec", "--sync", id, "uname", "-r")
	c.do("stats", id)
	c.expect("walk", "statsp", pod)
	c.expect("container_memory_working_set_bytes", "metricsp")
	c.expect("accelerator", "inspectp", pod)
	c.do("update", "--memory", "100663296", "--cpu-quota", "40000", "--cpu-period", "100000", id)
	c.expect("100663296", "inspect", id)
	c.expect("40000 100000", "exec", "--sync", id, "cat", "/sys/fs/cgroup/cpu.max")
	c.do("stop", "--timeout", "1", id)
	c.do("rm", id)
	c.do("stopp", pod)
	c.do("rmp", pod)
	if told := events(); c.err == nil && !strings.Contains(told, "CONTAINER_STARTED_EVENT") {
		c.err = fmt.Errorf("crictl events: no start in %q", told)
	}
	return c.err
}

func container() *cri.ContainerConfig {
	return fixture.ContainerConfig("main", images.Busybox, "sh", "-c", "echo hello from crictl; trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done")
}

func writeJSON(node *fixture.Node, name string, config any) (string, error) {
	text, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	path := node.Path(name)
	return path, os.WriteFile(path, text, 0o644)
}

// crictl runs one command after the other; after the first that fails it does nothing.
type crictl struct {
	ctx    context.Context
	config string
	err    error
}

// do prints a command with its output, and returns the output without surrounding space.
func (c *crictl) do(arguments ...string) string {
	if c.err != nil {
		return ""
	}
	fmt.Println("==> crictl " + strings.Join(arguments, " "))
	command := exec.CommandContext(c.ctx, "crictl", append([]string{"--config", c.config}, arguments...)...)
	command.Stderr = os.Stderr
	output, err := command.Output()
	fmt.Print(string(output))
	if err != nil {
		c.err = fmt.Errorf("crictl %s: %w", strings.Join(arguments, " "), err)
	}
	return strings.TrimSpace(string(output))
}

// events listens to what happens, and tells what it has heard when asked to.
func (c *crictl) events() (heard func() string, stop func()) {
	ctx, stop := context.WithCancel(c.ctx)
	command := exec.CommandContext(ctx, "crictl", "--config", c.config, "events")
	var output bytes.Buffer
	command.Stdout = &output
	if err := command.Start(); err != nil {
		c.err = fmt.Errorf("crictl events: %w", err)
		return func() string { return "" }, stop
	}
	return func() string {
		stop()
		_ = command.Wait()
		fmt.Print("==> crictl events\n" + output.String())
		return output.String()
	}, stop
}

// expect is do with a word that the output must have.
func (c *crictl) expect(word string, arguments ...string) {
	if output := c.do(arguments...); c.err == nil && !strings.Contains(output, word) {
		c.err = fmt.Errorf("crictl %s: the output lacks %q", strings.Join(arguments, " "), word)
	}
}

// eventually is expect for an output that comes when the container gets to it.
func (c *crictl) eventually(word string, arguments ...string) {
	if c.err != nil {
		return
	}
	c.err = fixture.Until(c.ctx, callTimeout, "crictl "+strings.Join(arguments, " "), func() error {
		c.expect(word, arguments...)
		err := c.err
		c.err = nil
		return err
	})
}
