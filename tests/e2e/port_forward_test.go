package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// dialers are the ways in which Kubernetes' clients come for port-forward.
var dialers = map[string]func(*url.URL) (httpstream.Dialer, error){
	"spdy": func(u *url.URL) (httpstream.Dialer, error) {
		transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
		return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u), err
	},
	"websocket": func(u *url.URL) (httpstream.Dialer, error) {
		return portforward.NewSPDYOverWebsocketDialer(u, &rest.Config{})
	},
}

// forwarded is a running port-forward: local addresses in the order of the pod's ports.
func (p *pod) forwarded(dialer string, ports ...int32) []string {
	p.t.Helper()
	dial, err := dialers[dialer](p.forwardURL(ports...))
	must(p.t, err)
	specs := make([]string, len(ports))
	for i, port := range ports {
		specs[i] = fmt.Sprintf("0:%d", port)
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.NewOnAddresses(dial, []string{"127.0.0.1"}, specs, stop, ready, io.Discard, io.Discard)
	must(p.t, err)
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	p.t.Cleanup(func() { close(stop) })
	select {
	case <-ready:
	case err := <-ended:
		p.t.Fatalf("%s: %v", dialer, err)
	case <-time.After(patience):
		p.t.Fatalf("%s: port-forward is not ready", dialer)
	}
	local, err := forwarder.GetPorts()
	must(p.t, err)
	var addresses []string
	for _, port := range local {
		addresses = append(addresses, fmt.Sprintf("127.0.0.1:%d", port.Local))
	}
	return addresses
}

func TestPortForwardServesManyRequestsOfSeveralPorts(t *testing.T) {
	p := onNode(t).runPod()
	c := p.shell("web", "echo one > /www/name; httpd -p 127.0.0.1:8001 -h /www; mkdir /two; echo two > /two/name; httpd -f -p [::1]:8002 -h /two")
	c.until("the servers to listen", func() error {
		_, _, code := c.tryExec("sh", "-c", "netstat -ltn | grep -q :8001 && netstat -ltn | grep -q :8002")
		if code != 0 {
			return errors.New("not yet")
		}
		return nil
	})
	for dialer := range dialers {
		addresses := p.forwarded(dialer, 8001, 8002)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
		var group sync.WaitGroup
		for worker := range 8 {
			group.Go(func() {
				for range 25 {
					which := worker % 2
					if got, err := fetch(client, "http://"+addresses[which]+"/name"); err != nil || got != []string{"one\n", "two\n"}[which] {
						t.Errorf("%s: port %d: %q, %v", dialer, 8001+which, got, err)
						return
					}
				}
			})
		}
		group.Wait()
	}
}

func fetch(client *http.Client, address string) (string, error) {
	response, err := client.Get(address)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// The server answers only when it has all of the question: the end of one direction is not that of the other.
func TestPortForwardCarriesMuchAndTheEndOfEachDirection(t *testing.T) {
	p := onNode(t).runPod()
	c := p.shell("echo", `printf '#!/bin/sh\ncat > /$$; cat /$$; rm /$$\n' > /answer; chmod +x /answer; nc -ll -p 9000 -e /answer`)
	c.until("the server to listen", func() error {
		if _, _, code := c.tryExec("sh", "-c", "netstat -ltn | grep -q :9000"); code != 0 {
			return errors.New("not yet")
		}
		return nil
	})
	data := make([]byte, muchData(t))
	rand.New(rand.NewSource(2)).Read(data)
	for dialer := range dialers {
		addresses := p.forwarded(dialer, 9000)
		connection, err := net.Dial("tcp", addresses[0])
		must(t, err)
		defer connection.Close()
		_, err = io.Copy(connection, bytes.NewReader(data))
		must(t, err)
		must(t, connection.(*net.TCPConn).CloseWrite())
		sum := sha256.New()
		_, err = io.Copy(sum, connection)
		must(t, err)
		equal(t, dialer+": the answer's sum", fmt.Sprintf("%x", sum.Sum(nil)), fmt.Sprintf("%x", sha256.Sum256(data)))
	}
}
