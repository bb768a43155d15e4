package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/images"
	"a3s.box/tests/registry"
)

// Whenever the frontend is killed during a pull, the next one removes what is half-made, and pulls the image.
func TestFrontendKilledDuringAPull(t *testing.T) {
	n := onNode(t)
	const layers, size, moments = 4, 1 << 20, 20
	image, err := images.Sized(layers, size)
	must(t, err)
	must(t, registry.Push(t.Context(), n.Registry(), "host/a3s-box/killed:1", image))
	stall := registry.NewStall(n.Registry())
	t.Cleanup(stall.Close)
	spec := &cri.ImageSpec{Image: stall.Address() + "/a3s-box/killed:1"}
	// An empty store has no index yet.
	n.pull(images.Busybox)
	files := n.imageInodes()

	random := rand.New(rand.NewPCG(9, 20))
	for range moments {
		// A few lie just behind the last byte, while layers are written.
		moment := random.Int64N(layers*size + layers*size/8)
		reached, release := stall.After(moment)
		pulled := make(chan error, 1)
		service := n.Images
		go func() {
			_, err := service.PullImage(t.Context(), spec, nil, nil)
			pulled <- err
		}()
		select {
		case <-reached:
		case <-pulled:
		case <-time.After(patience):
			t.Fatalf("no byte %d, and no end of the pull", moment)
		}
		must(t, n.Kill())
		release()
		must(t, n.Restart(t.Context()))
		found, err := n.Images.ImageStatus(t.Context(), spec, false)
		must(t, err)
		if found.Image != nil {
			// It was whole just before the end.
			must(t, n.Images.RemoveImage(t.Context(), spec))
		}
		if left := n.imageInodes(); left != files {
			t.Fatalf("killed at byte %d: images have %d files, and had %d before", moment, left, files)
		}
	}
	n.pull(spec.Image)
	if output, err := n.Command(t.Context(), "images", "--verify").CombinedOutput(); err != nil {
		t.Errorf("the store after all that: %v: %s", err, output)
	}
	contains(t, "the image", listImage(n, spec.Image), fmt.Sprintf("layer-%d", layers-1))
	must(t, n.Images.RemoveImage(t.Context(), spec))
}

// listImage is what an image has in its root directory.
func listImage(n *node, image string) string {
	n.t.Helper()
	return n.runPod().idle("main", mounted(imageVolume(image, "/image", ""))).exec("ls", "/image")
}

func TestPullsAtOnceFetchEachBlobOnce(t *testing.T) {
	n := onNode(t)
	const layers, callers = 4, 3
	image, err := images.SizedFrom(100, layers, 256<<10)
	must(t, err)
	must(t, registry.Push(t.Context(), n.Registry(), "host/a3s-box/together:1", image))
	stall := registry.NewStall(n.Registry())
	t.Cleanup(stall.Close)
	spec := &cri.ImageSpec{Image: stall.Address() + "/a3s-box/together:1"}
	reached, release := stall.After(100 << 10)
	go func() {
		<-reached
		release()
	}()
	var errs [callers]error
	together(callers, func(caller int) { _, errs[caller] = n.Images.PullImage(t.Context(), spec, nil, nil) })
	for _, err := range errs {
		must(t, err)
	}
	equal(t, "blobs asked for", stall.Blobs(), layers+1)
	must(t, n.Images.RemoveImage(t.Context(), spec))
}

func TestLayersOfAPullComeThreeAtOnce(t *testing.T) {
	n := onNode(t)
	const layers, most = 8, 3
	image, err := images.SizedFrom(200, layers, 10<<10)
	must(t, err)
	must(t, registry.Push(t.Context(), n.Registry(), "host/a3s-box/parallel:1", image))
	digests, err := image.Layers()
	must(t, err)
	layer := map[string]bool{}
	for _, one := range digests {
		digest, err := one.Digest()
		must(t, err)
		layer["/v2/a3s-box/parallel/blobs/"+digest.String()] = true
	}
	var lock sync.Mutex
	var now, peak int
	asks := func(more int) {
		lock.Lock()
		defer lock.Unlock()
		now += more
		peak = max(peak, now)
	}
	// Nobody has his layer before as many have asked as may.
	full := make(chan struct{})
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: n.Registry()})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if layer[r.URL.Path] {
			asks(1)
			select {
			case <-full:
			case <-r.Context().Done():
			}
			// Before it is served: who has his layer asks for the next.
			asks(-1)
		}
		behind.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	spec := &cri.ImageSpec{Image: strings.TrimPrefix(server.URL, "http://") + "/a3s-box/parallel:1"}
	pulled := make(chan error, 1)
	go func() { pulled <- firstError(n.Images.PullImage(t.Context(), spec, nil, nil)) }()
	looks := 0
	n.until("layers to be asked for, and a while no more", func() error {
		lock.Lock()
		defer lock.Unlock()
		if peak >= most {
			looks++
		}
		if looks < 10 {
			return fmt.Errorf("%d are", peak)
		}
		return nil
	})
	close(full)
	must(t, <-pulled)
	equal(t, "layers that were asked for at once (images.parallel_layers)", peak, most)
	must(t, n.Images.RemoveImage(t.Context(), spec))
}
