package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	clientexec "k8s.io/client-go/util/exec"
)

// transports are the ways in which Kubernetes' clients come to a streaming URL.
var transports = map[string]func(*url.URL) (remotecommand.Executor, error){
	"spdy": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(&rest.Config{}, http.MethodPost, u)
	},
	"websocket": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(&rest.Config{}, http.MethodGet, u.String())
	},
	"websocket v4": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutorForProtocols(&rest.Config{}, http.MethodGet, u.String(), "v4.channel.k8s.io")
	},
}

// terminal is a client's terminal: its sizes, and what it was shown.
type terminal struct {
	sizes chan remotecommand.TerminalSize
	keys  *io.PipeWriter
	shown *shown
}

func (t *terminal) Next() *remotecommand.TerminalSize {
	size, more := <-t.sizes
	if !more {
		return nil
	}
	return &size
}

// shown is what a stream has brought so far.
type shown struct {
	lock  sync.Mutex
	bytes bytes.Buffer
}

func (s *shown) Write(b []byte) (int, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.bytes.Write(b)
}

func (s *shown) String() string {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.bytes.String()
}

// lacks says what was shown last, if a text was not.
func (s *shown) lacks(text string) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	all := s.bytes.Bytes()
	if bytes.Contains(all, []byte(text)) {
		return nil
	}
	return fmt.Errorf("%d bytes were shown, at last %q", len(all), all[max(0, len(all)-400):])
}

// shows waits until a client has been shown a text.
func (n *node) shows(s *shown, text string) {
	n.t.Helper()
	n.until(fmt.Sprintf("%q to be shown", text), func() error { return s.lacks(text) })
}

// session is a client of an exec or attach.
type session struct {
	end    context.CancelFunc
	result chan error
}

// wait is the session's end, however it comes.
func (s *session) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.result:
		return err
	case <-time.After(patience):
		t.Fatal("the session does not end")
		return nil
	}
}

// stream opens a session at a URL.
func stream(t *testing.T, transport, address string, options remotecommand.StreamOptions) *session {
	t.Helper()
	u, err := url.Parse(address)
	must(t, err)
	executor, err := transports[transport](u)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	s := &session{end: cancel, result: make(chan error, 1)}
	go func() { s.result <- executor.StreamWithContext(ctx, options) }()
	t.Cleanup(cancel)
	return s
}

func (c *container) execURL(options remotecommand.StreamOptions, command ...string) string {
	c.t.Helper()
	response, err := c.Runtime.Exec(c.t.Context(), &cri.ExecRequest{
		ContainerId: c.id, Cmd: command, Tty: options.Tty,
		Stdin: options.Stdin != nil, Stdout: options.Stdout != nil, Stderr: options.Stderr != nil,
	})
	must(c.t, err)
	return response.Url
}

// streamExec runs a command to its end.
func (c *container) streamExec(transport, stdin string, command ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	var out, errOut bytes.Buffer
	options := remotecommand.StreamOptions{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errOut}
	err := stream(c.t, transport, c.execURL(options, command...), options).wait(c.t)
	if exit := (clientexec.CodeExitError{}); errors.As(err, &exit) {
		return out.String(), errOut.String(), exit.Code
	}
	if err != nil {
		c.t.Fatalf("%s: exec %q: %v", transport, command, err)
	}
	return out.String(), errOut.String(), 0
}

// A token is good once, for its own kind of request, and a client who cannot upgrade does not burn it.
func TestStreamingURLsAreForOneClient(t *testing.T) {
	n := onNode(t)
	c := n.runPod().idle("main")
	options := remotecommand.StreamOptions{Stdout: &bytes.Buffer{}}
	address := c.execURL(options, "true")
	get := func(address string, header http.Header) int {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		must(t, err)
		if host := header.Get("Host"); host != "" {
			request.Host = host
		}
		request.Header = header
		response, err := http.DefaultClient.Do(request)
		must(t, err)
		response.Body.Close()
		return response.StatusCode
	}
	upgrade := func(protocol string) http.Header {
		return http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {protocol}}
	}
	equal(t, "no upgrade", get(address, http.Header{}), http.StatusBadRequest)
	equal(t, "unknown protocol", get(address, upgrade("v9.channel.k8s.io")), http.StatusForbidden)
	rebound := upgrade("v4.channel.k8s.io")
	rebound.Set("Host", "evil.example")
	equal(t, "another name for this host", get(address, rebound), http.StatusForbidden)
	equal(t, "another kind", get(strings.Replace(address, "/exec/", "/attach/", 1), upgrade("v4.channel.k8s.io")), http.StatusNotFound)
	equal(t, "a guess", get(address[:len(address)-1]+"?", upgrade("v4.channel.k8s.io")), http.StatusNotFound)
	must(t, stream(t, "spdy", address, options).wait(t))
	equal(t, "a second time", get(address, upgrade("v4.channel.k8s.io")), http.StatusNotFound)
}

// As kubectl does: a WebSocket first, and SPDY where that is refused, at one URL.
func TestFallbackFromWebSocketToSPDYFindsItsToken(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	var out bytes.Buffer
	options := remotecommand.StreamOptions{Stdout: &out}
	u, err := url.Parse(c.execURL(options, "echo", "found"))
	must(t, err)
	websocket, err := remotecommand.NewWebSocketExecutorForProtocols(&rest.Config{}, http.MethodGet, u.String(), "v9.channel.k8s.io")
	must(t, err)
	spdy, err := transports["spdy"](u)
	must(t, err)
	fallback, err := remotecommand.NewFallbackExecutor(websocket, spdy, func(error) bool { return true })
	must(t, err)
	must(t, fallback.StreamWithContext(t.Context(), options))
	equal(t, "stdout", out.String(), "found\n")
}

func TestStreamingRequestsAreCheckedBeforeAnyoneComes(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	c := p.idle("main")
	ctx := t.Context()
	exec := func(request *cri.ExecRequest) error { return firstError(n.Runtime.Exec(ctx, request)) }
	attach := func(request *cri.AttachRequest) error { return firstError(n.Runtime.Attach(ctx, request)) }
	forward := func(port int32) error {
		return firstError(n.Runtime.PortForward(ctx, &cri.PortForwardRequest{PodSandboxId: p.id, Port: []int32{port}}))
	}
	command := []string{"true"}
	refused(t, exec(&cri.ExecRequest{ContainerId: c.id, Cmd: command}), codes.InvalidArgument, "stdin")
	refused(t, exec(&cri.ExecRequest{ContainerId: c.id, Cmd: command, Tty: true, Stdout: true, Stderr: true}), codes.InvalidArgument, "tty")
	refused(t, exec(&cri.ExecRequest{ContainerId: c.id, Stdout: true}), codes.InvalidArgument, "command")
	refused(t, exec(&cri.ExecRequest{ContainerId: "absent", Cmd: command, Stdout: true}), codes.NotFound, "absent")
	refused(t, attach(&cri.AttachRequest{ContainerId: c.id, Stdin: true, Stdout: true}), codes.InvalidArgument, "without stdin")
	refused(t, attach(&cri.AttachRequest{ContainerId: c.id, Stdout: true, Tty: true}), codes.InvalidArgument, "terminal")
	refused(t, forward(0), codes.InvalidArgument, "0 is no port")
	refused(t, forward(65536), codes.InvalidArgument, "65536 is no port")
	must(t, n.Runtime.StopContainer(ctx, c.id, 1))
	refused(t, exec(&cri.ExecRequest{ContainerId: c.id, Cmd: command, Stdout: true}), codes.FailedPrecondition, "running")
}

func TestGarbageAtTheStreamingServerLeavesNothing(t *testing.T) {
	n := onNode(t)
	c := n.runPod().idle("main")
	u, err := url.Parse(c.execURL(remotecommand.StreamOptions{Stdout: io.Discard}, "true"))
	must(t, err)
	descriptors := func() int {
		entries, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(n.FrontendPID()), "fd"))
		must(t, err)
		return len(entries)
	}
	memory := func() int {
		text, err := readFile(filepath.Join("/proc", fmt.Sprint(n.FrontendPID()), "status"))
		must(t, err)
		_, rest, _ := strings.Cut(text, "RssAnon:")
		kb, err := strconv.Atoi(strings.Fields(rest)[0])
		must(t, err)
		return kb
	}
	// Some of it comes with a token, where sessions begin with it.
	waiting := make(chan string, 500)
	flood := func(clients int) {
		const workers = 50
		for range cap(waiting) {
			waiting <- c.execURL(remotecommand.StreamOptions{Stdout: io.Discard}, "true")
		}
		var group sync.WaitGroup
		for worker := range workers {
			group.Go(func() {
				for i := range clients / workers {
					if err := garbage(u.Host, worker*clients+i, waiting); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		equal(t, "tokens left", len(waiting), 0)
	}
	before := descriptors()
	// What so many at once take once. An allocator gives it back now and then, so the most of several times counts.
	taken := 0
	for range 2 {
		flood(3000)
		taken = max(taken, memory())
	}
	flood(7000)
	if now := memory(); now > taken+8<<10 {
		t.Errorf("the frontend has %d KiB of memory, %d before", now, taken)
	}
	n.until("the connections to be closed", func() error {
		if now := descriptors(); now > before+4 {
			return fmt.Errorf("%d descriptors, %d before", now, before)
		}
		return nil
	})
	equal(t, "an exec afterwards", c.exec("echo", "well"), "well")
}
