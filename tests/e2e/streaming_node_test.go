package e2e

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"a3s.box/tests/fixture"
	"a3s.box/tests/registry"
)

func TestStreamingOverTLSAndTheEndOfAnIdleSession(t *testing.T) {
	authority, err := registry.NewAuthority("streaming")
	must(t, err)
	certificate, err := authority.Sign("127.0.0.1")
	must(t, err)
	crt, key, err := certificate.Write(t.TempDir(), "streaming")
	must(t, err)
	n := ownNode(t, fixture.Options{Config: fixture.Config{
		"streaming.tls_cert": crt, "streaming.tls_key": key, "streaming.idle_timeout_s": 3,
	}})
	c := n.runPod().idle("main")
	config := &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: authority.PEM}}
	secure := map[string]func(*url.URL) (remotecommand.Executor, error){
		"spdy": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(config, http.MethodPost, u)
		},
		"websocket": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(config, http.MethodGet, u.String())
		},
	}
	for transport, executor := range secure {
		var out bytes.Buffer
		options := remotecommand.StreamOptions{Stdout: &out}
		u, err := url.Parse(c.execURL(options, "echo", "sealed"))
		must(t, err)
		equal(t, "scheme", u.Scheme, "https")
		// Who does not trust the certificate does not burn the token.
		stranger, err := transports[transport](u)
		must(t, err)
		if err := stranger.StreamWithContext(t.Context(), options); err == nil {
			t.Errorf("%s: a certificate of nobody's is trusted", transport)
		}
		client, err := executor(u)
		must(t, err)
		must(t, client.StreamWithContext(t.Context(), options))
		equal(t, transport+": stdout", out.String(), "sealed\n")

		idle := remotecommand.StreamOptions{Stdin: blocked(t), Stdout: io.Discard}
		u, err = url.Parse(c.execURL(idle, "sleep", "4444"))
		must(t, err)
		client, err = executor(u)
		must(t, err)
		ended := make(chan error, 1)
		go func() { ended <- client.StreamWithContext(t.Context(), idle) }()
		c.until("it to run", func() error { return c.runs("sleep 4444", true) })
		// Over SPDY the client library takes the end without a status for a good one.
		_ = (&session{result: ended}).wait(t)
		c.until("its process to be gone", func() error { return c.runs("sleep 4444", false) })
	}
}
