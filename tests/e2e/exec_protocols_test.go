package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
)

// The protocols that nobody's newest client asks for.
func (c *container) speaksOldProtocols() {
	c.t.Helper()
	const told = "command terminated with non-zero exit code: 3"
	// The first protocol's client waits for its streams or for an error, whichever is first.
	for protocol, code := range map[string]int{"v3.channel.k8s.io": 3, "v2.channel.k8s.io": 3, "channel.k8s.io": 0} {
		var out bytes.Buffer
		options := remotecommand.StreamOptions{Stdout: &out}
		u, err := url.Parse(c.execURL(options, "sh", "-c", fmt.Sprintf("echo word; exit %d", code)))
		must(c.t, err)
		transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
		must(c.t, err)
		executor, err := remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, http.MethodPost, u, protocol)
		must(c.t, err)
		err = executor.StreamWithContext(c.t.Context(), options)
		equal(c.t, "spdy, "+protocol+": stdout", out.String(), "word\n")
		if code == 0 {
			must(c.t, err)
		} else {
			contains(c.t, "spdy, "+protocol+": the error", fmt.Sprint(err), told)
		}
	}
	for protocol, status := range map[string]string{
		"":                         told,
		"channel.k8s.io":           told,
		"base64.channel.k8s.io":    told,
		"v4.base64.channel.k8s.io": `"message":"3"`,
	} {
		u, err := url.Parse(c.execURL(remotecommand.StreamOptions{Stdout: &bytes.Buffer{}}, "sh", "-c", "echo word; exit 3"))
		must(c.t, err)
		var protocols []string
		if protocol != "" {
			protocols = []string{protocol}
		}
		client := dialChannels(c.t, u, protocols...)
		equal(c.t, protocol+": the first message", client.next(1), "")
		equal(c.t, protocol+": stdout", client.next(1), "word\n")
		contains(c.t, "websocket, "+protocol+": the status", client.next(3), status)
		client.Close()
	}
}
