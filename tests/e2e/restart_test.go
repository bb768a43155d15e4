package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

// restart kills the frontend, lets something happen while it is down, and starts it again.
func (n *node) restart(meanwhile func()) {
	n.t.Helper()
	must(n.t, n.Kill())
	n.t.Cleanup(n.revive)
	meanwhile()
	must(n.t, n.Restart(n.t.Context()))
}

func TestPodSurvivesFrontendKill(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	c := p.shell("main", "trap 'exit 9' TERM; i=0; while :; do echo line $i; i=$((i+1)); usleep 10000; done")
	c.says("line 3")
	address := p.podIP()
	sockets := func() []os.DirEntry {
		found, err := os.ReadDir(filepath.Join(n.PodDir(p.id), "x"))
		must(t, err)
		return found
	}
	service := n.Runtime
	go func() { _, _, _ = service.ExecSync(t.Context(), c.id, []string{"sleep", "60"}, time.Minute) }()
	c.terminal("spdy", "sleep", "61")
	execs := func(run bool) func() error {
		return func() error { return errors.Join(c.runs("sleep 60", run), c.runs("sleep 61", run)) }
	}
	n.until("execs to be under way", execs(true))
	n.restart(func() {
		before := mustRead(t, c.logPath())
		n.until("the log to go on without a frontend", func() error {
			if grown := len(mustRead(t, c.logPath())) - len(before); grown < 1000 {
				return fmt.Errorf("it has grown by %d bytes", grown)
			}
			return nil
		})
	})
	equal(t, "pod", p.status().State, cri.PodSandboxState_SANDBOX_READY)
	equal(t, "pod IP", p.podIP(), address)
	equal(t, "container", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	equal(t, "sockets that nobody waits at", len(sockets()), 0)
	equal(t, "exec", c.exec("echo", "alive"), "alive")
	n.until("the execs to be gone, whose clients went with the frontend", execs(false))
	must(t, n.Runtime.StopContainer(t.Context(), c.id, 20))
	equal(t, "exit code", c.status().ExitCode, 9)
	stdout, _ := c.log()
	next := 0
	for line := range strings.Lines(stdout) {
		if line != fmt.Sprintf("line %d\n", next) {
			t.Fatalf("line %d of the log is %q", next, line)
		}
		next++
	}
}

func TestExitDuringFrontendsAbsenceIsReported(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	dir := n.hostDir()
	c := p.shell("main", "until [ -e /host/go ]; do usleep 10000; done; echo bye; exit 5", mounted(bind(dir, "/host")))
	n.restart(func() {
		must(t, os.WriteFile(dir+"/go", nil, 0o644))
		n.until("the container's last word", func() error {
			if text := mustRead(t, c.logPath()); !strings.Contains(text, "bye") {
				return fmt.Errorf("the log is %q", text)
			}
			return nil
		})
	})
	status := c.exited()
	equal(t, "exit code", status.ExitCode, 5)
	equal(t, "reason", status.Reason, "Error")
}

func TestRecordsSurviveFrontendKill(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	created := p.create(fixture.ContainerConfig("created", busybox, "echo", "started after the restart"))
	ended := p.shell("ended", "exit 3")
	ended.exited()
	stopped := n.runPod()
	must(t, n.Runtime.StopPodSandbox(t.Context(), stopped.id))
	removed := n.runPod()
	removed.remove()
	image, err := n.Images.ImageStatus(t.Context(), &cri.ImageSpec{Image: busybox}, false)
	must(t, err)

	n.restart(func() {})

	after, err := n.Images.ImageStatus(t.Context(), &cri.ImageSpec{Image: busybox}, false)
	must(t, err)
	equal(t, "image", after.Image.String(), image.Image.String())
	equal(t, "annotation of the pod", p.status().Annotations["example.com/note"], "kept")
	equal(t, "created container", created.status().State, cri.ContainerState_CONTAINER_CREATED)
	equal(t, "exit code of the ended one", ended.status().ExitCode, 3)
	equal(t, "stopped pod", stopped.status().State, cri.PodSandboxState_SANDBOX_NOTREADY)
	_, err = n.Runtime.PodSandboxStatus(t.Context(), removed.id, false)
	refused(t, err, codes.NotFound)
	must(t, n.Runtime.StartContainer(t.Context(), created.id))
	equal(t, "log", created.succeeds(), "started after the restart\n")
}

func TestFrontendThatIsAskedToEndWaitsForNobody(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	c := p.idle("main")
	stubborn := p.shell("stubborn", "trap 'echo asked' TERM; echo ready; while :; do usleep 10000; done")
	stubborn.says("ready")
	calls := map[string]func() error{
		"ExecSync": func() error {
			_, _, err := n.Runtime.ExecSync(t.Context(), c.id, []string{"sh", "-c", "echo ready > /dev/shm/exec; sleep 60"}, time.Minute)
			return err
		},
		"StopContainer": func() error { return n.Runtime.StopContainer(t.Context(), stubborn.id, 60) },
	}
	ended := make(chan error, len(calls))
	for name, call := range calls {
		go func() {
			if err := call(); !strings.Contains(fmt.Sprint(err), "the frontend ends") {
				ended <- fmt.Errorf("%s: %w", name, err)
				return
			}
			ended <- nil
		}()
	}
	n.until("the exec to be under way", func() error {
		if _, _, code := c.tryExec("test", "-e", "/dev/shm/exec"); code != 0 {
			return errors.New("it is not")
		}
		return nil
	})
	stubborn.says("asked")
	begun := time.Now()
	must(t, syscall.Kill(n.FrontendPID(), syscall.SIGTERM))
	t.Cleanup(n.revive)
	n.until("the frontend to end", func() error {
		if n.FrontendPID() != 0 {
			return errors.New("it runs")
		}
		return nil
	})
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	for range calls {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	must(t, n.Restart(t.Context()))
	equal(t, "the exec", strings.Contains(c.exec("ps"), "sleep 60"), false)
	equal(t, "what was being stopped", stubborn.status().State, cri.ContainerState_CONTAINER_RUNNING)
	must(t, n.Runtime.StopContainer(t.Context(), stubborn.id, 0))
}
