package kubelet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

// checkStreaming runs a command and reaches a port through kubelet, which stands between client and runtime.
func (k *kubelet) checkStreaming(t *testing.T, pod *corev1.Pod) {
	config := &rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	command := k.url(t, "/exec/default/"+pod.Name+"/limited", url.Values{
		"command": {"sh", "-c", "cat; echo to stderr >&2; exit 7"}, "input": {"1"}, "output": {"1"}, "error": {"1"},
	})
	for name, executor := range map[string]func() (remotecommand.Executor, error){
		"spdy": func() (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(config, http.MethodPost, command)
		},
		"websocket": func() (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(config, http.MethodGet, command.String())
		},
	} {
		t.Run("exec by "+name, func(t *testing.T) {
			running, err := executor()
			must(t, err)
			var stdout, stderr bytes.Buffer
			err = running.StreamWithContext(t.Context(), remotecommand.StreamOptions{
				Stdin: strings.NewReader("from stdin\n"), Stdout: &stdout, Stderr: &stderr,
			})
			if exit := (exec.CodeExitError{}); !errors.As(err, &exit) || exit.Code != 7 {
				t.Errorf("it ended with %v", err)
			}
			if stdout.String() != "from stdin\n" || stderr.String() != "to stderr\n" {
				t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
			}
		})
	}
	t.Run("port-forward", func(t *testing.T) {
		transport, upgrader, err := spdy.RoundTripperFor(config)
		must(t, err)
		ports := k.url(t, "/portForward/default/"+pod.Name, nil)
		dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, ports)
		stop, ready := make(chan struct{}), make(chan struct{})
		forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
		must(t, err)
		ended := make(chan error, 1)
		go func() { ended <- forwarder.ForwardPorts() }()
		defer func() {
			close(stop)
			must(t, <-ended)
		}()
		select {
		case <-ready:
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(patience):
			t.Fatal("it is not ready")
		}
		local, err := forwarder.GetPorts()
		must(t, err)
		page, err := get(&http.Client{Timeout: 10 * time.Second}, fmt.Sprintf("http://127.0.0.1:%d/", local[0].Local))
		must(t, err)
		if page != "hello from a pod\n" {
			t.Errorf("the page is %q", page)
		}
	})
}

func (k *kubelet) url(t *testing.T, path string, query url.Values) *url.URL {
	t.Helper()
	u, err := url.Parse(k.address + path + "?" + query.Encode())
	must(t, err)
	return u
}
