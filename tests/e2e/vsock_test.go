package e2e

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/remotecommand"
	clientexec "k8s.io/client-go/util/exec"
	utilexec "k8s.io/utils/exec"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The shim's connections to its guest break, again and again, under all that they carry: it dials anew, and nobody notices. Then strangers
// talk nonsense to the guest's ports.
func TestChannelToTheGuestMayBreak(t *testing.T) {
	p := onNode(t).runPod(privilegedPod)
	// A line at a time, and sometimes so much that it goes another way.
	const script = `seq 20000 > /tmp/much; i=0
		until [ -e /tmp/stop ]; do
			echo "line $i"; i=$((i + 1)); usleep 20000
			[ $((i % 4)) = 0 ] && cat /tmp/much
		done; echo "after $i"`
	c := p.shell("writer", script)
	var screen shown
	attached := c.attach("spdy", remotecommand.StreamOptions{Stdout: &screen})
	var out shown
	read, typed := io.Pipe()
	t.Cleanup(func() { typed.Close() })
	options := remotecommand.StreamOptions{Stdin: read, Stdout: &out}
	exec := stream(t, "spdy", c.execURL(options, "sh", "-c", `while read word; do echo "heard $word"; [ $word = end ] && exit 7; done`), options)

	_, _ = io.WriteString(typed, "first\n")
	c.shows(&out, "heard first\n")
	for round := range 4 {
		before := len(screen.String())
		// Of calls, of the writer's outputs, of the exec's input and output.
		if broken := p.breaks(c.channels()); broken < 5 {
			t.Errorf("the shim had %d connections to its guest", broken)
		}
		_, _ = fmt.Fprintf(typed, "word%d\n", round)
		equal(t, "an exec when all connections are broken", c.exec("echo", "well"), "well")
		c.shows(&out, fmt.Sprintf("heard word%d\n", round))
		c.until("more of the output", func() error {
			if len(screen.String()) == before {
				return errors.New("there is none")
			}
			return nil
		})
	}

	// Calls are on their way when it happens.
	random := rand.New(rand.NewPCG(3, 8))
	breaking := func(call func()) {
		channels := c.channels()
		var group sync.WaitGroup
		group.Go(call)
		time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond)
		p.breaks(channels)
		group.Wait()
	}
	for i := range 4 {
		breaking(func() {
			stdout, stderr, err := c.Runtime.ExecSync(t.Context(), c.id, []string{"sh", "-c", fmt.Sprintf("echo %d; exit 4", i)}, patience)
			if exit := (utilexec.CodeExitError{}); !errors.As(err, &exit) || exit.Code != 4 || string(stdout) != fmt.Sprintln(i) {
				t.Errorf("an exec on breaking connections: stdout %q, stderr %q, %v", stdout, stderr, err)
			}
		})
	}
	other := p.create(fixture.ContainerConfig("other", images.Busybox, "sh", "-c", "echo begun; exit 5"))
	breaking(func() {
		if err := p.Runtime.StartContainer(t.Context(), other.id); err != nil {
			t.Errorf("a start on breaking connections: %v", err)
		}
	})
	equal(t, "exit code", other.exited().ExitCode, 5)
	stdout, _ := other.log()
	equal(t, "log", stdout, "begun\n")

	_, _ = io.WriteString(typed, "end\n")
	var exit clientexec.CodeExitError
	if err := exec.wait(t); !errors.As(err, &exit) || exit.Code != 7 {
		t.Errorf("the exec's end: %v", err)
	}
	c.exec("touch", "/tmp/stop")
	must(t, attached.wait(t))
	log := c.succeeds()
	isWhole(t, log)
	if shown := screen.String(); !strings.HasSuffix(log, shown) {
		t.Errorf("the client saw %d bytes that are not the log's last", len(shown))
	}
	equal(t, "pod", p.status().State, cri.PodSandboxState_SANDBOX_READY)
	p.talksNonsense()
}

// isWhole checks what the writer has written.
func isWhole(t *testing.T, log string) {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(log))
	due := func(line string) {
		t.Helper()
		if lines.Scan(); lines.Text() != line {
			t.Fatalf("the log has the line %q where %q is due", lines.Text(), line)
		}
	}
	count := strings.Count(log, "line")
	for i := range count {
		due(fmt.Sprintf("line %d", i))
		for j := 1; i%4 == 3 && j <= 20000; j++ {
			due(strconv.Itoa(j))
		}
	}
	due(fmt.Sprintf("after %d", count))
	if lines.Scan() {
		t.Errorf("the log goes on after its end: %q", lines.Text())
	}
}

// channels finds the connections that the pod's shim has to its guest, and waits until all of them are made: the vsock backend
// (vhost-device-vsock 0.3) ends when one is given up that the guest has not answered yet, and the shim gives none up.
func (c *container) channels() map[string]bool {
	c.t.Helper()
	found := map[string]bool{}
	c.eachChannel(func(name string, _ int) { found[name] = true })
	// The guest answers in turn.
	c.exec("true")
	return found
}

// breaks ends connections, and says how many there still were. It is the kernel's end of them that shim and backend see.
func (p *pod) breaks(channels map[string]bool) (broken int) {
	p.t.Helper()
	p.eachChannel(func(name string, socket int) {
		if channels[name] && unix.Shutdown(socket, unix.SHUT_RDWR) == nil {
			broken++
		}
	})
	return broken
}

// eachChannel looks at the connections of the pod's shim to its vsock backend: the kernel's name of each, and a descriptor.
func (p *pod) eachChannel(look func(name string, socket int)) {
	p.t.Helper()
	shims, backends := p.PodProcesses(p.id, "a3s-box-shim"), p.PodProcesses(p.id, "vhost-device-vsock")
	if len(shims) != 1 || len(backends) != 1 {
		p.t.Fatalf("the pod has the shims %v and the backends %v", shims, backends)
	}
	shim, err := unix.PidfdOpen(shims[0].PID, 0)
	must(p.t, err)
	defer unix.Close(shim)
	descriptors, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", shims[0].PID))
	must(p.t, err)
	for _, descriptor := range descriptors {
		number, err := strconv.Atoi(filepath.Base(descriptor))
		must(p.t, err)
		// One may be closed by now.
		socket, err := unix.PidfdGetfd(shim, number, 0)
		if err != nil {
			continue
		}
		if leadsTo(socket, backends[0].PID, "vsock") {
			name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", socket))
			must(p.t, err)
			look(name, socket)
		}
		must(p.t, unix.Close(socket))
	}
}

// leadsTo tells whether a descriptor is a connection to a process's socket.
func leadsTo(socket, pid int, name string) bool {
	peer, err := unix.Getpeername(socket)
	if err != nil {
		return false
	}
	address, isUnix := peer.(*unix.SockaddrUnix)
	if !isUnix || filepath.Base(address.Name) != name {
		return false
	}
	credentials, err := unix.GetsockoptUcred(socket, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && int(credentials.Pid) == pid
}

// talksNonsense connects to the agent as only the shim should, and says what is no call and no stream, or is one of nothing that there is.
func (p *pod) talksNonsense() {
	p.t.Helper()
	c := p.idle("witness", privileged, func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE
	})
	descriptors := func() int {
		count, err := strconv.Atoi(c.exec("sh", "-c", "ls /proc/1/fd | wc -l"))
		must(p.t, err)
		return count
	}
	before := descriptors()
	if before < 10 {
		p.t.Fatalf("the agent has %d descriptors, so they are not seen", before)
	}
	random := rand.New(rand.NewPCG(6, 8))
	for i := range 100 {
		bytes := make([]byte, 1+random.IntN(2000))
		for i := range bytes {
			bytes[i] = byte(random.Uint32())
		}
		must(p.t, p.saysToGuest([]int{1024, 1025}[i%2], nonsense(i/2, bytes)))
	}
	c.until("the agent to close what strangers opened", func() error {
		if now := descriptors(); now > before+2 {
			return fmt.Errorf("it has %d descriptors, and had %d before", now, before)
		}
		return nil
	})
	equal(p.t, "pod after nonsense", p.status().State, cri.PodSandboxState_SANDBOX_READY)
}

// nonsense makes random bytes of a kind that its number decides: as they are, as a call of ttrpc's, as a stream's first frame.
func nonsense(number int, bytes []byte) []byte {
	length := binary.BigEndian.AppendUint32(nil, uint32(len(bytes)))
	switch number % 3 {
	case 1:
		// Of stream 1, a request.
		return append(append(length, 0, 0, 0, 1, 1, 0), bytes...)
	case 2:
		return append(append([]byte{1, 0, 0, 0}, length...), bytes...)
	default:
		return bytes
	}
}

// saysToGuest connects to a port of the guest's by the vsock backend, says something, and hears what it says or for a moment.
func (p *pod) saysToGuest(port int, bytes []byte) error {
	connection, err := net.Dial("unix", filepath.Join(p.PodDir(p.id), "vsock", "vsock"))
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	fmt.Fprintf(connection, "CONNECT %d\n", port)
	answer := make([]byte, len("OK "))
	if _, err := io.ReadFull(connection, answer); err != nil || string(answer) != "OK " {
		return fmt.Errorf("port %d: answer %q, %v", port, answer, err)
	}
	_, _ = connection.Write(bytes)
	_ = connection.SetDeadline(time.Now().Add(20 * time.Millisecond))
	_, _ = io.Copy(io.Discard, connection)
	return nil
}
