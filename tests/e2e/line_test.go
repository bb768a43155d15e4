package e2e

import (
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// line is what lies between clients and a server. Where it is cut, the server sees what the kernel makes of a killed client.
type line struct {
	t        *testing.T
	listener net.Listener
	passed   atomic.Int64
	seen     int64
	// How many times in a row little had passed.
	quiet int
	lock  sync.Mutex
	ends  []net.Conn
}

// newLine leads to the server of a URL.
func newLine(t *testing.T, address string) *line {
	t.Helper()
	u, err := url.Parse(address)
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l := &line{t: t, listener: listener}
	t.Cleanup(l.cut)
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", u.Host)
			if err != nil {
				t.Error(err)
				client.Close()
				return
			}
			l.lock.Lock()
			l.ends = append(l.ends, client, server)
			l.lock.Unlock()
			go l.carry(server, client)
			go l.carry(client, server)
		}
	}()
	return l
}

// through is the same URL by way of the line.
func (l *line) through(address string) string {
	l.t.Helper()
	u, err := url.Parse(address)
	must(l.t, err)
	u.Host = l.listener.Addr().String()
	return u.String()
}

func (l *line) carry(to io.WriteCloser, from io.Reader) {
	_, _ = io.Copy(io.MultiWriter(to, counted{&l.passed}), from)
	to.Close()
}

// isQuiet is an error until more than signs of life have not passed between a good number of calls.
func (l *line) isQuiet() error {
	now := l.passed.Load()
	l.quiet++
	if now > l.seen+1000 {
		l.quiet = 0
	}
	l.seen = now
	if l.quiet < 10 {
		return errors.New("bytes are on their way")
	}
	return nil
}

func (l *line) cut() {
	l.listener.Close()
	l.lock.Lock()
	defer l.lock.Unlock()
	for _, end := range l.ends {
		end.Close()
	}
}

// counted counts what is written.
type counted struct{ total *atomic.Int64 }

func (c counted) Write(b []byte) (int, error) {
	c.total.Add(int64(len(b)))
	return len(b), nil
}
