package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

const busybox = images.Busybox

func TestContainerGoesThroughItsStates(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	config := fixture.ContainerConfig("main", busybox, "sh", "-c", "exit 7")
	config.Labels = map[string]string{"part": "main"}
	config.Annotations = map[string]string{"example.com/note": "kept"}
	c := p.create(config)
	created := c.status()
	equal(t, "state", created.State, cri.ContainerState_CONTAINER_CREATED)
	equal(t, "label", created.Labels["part"], "main")
	equal(t, "annotation", created.Annotations["example.com/note"], "kept")
	equal(t, "log path", created.LogPath, c.logPath())
	equal(t, "image", created.Image.Image, busybox)
	must(t, n.Runtime.StartContainer(t.Context(), c.id))
	exited := c.exited()
	equal(t, "exit code", exited.ExitCode, 7)
	equal(t, "reason", exited.Reason, "Error")
	now := time.Now().UnixNano()
	if !(0 < exited.CreatedAt && exited.CreatedAt <= exited.StartedAt && exited.StartedAt <= exited.FinishedAt && exited.FinishedAt <= now) {
		t.Errorf("created %d, started %d, finished %d, now %d", exited.CreatedAt, exited.StartedAt, exited.FinishedAt, now)
	}
	must(t, n.Runtime.RemoveContainer(t.Context(), c.id))
	_, err := n.Runtime.ContainerStatus(t.Context(), c.id, false)
	refused(t, err, codes.NotFound, c.id)
}

func TestSuccessIsCompleted(t *testing.T) {
	status := onNode(t).runPod().shell("main", "exit 0").exited()
	equal(t, "exit code", status.ExitCode, 0)
	equal(t, "reason", status.Reason, "Completed")
}

func TestDeathBySignalIs128PlusItsNumber(t *testing.T) {
	status := onNode(t).runPod().shell("main", "sh -c 'kill -9 $$'; exit $?").exited()
	equal(t, "exit code", status.ExitCode, 137)
}

func TestImageSaysWhatRunsUnlessTheConfigDoes(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	image := fixture.ContainerConfig("image", images.Defaults)
	equal(t, "all from the image", p.start(image).succeeds(), "image-argument  from-image /www\n")

	arguments := fixture.ContainerConfig("arguments", images.Defaults)
	arguments.Args = []string{"one", "two"}
	arguments.Envs = []*cri.KeyValue{{Key: "GREETING", Value: []byte("from-config")}}
	arguments.WorkingDir = "/tmp"
	equal(t, "arguments of the config", p.start(arguments).succeeds(), "one two from-config /tmp\n")

	command := fixture.ContainerConfig("command", images.Defaults, "echo")
	equal(t, "a command without the image's arguments", p.start(command).succeeds(), "\n")
}

func TestWorkingDirectoryIsMade(t *testing.T) {
	n := onNode(t)
	p, host := n.runPod(), n.hostDir()
	for name, directory := range map[string]string{"image": "/made/for/it", "volume": "/volume/made/for/it"} {
		c := p.shell(name, "pwd", mounted(bind(host, "/volume")), func(config *cri.ContainerConfig) { config.WorkingDir = directory })
		equal(t, "working directory", c.succeeds(), directory+"\n")
	}
	_, err := os.Stat(filepath.Join(host, "made/for/it"))
	must(t, err)
}

func TestContainerStartsAgainUnderAnotherAttempt(t *testing.T) {
	p := onNode(t).runPod()
	p.shell("main", "echo first > /note").succeeds()
	again := p.shell("main", "ls /note", func(config *cri.ContainerConfig) {
		config.Metadata.Attempt = 1
		config.LogPath = "main/1.log"
	})
	equal(t, "exit code of looking for the first attempt's file", again.exited().ExitCode, 1)
}

func TestStopSendsTermAndWaitsForItsHandler(t *testing.T) {
	n := onNode(t)
	c := n.runPod().shell("main", "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 3600 & wait $!; done")
	c.says("ready")
	must(t, n.Runtime.StopContainer(t.Context(), c.id, 20))
	equal(t, "exit code", c.status().ExitCode, 3)
	stdout, _ := c.log()
	equal(t, "log", stdout, "ready\ncaught\n")
}

func TestStopKillsAfterTheGracePeriod(t *testing.T) {
	n := onNode(t)
	c := n.runPod().shell("main", "trap '' TERM; echo ready; while :; do sleep 1; done")
	c.says("ready")
	start := time.Now()
	must(t, n.Runtime.StopContainer(t.Context(), c.id, 1))
	if took := time.Since(start); took < time.Second || took > 5*time.Second {
		t.Errorf("stopping with a grace period of 1 s took %s", took)
	}
	equal(t, "exit code", c.status().ExitCode, 137)
}

func TestStopUsesTheStopSignal(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	script := "trap 'exit 5' INT; trap 'exit 6' USR1; echo ready; while :; do sleep 3600 & wait $!; done"
	image := p.start(fixture.ContainerConfig("image", images.Defaults, "sh", "-c", script))
	config := p.shell("config", script, func(config *cri.ContainerConfig) { config.StopSignal = cri.Signal_SIGNAL_SIGUSR1 })
	for c, want := range map[*container]int32{image: 5, config: 6} {
		c.says("ready")
		must(t, n.Runtime.StopContainer(t.Context(), c.id, 20))
		equal(t, "exit code", c.status().ExitCode, want)
	}
}

func TestRemovingARunningContainerKillsIt(t *testing.T) {
	n := onNode(t)
	c := n.runPod().idle("main")
	must(t, n.Runtime.RemoveContainer(t.Context(), c.id))
	_, err := n.Runtime.ContainerStatus(t.Context(), c.id, false)
	refused(t, err, codes.NotFound, c.id)
}

func TestRootFilesystemCanBeReadOnly(t *testing.T) {
	c := onNode(t).runPod().idle("main", func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.ReadonlyRootfs = true
	})
	_, stderr, code := c.tryExec("touch", "/file")
	equal(t, "exit code of touch", code, 1)
	contains(t, "touch", stderr, "Read-only file system")
	c.exec("touch", "/dev/shm/file")
}

func TestTerminationMessageIsThereWhenTheExitIs(t *testing.T) {
	n := onNode(t)
	message := n.hostDir() + "/message"
	mustWrite(t, message, "")
	c := n.runPod().shell("main", "echo farewell > /dev/termination-log; exit 1", func(config *cri.ContainerConfig) {
		config.Mounts = []*cri.Mount{{HostPath: message, ContainerPath: "/dev/termination-log"}}
	})
	c.exited()
	equal(t, "message", strings.TrimSpace(mustRead(t, message)), "farewell")
}
