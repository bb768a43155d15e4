package images

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// All files have this time, so that an image's digest says what is in it and nothing else.
var modified = time.Unix(1_700_000_000, 0).UTC()

// layer is a tar stream being written. The first error is kept and reported by build.
type layer struct {
	// What build reads; nothing if the stream goes elsewhere.
	buffer *bytes.Buffer
	tar    *tar.Writer
	dirs   map[string]bool
	err    error
}

func newLayer() *layer {
	buffer := new(bytes.Buffer)
	l := layerTo(buffer)
	l.buffer = buffer
	return l
}

// layerTo is a layer whose stream is not kept, and ended by close.
func layerTo(out io.Writer) *layer {
	return &layer{tar: tar.NewWriter(out), dirs: map[string]bool{".": true, "/": true}}
}

func (l *layer) add(header tar.Header, content []byte) *layer {
	header.Size = int64(len(content))
	return l.stream(header, bytes.NewReader(content))
}

// stream adds an entry of the header's size, and its parents.
func (l *layer) stream(header tar.Header, content io.Reader) *layer {
	if parent := path.Dir(header.Name); !l.dirs[parent] {
		l.dir(parent, 0o755)
	}
	header.ModTime = modified
	return l.write(header, content)
}

// entry writes an entry as it is, without parents.
func (l *layer) entry(header tar.Header, content []byte) *layer {
	header.Size = int64(len(content))
	return l.write(header, bytes.NewReader(content))
}

func (l *layer) write(header tar.Header, content io.Reader) *layer {
	header.Format = tar.FormatPAX
	if l.err == nil {
		l.err = l.tar.WriteHeader(&header)
	}
	if l.err == nil {
		_, l.err = io.Copy(l.tar, content)
	}
	return l
}

func (l *layer) dir(name string, mode int64) *layer {
	if l.dirs[name] {
		return l
	}
	l.dirs[name] = true
	return l.add(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, nil)
}

func (l *layer) file(name, content string, mode int64) *layer {
	return l.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, []byte(content))
}

// copy adds a file of the host under another name.
func (l *layer) copy(name, source string, mode int64) *layer {
	content, err := os.ReadFile(source)
	if err != nil && l.err == nil {
		l.err = err
	}
	return l.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, content)
}

func (l *layer) hardLink(name, target string) *layer {
	return l.add(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o755}, nil)
}

func (l *layer) symlink(name, target string) *layer {
	return l.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

// whiteout hides a file of the layers below.
func (l *layer) whiteout(name string) *layer {
	return l.file(path.Join(path.Dir(name), ".wh."+path.Base(name)), "", 0o644)
}

// opaque hides all that the layers below have in a directory.
func (l *layer) opaque(name string) *layer {
	return l.dir(name, 0o755).file(path.Join(name, ".wh..wh..opq"), "", 0o644)
}

// capped adds a file with the capability cap_net_raw.
func (l *layer) capped(name string) *layer {
	return l.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, PAXRecords: netRaw()}, []byte("#!/bin/sh\n"))
}

// netRaw is the capability cap_net_raw, permitted and effective: struct vfs_cap_data, revision 2.
func netRaw() map[string]string {
	const effective, revision2, netRaw = 1, 2, 13
	attribute := [20]byte{0: effective, 3: revision2}
	binary.LittleEndian.PutUint32(attribute[4:], 1<<netRaw)
	return map[string]string{"SCHILY.xattr.security.capability": string(attribute[:])}
}

func (l *layer) build() (v1.Layer, error) {
	if err := l.close(); err != nil {
		return nil, err
	}
	return layerOf(l.buffer.Bytes())
}

// bytes is the stream of a layer that cannot fail.
func (l *layer) bytes() []byte {
	if err := l.close(); err != nil {
		panic(err)
	}
	return l.buffer.Bytes()
}

func (l *layer) close() error {
	if l.err == nil {
		l.err = l.tar.Close()
	}
	if l.err != nil {
		return fmt.Errorf("layer: %w", l.err)
	}
	return nil
}

// layerOf is a layer with such a tar stream.
func layerOf(stream []byte) (v1.Layer, error) {
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(stream)), nil }
	return tarball.LayerFromOpener(open, tarball.WithCompressedCaching, tarball.WithMediaType(types.OCILayer))
}
