package registry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
)

// Stall stands before a registry and stops in the middle of what it hands on: a moment of a pull is a number of bytes.
type Stall struct {
	server *httptest.Server

	mutex sync.Mutex
	left  int64
	// Closed when the bytes are used up, and when they may flow again.
	reached, released chan struct{}
	requests          atomic.Int64
}

// NewStall stands before the registry at an address.
func NewStall(address string) *Stall {
	s := &Stall{left: -1}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address})
	proxy.FlushInterval = -1
	proxy.ModifyResponse = func(response *http.Response) error {
		if response.StatusCode == http.StatusOK && strings.Contains(response.Request.URL.Path, "/blobs/") {
			s.requests.Add(1)
			response.Body = &stalled{response.Body, s}
		}
		return nil
	}
	// A client that was killed is no news.
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) {}
	s.server = httptest.NewServer(proxy)
	return s
}

// Address is the host:port to pull from.
func (s *Stall) Address() string { return strings.TrimPrefix(s.server.URL, "http://") }

// Blobs is how many blobs were asked for since the last call.
func (s *Stall) Blobs() int64 { return s.requests.Swap(0) }

// After stops the blobs after so many bytes of all of them; reached is closed then, and release lets them go on.
func (s *Stall) After(bytes int64) (reached <-chan struct{}, release func()) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.left, s.reached, s.released = bytes, make(chan struct{}), make(chan struct{})
	return s.reached, sync.OnceFunc(func() {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.left = -1
		close(s.released)
	})
}

// Close ends it.
func (s *Stall) Close() {
	s.server.CloseClientConnections()
	s.server.Close()
}

type stalled struct {
	io.ReadCloser
	stall *Stall
}

func (b *stalled) Read(buffer []byte) (int, error) {
	room, wait := b.stall.take(len(buffer))
	if wait != nil {
		<-wait
		room = len(buffer)
	}
	n, err := b.ReadCloser.Read(buffer[:room])
	b.stall.giveBack(room - n)
	return n, err
}

// take says how many bytes may be read now, or for what to wait first.
func (s *Stall) take(wanted int) (int, <-chan struct{}) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	switch {
	case s.left < 0:
		return wanted, nil
	case s.left == 0:
		select {
		case <-s.reached:
		default:
			close(s.reached)
		}
		return 0, s.released
	default:
		room := int(min(int64(wanted), s.left))
		s.left -= int64(room)
		return room, nil
	}
}

func (s *Stall) giveBack(unread int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.left >= 0 {
		s.left += int64(unread)
	}
}
