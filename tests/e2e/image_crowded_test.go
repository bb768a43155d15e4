package e2e

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
	"a3s.box/tests/registry"
)

// How many files the crowded image has, in thousands.
const crowdVariable = "A3S_BOX_TEST_THOUSANDS_OF_FILES"

// Many files are an image like another one, or more than a node allows; the frontend stays small over both.
func TestImageOfManyFiles(t *testing.T) {
	thousands, err := strconv.Atoi(cmp.Or(os.Getenv(crowdVariable), "50"))
	must(t, err)
	files := thousands * 1000
	// A name and what is known of it: 150 bytes.
	most := 40 + thousands*150/1000
	image, err := images.Crowded(t.TempDir(), files)
	must(t, err)
	reference := images.Host + "/a3s-box/crowded:1"
	n := ownNode(t, fixture.Options{Config: fixture.Config{"images.max_layer_entries": files}})
	must(t, registry.Push(t.Context(), n.Registry(), reference, image))
	_, err = n.Images.PullImage(t.Context(), &cri.ImageSpec{Image: reference}, nil, nil)
	refused(t, err, codes.ResourceExhausted, reference, "images.max_layer_entries", fmt.Sprint(files))
	if peak := n.peakMB(); peak > most {
		t.Errorf("the frontend took %d MiB", peak)
	}
	// The index of an empty store is a file.
	if bytes := n.imageBytes(); bytes > 64<<10 {
		t.Errorf("%d bytes are left", bytes)
	}

	n = onNode(t)
	n.pull(reference)
	if peak := n.peakMB(); peak > most {
		t.Errorf("the frontend took %d MiB", peak)
	}
	c := n.runPod().idle("main", mounted(imageVolume(reference, "/image", "")))
	equal(t, "directories and files of the last", c.exec("sh", "-c", "cd /image; ls | wc -l; cd $(ls | sort -n | tail -1); ls | wc -l; ls | sort -n | tail -1"), fmt.Sprintf("%d\n1000\n%d", thousands, files-1))
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
