package e2e

import (
	"bytes"
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"
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
	stdout, stderr, code := onNode(t).byHand("--rm", "--env", "GREETING=hello", busybox, "--", "sh", "-c", "echo $GREETING; echo error >&2; exit 7")
	equal(t, "stdout", stdout, "hello\n")
	contains(t, "stderr", stderr, "error")
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
	command := n.Command(n.t.Context(), "run", "--rm", busybox, "--", "sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 3600 & wait $!; done")
	stdout, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	line := make([]byte, len("ready\n"))
	_, err = stdout.Read(line)
	must(t, err)
	must(t, command.Process.Signal(syscall.SIGINT))
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	select {
	case <-ended:
	case <-time.After(patience):
		must(t, command.Process.Kill())
		t.Fatal("it runs on after Ctrl-C")
	}
	if command.ProcessState.ExitCode() == 0 {
		t.Error("an interrupted run succeeded")
	}
}

func TestDefaultConfigurationIsPrintedWithItsComments(t *testing.T) {
	output, err := exec.CommandContext(t.Context(), onNode(t).Program(), "config", "default").Output()
	must(t, err)
	contains(t, "the default configuration", string(output), "# From the VMM's start to the agent's word that it is ready.", "boot_timeout_s = 30")
}
