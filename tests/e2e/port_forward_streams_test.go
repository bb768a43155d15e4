package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/tools/portforward"
)

const request = "GET /name HTTP/1.0\r\n\r\n"

func (p *pod) forwardURL(ports ...int32) *url.URL {
	p.t.Helper()
	response, err := p.Runtime.PortForward(p.t.Context(), &cri.PortForwardRequest{PodSandboxId: p.id, Port: ports})
	must(p.t, err)
	u, err := url.Parse(response.Url)
	must(p.t, err)
	return u
}

// named serves a page at port 8001 of the pod.
func (p *pod) named() {
	p.t.Helper()
	c := p.shell("web", "echo one > /www/name; httpd -f -p 127.0.0.1:8001 -h /www")
	c.until("the server to listen", func() error {
		if _, _, code := c.tryExec("sh", "-c", "netstat -ltn | grep -q :8001"); code != 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// The client library drops the whole session when a port is refused; the protocol does not ask for that.
func TestPortForwardSaysThatNobodyListensAndGoesOn(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	p.named()
	for name, dialer := range dialers {
		dial, err := dialer(p.forwardURL(8001))
		must(t, err)
		connection, _, err := dial.Dial(portforward.PortForwardProtocolV1Name)
		must(t, err)
		for attempt, port := range []int{4444, 8001, 4444, 8001} {
			answer, failure := exchange(t, connection, port, attempt)
			if port == 4444 {
				equal(t, name+": an answer from where nobody listens", answer, "")
				contains(t, name+": the error", failure, "error forwarding port 4444 to pod "+p.id, "Connection refused")
				continue
			}
			contains(t, name+": the answer", answer, "one\n")
			equal(t, name+": the error", failure, "")
		}
		headers := http.Header{"Streamtype": {"error"}, "Port": {"8001"}, "Requestid": {"twice"}}
		first, err := connection.CreateStream(headers)
		must(t, err)
		if _, err := connection.CreateStream(headers); err == nil {
			t.Errorf("%s: a second error stream of one request was taken", name)
		}
		text := make([]byte, 1000)
		count, err := first.Read(text)
		must(t, err)
		contains(t, name+": the error", string(text[:count]), "request twice: error stream already assigned")
		connection.Close()
	}
}

// exchange sends one request through a session, and returns what the streams of data and of errors brought.
func exchange(t *testing.T, connection httpstream.Connection, port, number int) (answer, failure string) {
	t.Helper()
	headers := http.Header{"Streamtype": {"error"}, "Port": {fmt.Sprint(port)}, "Requestid": {fmt.Sprint(number)}}
	failed, err := connection.CreateStream(headers)
	must(t, err)
	must(t, failed.Close())
	headers.Set("Streamtype", "data")
	data, err := connection.CreateStream(headers)
	must(t, err)
	// A refusal may come first.
	_, _ = io.WriteString(data, request)
	told := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(failed)
		told <- string(text)
	}()
	// A connection that is refused is reset.
	text, _ := io.ReadAll(data)
	data.Close()
	select {
	case failure = <-told:
	case <-time.After(patience):
		t.Fatalf("port %d: the error stream does not end", port)
	}
	return string(text), failure
}

// unwelcome asks for a protocol that nobody serves.
type unwelcome struct{ httpstream.Dialer }

func (u unwelcome) Dial(...string) (httpstream.Connection, string, error) {
	return u.Dialer.Dial("v9.portforward.k8s.io")
}

// As kubectl does it: SPDY where the WebSocket is refused, at one URL.
func TestPortForwardFallsBackFromWebSocketToSPDY(t *testing.T) {
	p := onNode(t).runPod()
	p.named()
	u := p.forwardURL(8001)
	first, err := dialers["websocket"](u)
	must(t, err)
	second, err := dialers["spdy"](u)
	must(t, err)
	refusedUpgrade := false
	fallback := portforward.NewFallbackDialer(unwelcome{first}, second, func(err error) bool {
		refusedUpgrade = err != nil
		return true
	})
	connection, _, err := fallback.Dial(portforward.PortForwardProtocolV1Name)
	must(t, err)
	defer connection.Close()
	equal(t, "the WebSocket was refused", refusedUpgrade, true)
	answer, _ := exchange(t, connection, 8001, 1)
	contains(t, "the answer", answer, "one\n")
}

// Two channels a port: what came before SPDY was tunnelled.
func TestPortForwardByChannels(t *testing.T) {
	p := onNode(t).runPod()
	p.named()
	for _, protocol := range []string{"v4.channel.k8s.io", "v4.base64.channel.k8s.io"} {
		c := dialChannels(t, p.forwardURL(8001, 4444), protocol)
		for channel, port := range []uint16{8001, 8001, 4444, 4444} {
			equal(t, fmt.Sprintf("%s: the port of channel %d", protocol, channel), binary.LittleEndian.Uint16([]byte(c.next(channel))), port)
		}
		c.send(0, request)
		var answer strings.Builder
		for !strings.Contains(answer.String(), "one\n") {
			answer.WriteString(c.next(0))
		}
		contains(t, protocol+": the answer", answer.String(), "200 OK")
		contains(t, protocol+": the error", c.next(3), "Connection refused")
		c.Close()
	}
	u := p.forwardURL()
	u.Scheme = "ws"
	_, response, err := (&websocket.Dialer{Subprotocols: []string{"v4.channel.k8s.io"}}).DialContext(t.Context(), u.String(), nil)
	if err == nil || response == nil {
		t.Fatalf("channels without ports: %v", err)
	}
	equal(t, "status of a request for channels without ports", response.StatusCode, http.StatusBadRequest)
	text, err := io.ReadAll(response.Body)
	must(t, err)
	contains(t, "its text", string(text), "1 to 127 ports")
}

// channels is a client of a WebSocket with channels.
type channels struct {
	*websocket.Conn
	t       *testing.T
	base64  bool
	waiting map[int][]string
}

func dialChannels(t *testing.T, u *url.URL, protocols ...string) *channels {
	t.Helper()
	u.Scheme = "ws"
	connection, response, err := (&websocket.Dialer{Subprotocols: protocols}).DialContext(t.Context(), u.String(), nil)
	must(t, err)
	response.Body.Close()
	must(t, connection.SetReadDeadline(time.Now().Add(patience)))
	return &channels{connection, t, strings.Contains(connection.Subprotocol(), "base64"), map[int][]string{}}
}

func (c *channels) send(channel int, text string) {
	c.t.Helper()
	if c.base64 {
		must(c.t, c.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "%d%s", channel, base64.StdEncoding.EncodeToString([]byte(text)))))
		return
	}
	must(c.t, c.WriteMessage(websocket.BinaryMessage, append([]byte{byte(channel)}, text...)))
}

// next is the next message of a channel.
func (c *channels) next(channel int) string {
	c.t.Helper()
	for len(c.waiting[channel]) == 0 {
		kind, message, err := c.ReadMessage()
		must(c.t, err)
		equal(c.t, "a text message", kind == websocket.TextMessage, c.base64)
		from, text := int(message[0]), message[1:]
		if c.base64 {
			from -= '0'
			text, err = io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(text)))
			must(c.t, err)
		}
		c.waiting[from] = append(c.waiting[from], string(text))
	}
	text := c.waiting[channel][0]
	c.waiting[channel] = c.waiting[channel][1:]
	return text
}
