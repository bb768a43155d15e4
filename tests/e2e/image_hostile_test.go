package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
	"a3s.box/tests/registry"
)

// misdeed is a pull that a registry or an image spoils.
type misdeed struct {
	name string
	// What is answered; nothing means what the true registry answers.
	does answer
	// What comes of it; without words, an image.
	code  codes.Code
	words []string
	// The image, whose layers no other has, or its registry would not be asked; and the digits of its configuration and lowest layer.
	image         v1.Image
	config, layer string
}

// The documents that a pull asks for.
type part int

const (
	manifest part = iota
	config
	layer
)

func (m *misdeed) isAsked(r *http.Request, what part) bool {
	word := [...]string{manifest: "/manifests/", config: m.config, layer: m.layer}[what]
	return strings.Contains(r.URL.Path, word)
}

type answer func(m *misdeed, w http.ResponseWriter, r *http.Request, truth http.Handler)

// Whatever registries and images do, each pull has an error that says why, or an image that harms nobody; nothing is left, and the frontend
// lives and stays small.
func TestRegistriesAndImagesThatMisbehave(t *testing.T) {
	const most = 64
	n := ownNode(t, fixture.Options{Config: fixture.Config{
		"images.progress_timeout_s":    2,
		"images.max_unpacked_layer_mb": images.BombMB / 2,
	}})
	elsewhere := newElsewhere(t, n.Registry())
	misdeeds := slices.Concat(evilRegistries(t, elsewhere), evilImages(t))
	for _, m := range misdeeds {
		must(t, registry.Push(t.Context(), n.Registry(), "host/a3s-box/"+m.name+":1", m.image))
	}
	address := misbehaving(t, n.Registry(), misdeeds)

	n.pull(images.Busybox)
	bytes, files := n.imageBytes(), n.imageInodes()
	errs := make([]error, len(misdeeds))
	together(len(misdeeds), func(number int) {
		auth := &cri.AuthConfig{Username: "somebody", Password: secret}
		spec := &cri.ImageSpec{Image: address + "/" + misdeeds[number].name + ":1"}
		_, errs[number] = n.Images.PullImage(t.Context(), spec, auth, nil)
	})
	var harmless []string
	for number, m := range misdeeds {
		t.Run(m.name, func(t *testing.T) {
			if m.words == nil {
				must(t, errs[number])
				harmless = append(harmless, m.name)
				return
			}
			refused(t, errs[number], m.code, append(m.words, address+"/"+m.name)...)
			if strings.Contains(errs[number].Error(), secret) {
				t.Errorf("the error tells the password: %v", errs[number])
			}
		})
	}
	if elsewhere.asked.Load() == 0 || elsewhere.told.Load() != 0 {
		t.Errorf("another host was asked %d times, and told secrets %d times", elsewhere.asked.Load(), elsewhere.told.Load())
	}
	peak := n.peakMB()
	t.Logf("the frontend took %d MiB", peak)
	if peak > most {
		t.Errorf("the frontend took %d MiB, and may take %d", peak, most)
	}
	n.harmNobody(address)
	for _, name := range harmless {
		must(t, n.Images.RemoveImage(t.Context(), &cri.ImageSpec{Image: address + "/" + name + ":1"}))
	}
	n.until("nothing to be left", func() error {
		if nowBytes, nowFiles := n.imageBytes(), n.imageInodes(); nowFiles != files || nowBytes > bytes+64<<10 {
			return fmt.Errorf("images are %d files with %d bytes, and were %d with %d", nowFiles, nowBytes, files, bytes)
		}
		return nil
	})
	if output, err := n.Command(t.Context(), "images", "--verify").CombinedOutput(); err != nil {
		t.Errorf("the store after all that: %v: %s", err, output)
	}
}

// evilImages are what honest registries may hold.
func evilImages(t *testing.T) (misdeeds []*misdeed) {
	made, err := images.Evil()
	must(t, err)
	for name, due := range map[string]*misdeed{
		"escapes":       {},
		"overlay":       {},
		"sizes":         {},
		"hard-link":     {code: codes.FailedPrecondition, words: []string{"stolen", "not there"}},
		"whiteout-root": {code: codes.FailedPrecondition, words: []string{".wh..", "whiteout"}},
		"gzip-bomb":     {code: codes.ResourceExhausted, words: []string{"images.max_unpacked_layer_mb"}},
		"zstd-bomb":     {code: codes.ResourceExhausted, words: []string{"images.max_unpacked_layer_mb"}},
	} {
		due.name, due.image = name, made[name]
		misdeeds = append(misdeeds, due)
	}
	return misdeeds
}

// harmNobody looks at the images that were not refused, from a container and from the host.
func (n *node) harmNobody(address string) {
	n.t.Helper()
	at := func(name string) *cri.Mount { return imageVolume(address+"/"+name+":1", "/"+name, "") }
	p := n.runPod()
	c := p.idle("main", mounted(at("escapes"), at("overlay"), at("sizes")))
	var names []string
	for _, how := range []string{"above", "absolute", "from-the-root", "through-a-link"} {
		names = append(names, images.Escaped+how)
		if _, err := os.Lstat("/" + images.Escaped + how); err == nil {
			n.t.Errorf("the host has the file that an image names %q", how)
		}
	}
	equal(n.t, "the image whose names lead out", c.exec("sh", "-c", "cd /escapes; ls -d a3s*"), strings.Join(names, "\n"))
	equal(n.t, "the image with an overlay's marks", c.exec("sh", "-c", "cd /overlay; find . | sort; cat directory/file"), ".\n./directory\n./directory/file\nown")
	equal(n.t, "the image with two sizes of one file", c.exec("ls", "/sizes"), "outer")
	// The images are in use as long as it is there.
	p.remove()
}

// evilRegistries are what may be between us and honest images.
func evilRegistries(t *testing.T, elsewhere *elsewhere) []*misdeed {
	always := func(status int, header, value string) answer {
		return func(_ *misdeed, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set(header, value)
			w.WriteHeader(status)
		}
	}
	// At one of the documents.
	at := func(what part, does func(w http.ResponseWriter, r *http.Request, body []byte)) answer {
		return func(m *misdeed, w http.ResponseWriter, r *http.Request, truth http.Handler) {
			if !m.isAsked(r, what) {
				truth.ServeHTTP(w, r)
				return
			}
			record := httptest.NewRecorder()
			truth.ServeHTTP(record, r)
			w.Header().Set("Content-Type", record.Header().Get("Content-Type"))
			does(w, r, record.Body.Bytes())
		}
	}
	write := func(change func(body []byte) []byte) func(http.ResponseWriter, *http.Request, []byte) {
		return func(w http.ResponseWriter, _ *http.Request, body []byte) { _, _ = w.Write(change(body)) }
	}
	garbage := write(func([]byte) []byte { return []byte("\x00\xffgarbage{") })
	breaks := func(w http.ResponseWriter, _ *http.Request, body []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body[:len(body)/2])
		panic(http.ErrAbortHandler)
	}
	var broken atomic.Bool
	breaksOnce := func(m *misdeed, w http.ResponseWriter, r *http.Request, truth http.Handler) {
		if m.isAsked(r, layer) && !broken.Swap(true) {
			at(layer, breaks)(m, w, r, truth)
			return
		}
		truth.ServeHTTP(w, r)
	}
	trickles := func(w http.ResponseWriter, r *http.Request, body []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		for _, one := range body {
			_, _ = w.Write([]byte{one})
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	noHTTP := func(_ *misdeed, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		connection, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(connection, "SSH-2.0-OpenSSH\r\n\x00\xff")
			_ = connection.Close()
		}
	}
	circles := func(m *misdeed, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, "/v2/"+strings.TrimPrefix(r.URL.Path, "/v2/a3s-box/"), http.StatusFound)
	}
	misdeeds := []*misdeed{
		{name: "bad-challenge", does: always(http.StatusUnauthorized, "WWW-Authenticate", `Bearer realm="`), code: codes.Unauthenticated, words: []string{"401"}},
		{name: "bad-realm", does: always(http.StatusUnauthorized, "WWW-Authenticate", `Bearer realm="file:///etc/shadow"`), code: codes.Unavailable, words: []string{"token server"}},
		{name: "forbidden", does: always(http.StatusForbidden, "X", "x"), code: codes.PermissionDenied, words: []string{"403"}},
		{name: "not-found", does: always(http.StatusNotFound, "X", "x"), code: codes.NotFound, words: []string{"404"}},
		{name: "busy", does: always(http.StatusTooManyRequests, "Retry-After", "86400"), code: codes.Unavailable, words: []string{"429"}},
		{name: "fails", does: always(http.StatusInternalServerError, "X", "x"), code: codes.Unavailable, words: []string{"500"}},
		{name: "circles", does: circles, code: codes.Unavailable, words: []string{"circles"}},
		{name: "no-http", does: noHTTP, code: codes.Unavailable, words: []string{"manifest"}},
		{name: "breaks", does: at(layer, breaks), code: codes.Unavailable, words: []string{"layer sha256:"}},
		{name: "longer", does: at(layer, write(func(body []byte) []byte { return append(body, 0) })), code: codes.Unavailable, words: []string{"bytes"}},
		{name: "another", does: at(layer, write(func(body []byte) []byte { body[len(body)/2] ^= 1; return body })), code: codes.FailedPrecondition, words: []string{"digest"}},
		{name: "trickles", does: at(layer, trickles), code: codes.Unavailable, words: []string{"images.progress_timeout_s"}},
		{name: "endless", does: at(manifest, write(func([]byte) []byte { return make([]byte, 10<<20) })), code: codes.ResourceExhausted, words: []string{"images.max_manifest_kb"}},
		{name: "garbage-manifest", does: at(manifest, garbage), code: codes.FailedPrecondition, words: []string{"manifest"}},
		{name: "garbage-config", does: at(config, garbage), code: codes.Unavailable, words: []string{"configuration", "digest"}},
		{name: "garbage-layer", does: at(layer, garbage), code: codes.Unavailable, words: []string{"layer sha256:", "bytes"}},
		{name: "breaks-once", does: breaksOnce},
		{name: "elsewhere", does: elsewhere.redirect},
	}
	for number, m := range misdeeds {
		const layers, size = 2, 128 << 10
		var err error
		m.image, err = images.SizedFrom(500+number*layers, layers, size)
		must(t, err)
		name, err := m.image.ConfigName()
		must(t, err)
		built, err := m.image.Layers()
		must(t, err)
		digest, err := built[0].Digest()
		must(t, err)
		m.config, m.layer = name.Hex, digest.Hex
	}
	return misdeeds
}

// misbehaving serves all misdeeds, each as an image of its name, and says where.
func misbehaving(t *testing.T, truth string, misdeeds []*misdeed) string {
	t.Helper()
	byName := map[string]*misdeed{}
	for _, m := range misdeeds {
		byName[m.name] = m
	}
	behind := proxyTo(truth)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/v2/")
		name, _, _ := strings.Cut(path, "/")
		m, known := byName[name]
		r.URL.Path = "/v2/a3s-box/" + path
		switch {
		case !known:
			http.NotFound(w, r)
		case m.does == nil:
			behind.ServeHTTP(w, r)
		default:
			m.does(m, w, r, behind)
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return strings.TrimPrefix(server.URL, "http://")
}

func proxyTo(address string) http.Handler {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address})
	// A client that gave up is no news.
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) {}
	return proxy
}

// elsewhere is another host that has the blobs, and counts who tells it secrets.
type elsewhere struct {
	server      *httptest.Server
	asked, told atomic.Int64
}

func newElsewhere(t *testing.T, truth string) *elsewhere {
	e, behind := &elsewhere{}, proxyTo(truth)
	e.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.asked.Add(1)
		if r.Header.Get("Authorization") != "" {
			e.told.Add(1)
		}
		behind.ServeHTTP(w, r)
	}))
	t.Cleanup(e.server.Close)
	return e
}

// redirect sends those who have said who they are to the other host.
func (e *elsewhere) redirect(_ *misdeed, w http.ResponseWriter, r *http.Request, truth http.Handler) {
	switch {
	case r.Header.Get("Authorization") == "":
		w.Header().Set("WWW-Authenticate", "Basic realm=here")
		w.WriteHeader(http.StatusUnauthorized)
	case strings.Contains(r.URL.Path, "/blobs/"):
		http.Redirect(w, r, e.server.URL+r.URL.Path, http.StatusTemporaryRedirect)
	default:
		truth.ServeHTTP(w, r)
	}
}
