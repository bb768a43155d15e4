package images

import (
	"bytes"
	"io"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Indexed is an index of images for other machines and of an index in docker's form, which has the image for this one. That has a layer
// in each form of compression.
func Indexed() (v1.ImageIndex, v1.Image, error) {
	wanted, err := eachCompression()
	if err != nil {
		return nil, nil, err
	}
	strange, err := SizedFrom(400, 1, 1000)
	if err != nil {
		return nil, nil, err
	}
	add := func(index v1.ImageIndex, made mutate.Appendable, os, architecture, variant string) v1.ImageIndex {
		platform := &v1.Platform{OS: os, Architecture: architecture, Variant: variant}
		return mutate.AppendManifests(index, mutate.IndexAddendum{Add: made, Descriptor: v1.Descriptor{Platform: platform}})
	}
	inner := mutate.IndexMediaType(empty.Index, types.DockerManifestList)
	inner = add(inner, strange, "linux", "386", "")
	inner = add(inner, strange, "linux", "amd64", "v4")
	inner = add(inner, wanted, "linux", "amd64", "")
	outer := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	outer = add(outer, strange, "unknown", "unknown", "")
	outer = add(outer, strange, "windows", "amd64", "")
	outer = add(outer, strange, "linux", "arm64", "v8")
	return mutate.AppendManifests(outer, mutate.IndexAddendum{Add: inner}), wanted, nil
}

// eachCompression is an image with a layer as gzip, one as zstd and one that is not compressed.
func eachCompression() (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, kind := range []types.MediaType{types.OCILayer, types.OCILayerZStd, types.OCIUncompressedLayer} {
		l := newLayer().file(string(kind), "content", 0o644)
		if err := l.close(); err != nil {
			return nil, err
		}
		layer, err := compressed(l.buffer.Bytes(), kind)
		if err != nil {
			return nil, err
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return nil, err
		}
	}
	return mutate.Config(image, v1.Config{Cmd: []string{"none"}})
}

func compressed(stream []byte, kind types.MediaType) (v1.Layer, error) {
	how := compression.GZip
	switch kind {
	case types.OCIUncompressedLayer:
		return static.NewLayer(stream, kind), nil
	case types.OCILayerZStd:
		how = compression.ZStd
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(stream)), nil }
	return tarball.LayerFromOpener(open, tarball.WithCompression(how), tarball.WithMediaType(kind))
}
