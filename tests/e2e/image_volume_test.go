package e2e

import (
	"fmt"
	"regexp"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
	"a3s.box/tests/registry"
)

// An image that only a volume uses outlives its names and the frontend, and goes with the container.
func TestImageOfAVolumeIsInUseUntilItsContainerIsRemoved(t *testing.T) {
	n := onNode(t)
	const reference = images.Host + "/a3s-box/volume:1"
	const size = 12 << 20
	image, err := images.Sized(2, size)
	must(t, err)
	must(t, registry.Push(t.Context(), n.Registry(), reference, image))
	n.pull(images.Busybox)
	before := n.imageBytes()
	id := n.pull(reference)
	p := n.runPod()
	config := fixture.ContainerConfig("main", images.Busybox, "sleep", "3600")
	config.Mounts = []*cri.Mount{imageVolume(reference, "/image", "")}
	c := p.create(config)
	for _, mount := range c.status().Mounts {
		equal(t, "image", mount.Image.GetImage(), reference)
		equal(t, "image_ref", mount.Image.GetImageRef(), id)
	}

	must(t, n.Images.RemoveImage(t.Context(), &cri.ImageSpec{Image: reference}))
	must(t, n.Kill())
	must(t, n.Restart(t.Context()))
	must(t, n.Runtime.StartContainer(t.Context(), c.id))
	contains(t, "the volume", c.exec("ls", "/image"), "layer-0", "layer-1")
	table, err := n.Command(t.Context(), "images").CombinedOutput()
	must(t, err)
	if user := regexp.MustCompile(`(?m)^<removed> .* ` + c.id[:13] + `$`); !user.Match(table) {
		t.Errorf("the table of images does not show what uses the volume's: %s", table)
	}
	if now := n.imageBytes(); now < before+2*size {
		t.Errorf("%d bytes of images are left of %d", now, before+2*size)
	}
	// The guest has what it read twice for a while only.
	cached := c.cached()
	c.exec("sh", "-c", "cat /image/layer-0 >/dev/null")
	n.until("the second copy of a layer to be freed", func() error {
		// Less than all of it: what was read twice before went too.
		if more := c.cached() - cached; more < size/2 || more > size+size/2 {
			return fmt.Errorf("the guest keeps %d bytes more after it has read %d", more, size)
		}
		return nil
	})
	must(t, n.Runtime.StopContainer(t.Context(), c.id, 0))
	must(t, n.Runtime.RemoveContainer(t.Context(), c.id))
	n.until("the image to be freed", func() error {
		if now := n.imageBytes(); now > before {
			return fmt.Errorf("the images take %d bytes, and took %d before", now, before)
		}
		return nil
	})
}

// cached is how many bytes of files the guest keeps in memory.
func (c *container) cached() int {
	c.t.Helper()
	var kb int
	_, err := fmt.Sscanf(c.exec("grep", "^Cached:", "/proc/meminfo"), "Cached: %d kB", &kb)
	must(c.t, err)
	return kb << 10
}

// imageInodes is how many files and directories ImageFsInfo says that images take.
func (n *node) imageInodes() uint64 {
	n.t.Helper()
	info, err := n.Images.ImageFsInfo(n.t.Context())
	must(n.t, err)
	return info.ImageFilesystems[0].InodesUsed.GetValue()
}

// imageBytes is what ImageFsInfo says that images take.
func (n *node) imageBytes() uint64 {
	n.t.Helper()
	info, err := n.Images.ImageFsInfo(n.t.Context())
	must(n.t, err)
	return info.ImageFilesystems[0].UsedBytes.GetValue()
}
