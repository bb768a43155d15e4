package e2e

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/remotecommand"
	clientexec "k8s.io/client-go/util/exec"
)

// muchDataVariable says how many MiB are sent through a stream to see that they come whole.
const muchDataVariable = "A3S_BOX_TEST_STREAM_MIB"

// muchData is that much in bytes: without the variable so much as CI has time for.
func muchData(t *testing.T) int {
	t.Helper()
	mib, err := strconv.Atoi(cmp.Or(os.Getenv(muchDataVariable), "32"))
	must(t, err)
	return mib << 20
}

func TestExecCarriesStreamsApartAndTheExitCode(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	for transport := range transports {
		if transport == "websocket v4" {
			// It has no way to say that stdin has ended.
			continue
		}
		for _, code := range []int{0, 1, 137, 255} {
			stdout, stderr, got := c.streamExec(transport, "question\n", "sh", "-c", fmt.Sprintf("cat; echo aside >&2; exit %d", code))
			equal(t, transport+": exit code", got, code)
			equal(t, transport+": stdout", stdout, "question\n")
			equal(t, transport+": stderr", stderr, "aside\n")
		}
	}
	_, _, code := c.streamExec("spdy", "", "sh", "-c", "kill -9 $$")
	equal(t, "exit code of a killed process", code, 137)
	var out bytes.Buffer
	options := remotecommand.StreamOptions{Stdout: &out}
	must(t, stream(t, "websocket v4", c.execURL(options, "echo", "old client"), options).wait(t))
	equal(t, "stdout over v4", out.String(), "old client\n")
	// Nobody reads its errors, which are more than any pipe holds.
	text, err := c.streamError("spdy", "sh", "-c", "dd if=/dev/zero bs=64k count=64 >&2 2>/dev/null && echo written")
	must(t, err)
	equal(t, "stdout beside unwanted errors", text, "written\n")
	_, err = c.streamError("spdy", "absent-program")
	contains(t, "an absent program", fmt.Sprint(err), "absent-program")
	c.speaksOldProtocols()
}

// streamError runs a command whose error is what matters.
func (c *container) streamError(transport string, command ...string) (string, error) {
	var out bytes.Buffer
	options := remotecommand.StreamOptions{Stdout: &out}
	err := stream(c.t, transport, c.execURL(options, command...), options).wait(c.t)
	return out.String(), err
}

func TestExecOnATerminalTypesResizesAndInterrupts(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	for _, transport := range []string{"spdy", "websocket"} {
		tty, session := c.terminal(transport, "sh")
		tty.sizes <- remotecommand.TerminalSize{Width: 101, Height: 31}
		tty.types("stty size\n")
		c.shows(tty.shown, "31 101")
		tty.sizes <- remotecommand.TerminalSize{Width: 77, Height: 22}
		c.until("the new size", func() error {
			tty.types("stty size\n")
			if got := tty.shown.String(); !strings.Contains(got, "22 77") {
				return errors.New(got)
			}
			return nil
		})
		tty.types("sleep 3333; echo interrupted: $?\n")
		c.until("the sleep to run", func() error { return c.runs("sleep 3333", true) })
		tty.types("\x03")
		tty.types("echo on$((1+1))ward\n")
		c.shows(tty.shown, "on2ward")
		tty.types("exit 7\n")
		var exit clientexec.CodeExitError
		if err := session.wait(t); !errors.As(err, &exit) || exit.Code != 7 {
			t.Errorf("%s: the shell's end: %v", transport, err)
		}
	}
}

// terminal runs a command on a terminal.
func (c *container) terminal(transport string, command ...string) (*terminal, *session) {
	c.t.Helper()
	read, write := io.Pipe()
	tty := &terminal{sizes: make(chan remotecommand.TerminalSize, 4), keys: write, shown: &shown{}}
	options := remotecommand.StreamOptions{Stdin: read, Stdout: tty.shown, Tty: true, TerminalSizeQueue: tty}
	session := stream(c.t, transport, c.execURL(options, command...), options)
	c.t.Cleanup(func() {
		close(tty.sizes)
		write.Close()
	})
	return tty, session
}

func (t *terminal) types(text string) { _, _ = io.WriteString(t.keys, text) }

// runs looks for a command line among the container's processes.
func (c *container) runs(command string, want bool) error {
	if processes := c.exec("ps"); strings.Contains(processes, command) != want {
		return errors.New(processes)
	}
	return nil
}

func TestExecLosesAndReordersNoByte(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	data := make([]byte, muchData(t))
	rand.New(rand.NewSource(1)).Read(data)
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	for _, transport := range []string{"spdy", "websocket"} {
		var out bytes.Buffer
		options := remotecommand.StreamOptions{Stdin: bytes.NewReader(data), Stdout: &out}
		session := stream(t, transport, c.execURL(options, "sh", "-c", "tee /data | sha256sum"), options)
		must(t, <-session.result)
		contains(t, transport+": the sum of what arrived", out.String(), sum)

		back := sha256.New()
		options = remotecommand.StreamOptions{Stdout: back}
		session = stream(t, transport, c.execURL(options, "cat", "/data"), options)
		must(t, <-session.result)
		equal(t, transport+": the sum of what came back", fmt.Sprintf("%x", back.Sum(nil)), sum)
	}
}

func TestFiftyExecsAtOnce(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	var group sync.WaitGroup
	for i := range 50 {
		group.Go(func() {
			word := fmt.Sprintf("word %d", i)
			var out bytes.Buffer
			options := remotecommand.StreamOptions{Stdin: strings.NewReader(word), Stdout: &out}
			err := <-stream(t, "spdy", c.execURL(options, "cat"), options).result
			if err != nil || out.String() != word {
				t.Errorf("%q, %v; want %q", out.String(), err, word)
			}
		})
	}
	group.Wait()
}

func TestExecEndsThoughAChildHoldsItsOutput(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	stdout, _, code := c.streamExec("spdy", "", "sh", "-c", "sleep 2222 & echo done")
	equal(t, "exit code", code, 0)
	equal(t, "stdout", stdout, "done\n")
	must(t, c.runs("sleep 2222", true))
	_, _, code = c.streamExec("spdy", "", "sh", "-c", "while sleep 0.5; do echo chatter; done & exit 3")
	equal(t, "exit code beside a child that goes on writing", code, 3)
}

func TestExecEndsWithItsClient(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	for _, transport := range []string{"spdy", "websocket"} {
		options := remotecommand.StreamOptions{Stdin: blocked(t), Stdout: io.Discard}
		plain := stream(t, transport, c.execURL(options, "sleep", "1111"), options)
		_, onTerminal := c.terminal(transport, "sleep", "1112")
		c.until("both to run", func() error { return errors.Join(c.runs("sleep 1111", true), c.runs("sleep 1112", true)) })
		start := time.Now()
		plain.end()
		onTerminal.end()
		c.until("both to be gone", func() error { return errors.Join(c.runs("sleep 1111", false), c.runs("sleep 1112", false)) })
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s: they were gone after %s", transport, took)
		}
		c.endsWithAKilledClient(transport)
		c.hangsUp(transport)
	}
}

// hangsUp lets clients go from a program on a terminal, which hears of it, and from one without, which is killed; what that has started
// lives on.
func (c *container) hangsUp(transport string) {
	c.t.Helper()
	options := remotecommand.StreamOptions{Stdout: io.Discard}
	plain := stream(c.t, transport, c.execURL(options, "sh", "-c", "sleep 7777 & exec sleep 7778"), options)
	_, onTerminal := c.terminal(transport, "sh", "-c", "trap 'echo heard > /tmp/hup; exit' HUP; sleep 7779 & while :; do wait; done")
	c.until("all to run", func() error {
		return errors.Join(c.runs("sleep 7777", true), c.runs("sleep 7778", true), c.runs("sleep 7779", true))
	})
	plain.end()
	onTerminal.end()
	c.until("both to be gone", func() error {
		return errors.Join(c.runs("sleep 7778", false), c.runs("trap 'echo heard", false))
	})
	equal(c.t, transport+": what the one on a terminal heard", c.exec("cat", "/tmp/hup"), "heard")
	must(c.t, c.runs("sleep 7777", true))
	c.exec("rm", "/tmp/hup")
	c.exec("killall", "sleep")
}

// endsWithAKilledClient cuts clients off while they wait, while they are written to and do not read, and while they write
// and nobody reads.
func (c *container) endsWithAKilledClient(transport string) {
	c.t.Helper()
	full := &dam{open: make(chan struct{})}
	c.t.Cleanup(func() { close(full.open) })
	sessions := map[string]remotecommand.StreamOptions{
		"sleep 1113":    {Stdin: blocked(c.t), Stdout: io.Discard},
		"cat /dev/zero": {Stdout: full},
		"sleep 1114":    {Stdin: endless{}, Stdout: io.Discard},
	}
	all := func(want bool) func() error {
		return func() error {
			processes := c.exec("ps")
			for command := range sessions {
				if strings.Contains(processes, command) != want {
					return errors.New(processes)
				}
			}
			return nil
		}
	}
	line := newLine(c.t, c.execURL(remotecommand.StreamOptions{Stdout: io.Discard}, "true"))
	for command, options := range sessions {
		stream(c.t, transport, line.through(c.execURL(options, strings.Fields(command)...)), options)
	}
	c.until("all to run", all(true))
	c.until("all that fits to be sent", line.isQuiet)
	start := time.Now()
	line.cut()
	c.until("all to be gone", all(false))
	if took := time.Since(start); took > 2*time.Second {
		c.t.Errorf("%s: the processes of killed clients were gone after %s", transport, took)
	}
}

// endless is an input without an end.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// blocked is an input on which nothing comes before the test's end.
func blocked(t *testing.T) io.Reader {
	read, write := io.Pipe()
	t.Cleanup(func() { write.Close() })
	return read
}

// What came of an output is not taken for all of it, nor the VM's death for an exit.
func TestExecWhosePodDiesEndsWithAnError(t *testing.T) {
	p := onNode(t).runPod()
	c := p.idle("main")
	var out shown
	options := remotecommand.StreamOptions{Stdout: &out}
	session := stream(t, "spdy", c.execURL(options, "sh", "-c", "echo first; sleep 5555"), options)
	c.shows(&out, "first")
	for _, machine := range p.PodProcesses(p.id, "qemu") {
		must(t, syscall.Kill(machine.PID, syscall.SIGKILL))
	}
	err := session.wait(t)
	if exit := (clientexec.CodeExitError{}); err == nil || errors.As(err, &exit) {
		t.Fatalf("the session ended with %v", err)
	}
	contains(t, "the error", err.Error(), "broke off")
}
