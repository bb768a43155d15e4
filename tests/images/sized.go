package images

import (
	"fmt"
	"math/rand/v2"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// Sized is an image of that many layers, each one file "layer-N" of as many bytes, which do not compress.
func Sized(layers, bytes int) (v1.Image, error) {
	return SizedFrom(0, layers, bytes)
}

// SizedFrom is Sized with layers counted from another number: images share the layers of the same number and size.
func SizedFrom(first, layers, bytes int) (v1.Image, error) {
	var made []v1.Layer
	for number := first; number < first+layers; number++ {
		built, err := newLayer().file(fmt.Sprintf("layer-%d", number), noise(number, bytes), 0o644).build()
		if err != nil {
			return nil, err
		}
		made = append(made, built)
	}
	image, err := mutate.AppendLayers(empty.Image, made...)
	if err != nil {
		return nil, err
	}
	return mutate.Config(image, v1.Config{Cmd: []string{fmt.Sprintf("image-%d-%d", first, layers)}})
}

// noise is the same bytes for the same number.
func noise(number, bytes int) string {
	content := make([]byte, bytes)
	_, _ = rand.NewChaCha8([32]byte{byte(number), byte(number >> 8)}).Read(content)
	return string(content)
}
