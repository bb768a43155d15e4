package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
	"a3s.box/tests/registry"
)

const (
	crowd = 1_000_000
	// As many entries as a layer may have where that is too many.
	allowed = 20_000
	// The most that the frontend takes, MiB: a name and what is known of it are 150 bytes.
	mostRefusing = 40
	mostPulling  = mostRefusing + crowd*150>>20
)

// A million files are an image like another one, or more than a node allows; the frontend stays small over both.
func TestImageOfManyFiles(t *testing.T) {
	image, err := images.Crowded(t.TempDir(), crowd)
	must(t, err)
	reference := images.Host + "/a3s-box/crowded:1"
	n := ownNode(t, fixture.Options{Config: fixture.Config{"images.max_layer_entries": allowed}})
	must(t, registry.Push(t.Context(), n.Registry(), reference, image))
	_, err = n.Images.PullImage(t.Context(), &cri.ImageSpec{Image: reference}, nil, nil)
	refused(t, err, codes.ResourceExhausted, reference, "images.max_layer_entries", fmt.Sprint(allowed))
	if peak := n.peakMB(); peak > mostRefusing {
		t.Errorf("the frontend took %d MiB", peak)
	}
	// The index of an empty store is a file.
	if bytes := n.imageBytes(); bytes > 64<<10 {
		t.Errorf("%d bytes are left", bytes)
	}

	n = onNode(t)
	n.pull(reference)
	if peak := n.peakMB(); peak > mostPulling {
		t.Errorf("the frontend took %d MiB", peak)
	}
	c := n.runPod().idle("main", mounted(imageVolume(reference, "/image", "")))
	equal(t, "directories and files of the last", c.exec("sh", "-c", "cd /image; ls | wc -l; cd $(ls | sort -n | tail -1); ls | wc -l; ls | sort -n | tail -1"), fmt.Sprintf("%d\n1000\n%d", crowd/1000, crowd-1))
	must(t, n.Images.RemoveImage(t.Context(), &cri.ImageSpec{Image: reference}))
}

// peakMB is the most memory that the frontend has had, MiB.
func (n *node) peakMB() int {
	n.t.Helper()
	for line := range strings.Lines(mustRead(n.t, fmt.Sprintf("/proc/%d/status", n.FrontendPID()))) {
		if value, found := strings.CutPrefix(line, "VmHWM:"); found {
			kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			must(n.t, err)
			return kb / 1024
		}
	}
	n.t.Fatal("the frontend has no VmHWM")
	return 0
}
