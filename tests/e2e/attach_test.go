package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"k8s.io/client-go/tools/remotecommand"
)

func withStdin(once, tty bool) func(*cri.ContainerConfig) {
	return func(config *cri.ContainerConfig) { config.Stdin, config.StdinOnce, config.Tty = true, once, tty }
}

// attach joins a container's process.
func (c *container) attach(transport string, options remotecommand.StreamOptions) *session {
	c.t.Helper()
	response, err := c.Runtime.Attach(c.t.Context(), &cri.AttachRequest{
		ContainerId: c.id, Tty: options.Tty,
		Stdin: options.Stdin != nil, Stdout: options.Stdout != nil, Stderr: options.Stderr != nil,
	})
	must(c.t, err)
	return stream(c.t, transport, response.Url, options)
}

func TestThreeClientsAreAttachedAtOnceAndTheLogIsWhole(t *testing.T) {
	p := onNode(t).runPod()
	c := p.shell("main", `while read line; do echo "heard $line"; echo "aside $line" >&2; done; echo over`, withStdin(false, false))
	var first, second, aside shown
	keys, typed := io.Pipe()
	writer := c.attach("spdy", remotecommand.StreamOptions{Stdin: keys, Stdout: &first, Stderr: &aside})
	leaver := c.attach("websocket", remotecommand.StreamOptions{Stdout: &second})
	other, otherTyped := io.Pipe()
	var third shown
	stayer := c.attach("websocket", remotecommand.StreamOptions{Stdin: other, Stdout: &third})

	c.until("all to hear", func() error {
		_, _ = io.WriteString(typed, "one\n")
		for _, screen := range []*shown{&first, &second, &third} {
			if !strings.Contains(screen.String(), "heard one") {
				return errors.New(screen.String())
			}
		}
		return nil
	})
	c.shows(&aside, "aside one")
	leaver.end()
	typed.Close()
	// Neither a client's going nor the end of his input ends the process.
	_, _ = io.WriteString(otherTyped, "two\n")
	c.shows(&first, "heard two")
	c.shows(&third, "heard two")
	equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	must(t, c.Runtime.StopContainer(t.Context(), c.id, 0))
	must(t, writer.wait(t))
	must(t, stayer.wait(t))
	stdout, stderr := c.log()
	equal(t, "the log against a client's screen", stdout, first.String())
	equal(t, "the same of stderr", stderr, aside.String())
}

func TestStdinOnceEndsWithItsFirstClient(t *testing.T) {
	p := onNode(t).runPod()
	for _, transport := range []string{"spdy", "websocket"} {
		c := p.shell(strings.ReplaceAll(transport, " ", "-"), "wc -c", withStdin(true, false))
		var out bytes.Buffer
		session := c.attach(transport, remotecommand.StreamOptions{Stdin: strings.NewReader("12345"), Stdout: &out})
		must(t, session.wait(t))
		equal(t, transport+": shown", strings.TrimSpace(out.String()), "5")
		equal(t, transport+": logged", strings.TrimSpace(c.succeeds()), "5")
	}
}

func TestAttachToATerminalTypesAndResizes(t *testing.T) {
	p := onNode(t).runPod()
	c := p.shell("main", "while read line; do eval $line; done", withStdin(false, true))
	read, write := io.Pipe()
	tty := &terminal{sizes: make(chan remotecommand.TerminalSize, 1), keys: write, shown: &shown{}}
	session := c.attach("spdy", remotecommand.StreamOptions{Stdin: read, Stdout: tty.shown, Tty: true, TerminalSizeQueue: tty})
	tty.sizes <- remotecommand.TerminalSize{Width: 91, Height: 41}
	c.until("the size", func() error {
		tty.types("stty size\n")
		if got := tty.shown.String(); !strings.Contains(got, "41 91") {
			return errors.New(got)
		}
		return nil
	})
	tty.types("exit 3\n")
	must(t, session.wait(t))
	close(tty.sizes)
	equal(t, "exit code", c.exited().ExitCode, 3)
}

func TestAttachManyTimesLeavesNothing(t *testing.T) {
	p := onNode(t).runPod()
	c := p.shell("main", "cat", withStdin(false, false))
	deaf := p.shell("deaf", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done", withStdin(false, false))
	before := p.shimDescriptors()
	much := make([]byte, 1<<20)
	for range 10 {
		// More than the process will read.
		deaf.attach("spdy", remotecommand.StreamOptions{Stdin: bytes.NewReader(much), Stdout: io.Discard}).end()
		c.attach("spdy", remotecommand.StreamOptions{Stdout: io.Discard}).end()
		c.attach("websocket", remotecommand.StreamOptions{Stdin: blocked(t), Stdout: io.Discard}).end()
		c.attach("spdy", remotecommand.StreamOptions{Stdin: strings.NewReader("word"), Stdout: io.Discard}).end()
	}
	c.until("the shim to close what the clients left", func() error {
		if now := p.shimDescriptors(); now > before+2 {
			return fmt.Errorf("%d descriptors, %d before", now, before)
		}
		return nil
	})
}

// shimDescriptors counts what the pod's shim has open.
func (p *pod) shimDescriptors() int {
	p.t.Helper()
	shims := p.PodProcesses(p.id, "a3s-box-shim")
	equal(p.t, "shims", len(shims), 1)
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", shims[0].PID))
	must(p.t, err)
	return len(entries)
}

// dam is a screen on which little or nothing is shown before it is opened.
type dam struct {
	open chan struct{}
	// How long 32 KiB take meanwhile; 0: forever.
	pause time.Duration
	shown
}

func (d *dam) Write(b []byte) (int, error) {
	var pause <-chan time.Time
	if d.pause > 0 {
		pause = time.After(d.pause * time.Duration(len(b)) / (32 << 10))
	}
	select {
	case <-d.open:
	case <-pause:
	}
	return d.shown.Write(b)
}

func TestSlowClientsAreCutOffAndHoldNobodyUp(t *testing.T) {
	p := onNode(t).runPod()
	// More than a client may fall behind, and what sockets and the client's own library hold besides.
	c := p.shell("main", "read line; dd if=/dev/zero bs=64k count=1024 2>/dev/null; echo done; cat", withStdin(false, false))
	open := make(chan struct{})
	// The second takes 2 MiB a second.
	slow := []*dam{{open: open}, {open: open, pause: time.Second / 64}}
	var late []*session
	for _, screen := range slow {
		late = append(late, c.attach("spdy", remotecommand.StreamOptions{Stdout: screen}))
	}
	var quick shown
	keys, typed := io.Pipe()
	early := c.attach("spdy", remotecommand.StreamOptions{Stdin: keys, Stdout: &quick})
	_, _ = io.WriteString(typed, "go\n")
	c.shows(&quick, "done\n")
	all := 1024<<16 + len("done\n")
	equal(t, "what the quick one was shown", len(quick.String()), all)
	c.until("the log to be whole", func() error {
		if stdout, _ := c.log(); len(stdout) != all {
			return fmt.Errorf("%d bytes", len(stdout))
		}
		return nil
	})
	// At its speed that would have taken the other one half a minute.
	for _, screen := range slow {
		if got := len(screen.String()); got > all/2 {
			t.Errorf("the others have all, and a slow one has %d bytes", got)
		}
	}
	close(open)
	for i, screen := range slow {
		err := late[i].wait(t)
		if err == nil {
			t.Fatal("a slow client was not told that it was cut off")
		}
		contains(t, "the error", err.Error(), "broke off")
		if strings.Contains(screen.String(), "done") {
			t.Error("a slow client has the end without what came before")
		}
	}
	_, _ = io.WriteString(typed, "onward\n")
	c.shows(&quick, "onward\n")
	early.end()
}
