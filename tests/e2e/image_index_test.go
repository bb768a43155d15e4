package e2e

import (
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/images"
	"a3s.box/tests/registry"
)

// The image for this machine is found in an index of an index, and has all its layers, however they are compressed.
func TestImageOfANestedIndex(t *testing.T) {
	n := onNode(t)
	index, wanted, err := images.Indexed()
	must(t, err)
	const reference = images.Host + "/a3s-box/indexed:1"
	must(t, registry.PushIndex(t.Context(), n.Registry(), reference, index))
	config, err := wanted.ConfigName()
	must(t, err)
	digest, err := index.Digest()
	must(t, err)
	equal(t, "the id", n.pull(reference), config.String())
	found, err := n.Images.ImageStatus(t.Context(), &cri.ImageSpec{Image: reference}, false)
	must(t, err)
	same(t, "tags", found.Image.RepoTags, []string{reference})
	same(t, "digests", found.Image.RepoDigests, []string{images.Host + "/a3s-box/indexed@" + digest.String()})
	if output, err := n.Command(t.Context(), "images", "--verify").CombinedOutput(); err != nil {
		t.Errorf("verify: %v: %s", err, output)
	}
	must(t, n.Images.RemoveImage(t.Context(), &cri.ImageSpec{Image: reference}))
}
