package e2e

import (
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/images"
	"a3s.box/tests/registry"
)

// One image by three tags and two registries, one of them at an IPv6 address: it has all their names, is found by any form of each, and
// goes with all of them by any.
func TestImageIsFoundAndRemovedByEachOfItsNames(t *testing.T) {
	n := onNode(t)
	image, err := images.SizedFrom(300, 1, 1000)
	must(t, err)
	for _, tag := range []string{"1", "2"} {
		must(t, registry.Push(t.Context(), n.Registry(), images.Host+"/a3s-box/named:"+tag, image))
	}
	// What docker.io/library/named is by the tests' mirror.
	must(t, registry.Push(t.Context(), n.Registry(), "docker.io/library/named:latest", image))
	digest, err := image.Digest()
	must(t, err)
	config, err := image.ConfigName()
	must(t, err)
	manifest, err := image.RawManifest()
	must(t, err)
	configFile, err := image.RawConfigFile()
	must(t, err)
	layers, err := image.Layers()
	must(t, err)
	size, err := layers[0].Size()
	must(t, err)

	v6 := onIPv6(t, n.Registry()) + "/a3s-box/named"
	host, id := images.Host+"/a3s-box/named", config.String()
	tags := []string{host + ":1", host + ":2", v6 + ":1", "docker.io/library/named:latest"}
	byDigest := []string{host + "@" + digest.String(), v6 + "@" + digest.String(), "docker.io/library/named@" + digest.String()}
	pullAll := func() {
		t.Helper()
		for _, name := range []string{host + ":1", host + ":2", v6 + ":1", "named"} {
			equal(t, "the id by "+name, n.pull(name), id)
		}
	}
	pullAll()
	names := slices.Concat(tags, byDigest, []string{
		host + ":1@" + digest.String(), host + ":absent@" + digest.String(), "named", "named:latest", "docker.io/named", "index.docker.io/library/named",
		"named@" + digest.String(), "named:1@" + digest.String(), id, config.Hex, config.Hex[:12], "sha256:" + config.Hex[:12],
	})
	for _, name := range names {
		found, err := n.Images.ImageStatus(t.Context(), &cri.ImageSpec{Image: name}, false)
		must(t, err)
		if found.Image == nil {
			t.Errorf("%s is not found", name)
			continue
		}
		equal(t, "id of "+name, found.Image.Id, id)
		equal(t, "size", found.Image.Size, uint64(len(manifest)+len(configFile))+uint64(size))
		same(t, "tags", found.Image.RepoTags, tags)
		same(t, "digests", found.Image.RepoDigests, byDigest)
	}
	for _, name := range []string{host, host + ":3", "named:1", "library/other", digest.String(), id[:len(id)-1] + "x"} {
		found, err := n.Images.ImageStatus(t.Context(), &cri.ImageSpec{Image: name}, false)
		must(t, err)
		if found.Image != nil {
			t.Errorf("%s is %v", name, found.Image)
		}
		must(t, n.Images.RemoveImage(t.Context(), &cri.ImageSpec{Image: name}))
	}
	for _, name := range []string{tags[0], v6 + ":1", byDigest[0], host + ":1@" + digest.String(), "named", id, config.Hex, config.Hex[:12], "sha256:" + config.Hex[:12]} {
		pullAll()
		must(t, n.Images.RemoveImage(t.Context(), &cri.ImageSpec{Image: name}))
		left, err := n.Images.ListImages(t.Context(), nil)
		must(t, err)
		if slices.ContainsFunc(left, func(image *cri.Image) bool { return image.Id == id }) {
			t.Errorf("the image is still there when it was removed by %s", name)
		}
	}
	for _, name := range []string{"", "UPPER", "a b", "x:"} {
		_, err := n.Images.PullImage(t.Context(), &cri.ImageSpec{Image: name}, nil, nil)
		refused(t, err, codes.InvalidArgument)
	}
}

// onIPv6 serves a registry at ::1 too, and says where.
func onIPv6(t *testing.T, address string) string {
	t.Helper()
	listener, err := net.Listen("tcp6", "[::1]:0")
	must(t, err)
	server := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address}))
	must(t, server.Listener.Close())
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// same compares names without their order.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}
