package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

// a3s-box's shim under containerd's own CRI server, by both ways in which containerd sees a pod: as a sandbox of the shim's, and as
// a pause container. `make containerd` runs it.
func TestContainerd(t *testing.T) {
	if shared.ServedBy() != fixture.Containerd {
		t.Skip("for `make containerd`")
	}
	for sandboxer, handler := range map[string]string{"shim": "", "podsandbox": fixture.PodSandboxHandler} {
		t.Run(sandboxer, func(t *testing.T) {
			p, err := onNode(t).tryPod(handler)
			must(t, err)
			t.Run("container", func(t *testing.T) { p.in(t).runsAContainer() })
			web := p.shell("web", "head -c 8388608 /dev/zero > /www/large; httpd -p 127.0.0.1:8001 -h /www; httpd -p [::1]:8002 -h /www; echo ready; exec sleep 3600")
			web.says("ready")
			part := func(name string, see func(*container)) {
				t.Run(name, func(t *testing.T) { see(&container{p.in(t), web.id, web.config}) })
			}
			part("port-forward", (*container).isForwarded)
			part("containerd is killed", (*container).outlivesContainerd)
			part("the shim is killed", (*container).diesWithTheShim)
		})
	}
}

func (p *pod) runsAContainer() {
	t := p.t
	c := p.shell("main", "trap 'echo bye; exit 4' TERM; echo out; echo err >&2; while :; do sleep 0.1; done", limited(memory(64)))
	c.says("out")
	host, err := os.ReadFile("/proc/sys/kernel/osrelease")
	must(t, err)
	if guest := c.exec("uname", "-r"); guest == strings.TrimSpace(string(host)) {
		t.Errorf("the container's kernel is the host's, %s", guest)
	}
	equal(t, "/etc/hostname", c.exec("cat", "/etc/hostname"), p.config.Hostname)
	contains(t, "/etc/hosts", c.exec("cat", "/etc/hosts"), "localhost")
	c.exec("sh", "-c", "echo kept >/dev/shm/file")
	equal(t, "another container's /dev/shm", p.shell("other", "cat /dev/shm/file").succeeds(), "kept\n")
	contains(t, "the addresses of eth0", c.exec("ip", "addr", "show", "eth0"), p.podIP())
	stdout, stderr, code := c.tryExec("sh", "-c", "echo why >&2; exit 3")
	equal(t, "ExecSync's exit code", code, 3)
	equal(t, "ExecSync's streams", stdout+stderr, "why\n")
	stdout, stderr, code = c.streamExec("spdy", "question\n", "sh", "-c", "cat; echo aside >&2; exit 137")
	equal(t, "a streamed exec's exit code", code, 137)
	equal(t, "its stdout", stdout, "question\n")
	equal(t, "its stderr", stderr, "aside\n")

	// The kernel's two figures of memory, whose difference the working set is, are not of the same moment.
	var stats *cri.ContainerStats
	c.until("the container's figures", func() error {
		stats = c.stats()
		if stats.Cpu.UsageCoreNanoSeconds.GetValue() == 0 || stats.Memory.WorkingSetBytes.GetValue() == 0 {
			return fmt.Errorf("they are %v", stats)
		}
		return nil
	})
	equal(t, "memory below the limit", stats.Memory.AvailableBytes.GetValue()+stats.Memory.WorkingSetBytes.GetValue(), 64<<20)
	figures, err := p.Runtime.PodSandboxStats(t.Context(), p.id)
	must(t, err)
	if figures.Linux.Cpu.UsageCoreNanoSeconds.GetValue() == 0 || figures.Linux.Memory.WorkingSetBytes.GetValue() == 0 {
		t.Errorf("the pod's figures: %v", figures.Linux)
	}

	must(t, p.Runtime.StopContainer(t.Context(), c.id, 10))
	equal(t, "exit code", c.status().ExitCode, 4)
	stdout, stderr = c.log()
	equal(t, "the log of stdout", stdout, "out\nbye\n")
	equal(t, "the log of stderr", stderr, "err\n")
	must(t, p.Runtime.RemoveContainer(t.Context(), c.id))
	killed := p.shell("hungry", "tail /dev/zero", limited(memory(48))).exited()
	equal(t, "exit code above the memory limit", killed.ExitCode, 137)
	equal(t, "reason", killed.Reason, "OOMKilled")
}

// containerd dials in the pod's network namespace on the host.
func (c *container) isForwarded() {
	t := c.t
	addresses := c.forwarded("spdy", 8001, 8002)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for range 10 {
				if got, err := fetch(client, "http://"+addresses[worker%2]+"/index.html"); err != nil || got != "hello from a pod\n" {
					t.Errorf("the page: %q, %v", got, err)
					return
				}
			}
		})
	}
	group.Wait()
	large, err := fetch(client, "http://"+addresses[0]+"/large")
	must(t, err)
	equal(t, "bytes of a large file", len(large), 8<<20)

	connection, err := net.Dial("tcp", c.forwarded("spdy", 4444)[0])
	must(t, err)
	defer connection.Close()
	must(t, connection.SetDeadline(time.Now().Add(patience)))
	if count, err := connection.Read(make([]byte, 1)); count != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection to a port where nobody listens: %d bytes, %v", count, err)
	}
	_, err = fetch(client, "http://"+addresses[0]+"/index.html")
	must(t, err)
}

// outlivesContainerd kills containerd; the pod runs on, and is known to the next.
func (c *container) outlivesContainerd() {
	t := c.t
	must(t, c.Kill())
	must(t, c.Restart(t.Context()))
	equal(t, "the pod", c.pod.status().State, cri.PodSandboxState_SANDBOX_READY)
	equal(t, "the container", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	equal(t, "an exec", c.exec("echo", "well"), "well")
	next := c.shell("next", "echo hello")
	equal(t, "the log of a container that came later", next.succeeds(), "hello\n")
}

// diesWithTheShim kills the shim: its VM goes with it, and containerd says so.
func (c *container) diesWithTheShim() {
	t := c.t
	shims := c.PodProcesses(c.pod.id, "containerd-shim-a3sbox")
	equal(t, "the pod's shims", len(shims), 1)
	must(t, syscall.Kill(shims[0].PID, syscall.SIGKILL))
	c.until("the container's end to be told", func() error {
		if state := c.status().State; state != cri.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("it is %s", state)
		}
		return nil
	})
	c.until("the VM to be gone", func() error {
		if left := c.PodProcesses(c.pod.id, "qemu"); len(left) > 0 {
			return errors.New(left[0].String())
		}
		return nil
	})
	equal(t, "the pod", c.pod.status().State, cri.PodSandboxState_SANDBOX_NOTREADY)
}

// What containerd asks of the shim's program before it uses it: messages of protocol buffers hold text as it is.
func TestShimsInformationNamesRuntimeAndFeatures(t *testing.T) {
	shim := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(onNode(t).Program()), "a3s-box-shim"), "-info")
	var out, errOut bytes.Buffer
	shim.Stdout, shim.Stderr = &out, &errOut
	must(t, shim.Run())
	contains(t, "the information", out.String(), "io.containerd.a3sbox.v2", "containerd.io/runtime-allow-mounts", `"rro"`, `"ociVersionMax"`)
	equal(t, "what containerd would read beside it", errOut.String(), "")
}
