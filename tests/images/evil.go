package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Escaped begins the names of the files by which an evil image would leave its root.
const Escaped = "a3s-box-escaped-"

// BombMB is what the bombs of Evil unpack to.
const BombMB = 96

// Evil is images that no builder makes, by what is wrong with them.
func Evil() (map[string]v1.Image, error) {
	bomb := bytes.NewBuffer(nil)
	bombed := layerTo(bomb).add(regular("zeros", 0o644), make([]byte, BombMB<<20))
	layers := map[string]struct {
		stream []byte
		kind   types.MediaType
		err    error
	}{
		"escapes":       {escapes().bytes(), types.OCILayer, nil},
		"hard-link":     {newLayer().hardLink("stolen", "../../../../../../etc/passwd").bytes(), types.OCILayer, nil},
		"overlay":       {overlayAttributes().bytes(), types.OCILayer, nil},
		"whiteout-root": {newLayer().entry(regular("./.wh..", 0o644), nil).bytes(), types.OCILayer, nil},
		"sizes":         {twoSizes(), types.OCILayer, nil},
		"gzip-bomb":     {nil, types.OCILayer, bombed.close()},
		"zstd-bomb":     {nil, types.OCILayerZStd, nil},
	}
	made := map[string]v1.Image{}
	for name, layer := range layers {
		if layer.err != nil {
			return nil, layer.err
		}
		if layer.stream == nil {
			layer.stream = bomb.Bytes()
		}
		built, err := compressed(layer.stream, layer.kind)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
		if made[name], err = mutate.AppendLayers(base, built); err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
	}
	return made, nil
}

// escapes has names and links that lead out of the image's root, taken by the letter.
func escapes() *layer {
	file := func(l *layer, name string) *layer { return l.entry(regular(name, 0o644), []byte(name)) }
	l := file(newLayer(), strings.Repeat("../", 20)+Escaped+"above")
	file(l, "/tmp/../"+Escaped+"absolute")
	l.entry(tar.Header{Typeflag: tar.TypeSymlink, Name: "up", Linkname: strings.Repeat("../", 20), ModTime: modified}, nil)
	file(l, "up/"+Escaped+"through-a-link")
	l.entry(tar.Header{Typeflag: tar.TypeSymlink, Name: "root", Linkname: "/", ModTime: modified}, nil)
	return file(l, "root/"+Escaped+"from-the-root")
}

// overlayAttributes says what an overlay would take for its own marks.
func overlayAttributes() *layer {
	marks := map[string]string{}
	for name, value := range map[string]string{"redirect": "/dev", "opaque": "y", "metacopy": "", "origin": ""} {
		marks["SCHILY.xattr.trusted.overlay."+name] = value
	}
	return newLayer().
		entry(tar.Header{Typeflag: tar.TypeDir, Name: "directory", Mode: 0o755, ModTime: modified, PAXRecords: marks}, nil).
		entry(tar.Header{Typeflag: tar.TypeReg, Name: "directory/file", Mode: 0o644, ModTime: modified, PAXRecords: marks}, []byte("own"))
}

// twoSizes has a file whose headers differ in its size: who believes the older one takes its content for another file (CVE-2025-62518).
func twoSizes() []byte {
	hidden := rawEntry("hidden", tar.TypeReg, 0, nil)
	record := fmt.Sprintf("12 size=%d\n", len(hidden))
	stream := rawEntry("pax", tar.TypeXHeader, len(record), []byte(record))
	stream = append(stream, rawEntry("outer", tar.TypeReg, 0, hidden)...)
	return append(stream, make([]byte, 1024)...)
}

// rawEntry is an entry with such a size in its header, whatever its content.
func rawEntry(name string, kind byte, size int, content []byte) []byte {
	const block, sum = 512, 148
	header := make([]byte, block)
	copy(header, name)
	copy(header[100:], "0000644\x000000000\x000000000\x00"+fmt.Sprintf("%011o\x00%011o\x00        ", size, modified.Unix()))
	header[156] = kind
	copy(header[257:], "ustar\x0000")
	total := 0
	for _, value := range header {
		total += int(value)
	}
	copy(header[sum:], fmt.Sprintf("%06o\x00 ", total))
	padding := (block - len(content)%block) % block
	return append(append(header, content...), make([]byte, padding)...)
}
