package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"a3s.box/tests/fixture"
)

// What the host answers to the container.
const greeting = "the host greets its pod"

// servePage answers on all of the host's addresses: the bridge gets its own with the first pod.
func servePage(node *fixture.Node) (*http.Server, error) {
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return nil, fmt.Errorf("a web server for the container: %w", err)
	}
	port := listener.Addr().(*net.TCPAddr).AddrPort().Port()
	server := &http.Server{
		Addr:              netip.AddrPortFrom(node.Gateway(), port).String(),
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(answer, greeting)
		}),
	}
	go func() { _ = server.Serve(listener) }()
	return server, nil
}
