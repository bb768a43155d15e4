package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"
	utilexec "k8s.io/utils/exec"
)

func TestExecSyncReturnsBothStreamsAndTheExitCode(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	stdout, stderr, code := c.tryExec("sh", "-c", "echo out; echo err >&2; exit 42")
	equal(t, "stdout", stdout, "out\n")
	equal(t, "stderr", stderr, "err\n")
	equal(t, "exit code", code, 42)
}

func TestExecSyncHasTheContainersEnvironmentUserAndDirectory(t *testing.T) {
	c := onNode(t).runPod().idle("main", func(config *cri.ContainerConfig) {
		config.Envs = []*cri.KeyValue{{Key: "GREETING", Value: []byte("hello")}}
		config.WorkingDir = "/www"
		config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 33}
		config.Linux.SecurityContext.RunAsGroup = &cri.Int64Value{Value: 100}
	})
	equal(t, "seen by exec", c.exec("sh", "-c", "echo $GREETING $(pwd) $(id -u):$(id -g)"), "hello /www 33:100")
}

func TestExecSyncEndsAtItsTimeout(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	start := time.Now()
	_, _, err := c.Runtime.ExecSync(t.Context(), c.id, []string{"sleep", "4321"}, time.Second)
	if !errors.Is(err, criclient.ErrCommandTimedOut) {
		t.Fatalf("error: %v", err)
	}
	if took := time.Since(start); took < time.Second || took > 4*time.Second {
		t.Errorf("a timeout of 1 s took %s", took)
	}
	c.until("the command to be gone", func() error {
		if processes := c.exec("ps"); strings.Contains(processes, "4321") {
			return errors.New(processes)
		}
		return nil
	})
}

func TestExecSyncKeepsWhatKubeletCanTake(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	script := "dd if=/dev/zero bs=1M count=20 2>/dev/null; exit 3"
	stdout, _, err := c.Runtime.ExecSync(t.Context(), c.id, []string{"sh", "-c", script}, 3*patience)
	if exit := (utilexec.CodeExitError{}); !errors.As(err, &exit) || exit.Code != 3 {
		t.Errorf("error: %v", err)
	}
	if len(stdout) < 1<<20 || len(stdout) >= 16<<20 {
		t.Errorf("%d bytes of 20 MiB came; kubelet takes less than 16 MiB", len(stdout))
	}
}

func TestExecSyncReturnsThoughAChildKeepsItsOutput(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	start := time.Now()
	equal(t, "stdout", c.exec("sh", "-c", "sleep 4321 & echo started"), "started")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestExecSyncOfAnAbsentProgramSaysSo(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	_, _, err := c.Runtime.ExecSync(t.Context(), c.id, []string{"no-such-program"}, patience)
	refused(t, err, codes.FailedPrecondition, "no-such-program")
}

func TestExecSyncNeedsARunningContainer(t *testing.T) {
	c := onNode(t).runPod().shell("main", "exit 0")
	c.exited()
	_, _, err := c.Runtime.ExecSync(t.Context(), c.id, []string{"true"}, patience)
	refused(t, err, codes.FailedPrecondition, c.id)
}

func TestExecSyncsRunSideBySide(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	c.exec("mkfifo", "/tmp/fifo")
	type answer struct {
		stdout []byte
		err    error
	}
	read := make(chan answer, 1)
	go func() {
		stdout, _, err := c.Runtime.ExecSync(t.Context(), c.id, []string{"cat", "/tmp/fifo"}, patience)
		read <- answer{stdout, err}
	}()
	c.exec("sh", "-c", "echo hello > /tmp/fifo")
	got := <-read
	must(t, got.err)
	equal(t, "what one exec read from the other", string(got.stdout), "hello\n")
}
