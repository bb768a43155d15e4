package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/images"
	"a3s.box/tests/registry"
)

// Twenty images in which each has two layers of each neighbour's three. Whatever goes first, what is left on disk is what the images
// need that are left.
func TestImagesThatShareLayersFreeExactlyTheRest(t *testing.T) {
	n := onNode(t)
	const count, each, size = 20, 3, 128 << 10
	var references []string
	for number := range count {
		reference := fmt.Sprintf("%s/a3s-box/shared:%d", images.Host, number)
		image, err := images.SizedFrom(number, each, size)
		must(t, err)
		must(t, registry.Push(t.Context(), n.Registry(), reference, image))
		references = append(references, reference)
	}
	empty, files := n.imageBytes(), n.imageInodes()
	together(count, func(number int) { n.pull(references[number]) })
	order := rand.New(rand.NewPCG(4, 20)).Perm(count)
	left := slices.Repeat([]bool{true}, count)
	for _, number := range order {
		must(t, n.Images.RemoveImage(t.Context(), &cri.ImageSpec{Image: references[number]}))
		left[number] = false
		needed := map[int]bool{}
		for kept := range count {
			for layer := kept; left[kept] && layer < kept+each; layer++ {
				needed[layer] = true
			}
		}
		// Beside its file a layer has its tree's; an image has its manifest and configuration.
		took, least := n.imageBytes()-empty, uint64(len(needed)*size)
		if most := least + uint64(len(needed))*(16<<10) + count*(16<<10); took < least || took > most {
			t.Fatalf("%d layers are needed, and the images take %d bytes", len(needed), took)
		}
	}
	// A directory that once had many entries stays longer.
	equal(t, "files when all are removed", n.imageInodes(), files)
}
