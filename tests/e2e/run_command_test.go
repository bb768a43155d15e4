package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/images"
)

// byHand runs `a3s-box-cri run`.
func (n *node) byHand(arguments ...string) (stdout, stderr string, code int) {
	n.t.Helper()
	command := n.Command(n.t.Context(), "run", arguments...)
	var out, errOut bytes.Buffer
	command.Stdout, command.Stderr = &out, &errOut
	err := command.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		n.t.Fatal(err)
	}
	return out.String(), errOut.String(), command.ProcessState.ExitCode()
}

func TestRunPrintsTheOutputAndExitsWithTheContainersCode(t *testing.T) {
	n := onNode(t)
	must(t, n.Images.RemoveImage(t.Context(), &cri.ImageSpec{Image: images.User}))
	const script = "echo $GREETING $(nproc) $(cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max); grep MemTotal /proc/meminfo; echo error >&2; exit 7"
	stdout, stderr, code := n.byHand("--rm", "--env", "GREETING=hello", "--cpus", "1.5", "--memory", "256M", images.User, "--", "sh", "-c", script)
	limits, total, _ := strings.Cut(stdout, "\n")
	equal(t, "stdout", limits, "hello 2 150000 100000 268435456")
	var kb int
	must(t, firstError(fmt.Sscanf(total, "MemTotal: %d kB", &kb)))
	if kb <= 192<<10 {
		t.Errorf("MemTotal is %d kB, as without --memory", kb)
	}
	for _, line := range []string{`pulling ` + images.User + `: \d+\.\d\d s`, `booting the MicroVM: \d+\.\d\d s`, `starting the container: \d+\.\d\d s`, `error`} {
		if !regexp.MustCompile("(?m)^" + line + "$").MatchString(stderr) {
			t.Errorf("stderr lacks a line %q: %s", line, stderr)
		}
	}
	equal(t, "exit code", code, 7)
}

func TestRunSaysWhatIsWrong(t *testing.T) {
	_, stderr, code := onNode(t).byHand("--rm", "127.0.0.1:1/image:1")
	if code == 0 {
		t.Error("it succeeded")
	}
	contains(t, "stderr", stderr, "127.0.0.1:1/image:1")
}

func TestInterruptedRunCleansUp(t *testing.T) {
	n := onNode(t)
	n.pull(busybox)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		stdout, interrupt := n.interruptible("--rm", busybox, "--", "sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 3600 & wait $!; done")
		line := make([]byte, len("ready\n"))
		must(t, firstError(stdout.Read(line)))
		interrupt(signal)
	}
}

func TestRunInterruptedWhileItsPodBootsCleansUp(t *testing.T) {
	n := onNode(t)
	n.pull(busybox)
	podDirs := func() int {
		found, err := filepath.Glob(n.PodDir("*"))
		must(t, err)
		return len(found)
	}
	before := podDirs()
	_, interrupt := n.interruptible("--rm", busybox, "--", "true")
	n.until("the pod's directory", func() error {
		if podDirs() == before {
			return errors.New("there is none")
		}
		return nil
	})
	interrupt(syscall.SIGINT)
	left, err := n.Runtime.ListPodSandbox(t.Context(), nil)
	must(t, err)
	equal(t, "pods left", len(left), 0)
}

// interruptible begins `a3s-box-cri run`. The answer sends it a signal, such as Ctrl-C's, and waits for its end.
func (n *node) interruptible(arguments ...string) (stdout io.Reader, interrupt func(syscall.Signal)) {
	n.t.Helper()
	command := n.Command(n.t.Context(), "run", arguments...)
	stdout, err := command.StdoutPipe()
	must(n.t, err)
	must(n.t, command.Start())
	return stdout, func(signal syscall.Signal) {
		n.t.Helper()
		must(n.t, command.Process.Signal(signal))
		ended := make(chan error, 1)
		go func() { ended <- command.Wait() }()
		select {
		case <-ended:
		case <-time.After(patience):
			must(n.t, command.Process.Kill())
			n.t.Fatalf("it runs on after %s", signal)
		}
		equal(n.t, "exit code of an interrupted run", command.ProcessState.ExitCode(), 128+int(signal))
	}
}

func TestDefaultConfigurationIsPrintedWithItsComments(t *testing.T) {
	output, err := exec.CommandContext(t.Context(), onNode(t).Program(), "config", "default").Output()
	must(t, err)
	contains(t, "the default configuration", string(output), "# From the VMM's start to the agent's word that it is ready.", "boot_timeout_s = 30")
}
