package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Unpacked makes images whose layers do to each other what layers can. Their program lists all files, to be compared with what
// another runtime makes of the same layers. The cache is a directory for the program.
func Unpacked(cache string) ([]Image, error) {
	program, err := staticProgram("list", cache)
	if err != nil {
		return nil, err
	}
	listed := func(l *layer) *layer { return l.copy("list", program, 0o755) }
	sparse, err := sparseLayer()
	if err != nil {
		return nil, err
	}
	var made []Image
	for _, description := range []struct {
		name   string
		layers []*layer
		top    []v1.Layer
	}{
		{"unpacked-files", []*layer{listed(strangeFiles())}, []v1.Layer{sparse}},
		{"unpacked-layers", []*layer{listed(below()), changes(), moreChanges()}, nil},
		{"unpacked-repeated", []*layer{listed(newLayer()), repeated()}, nil},
		{"unpacked-opaque-root", []*layer{below(), listed(opaqueRoot())}, nil},
	} {
		bottom, err := description.layers[0].build()
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", description.name, err)
		}
		config := v1.Config{Entrypoint: []string{"/list"}}
		image, err := assemble(config, bottom, description.layers[1:], description.top...)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", description.name, err)
		}
		made = append(made, Image{[]string{Host + "/a3s-box/" + description.name + ":1"}, image})
	}
	return made, nil
}

func directory(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, ModTime: modified}
}

func regular(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, ModTime: modified}
}

// strangeFiles has one file of each kind that a file system can have.
func strangeFiles() *layer {
	l := newLayer().dir("data", 0o755)
	at := func(seconds, nanoseconds int64) time.Time { return time.Unix(seconds, nanoseconds) }
	for _, header := range []tar.Header{
		regular("data/setuid", 0o4755),
		regular("data/setgid", 0o2755),
		regular("data/unreadable", 0),
		directory("data/sticky", 0o1777),
		directory("data/setgid-directory", 0o2770),
		{Typeflag: tar.TypeReg, Name: "data/large-ids", Mode: 0o640, Uid: 70_000, Gid: 4_000_000_000, ModTime: modified},
		{Typeflag: tar.TypeReg, Name: "data/before-1970", Mode: 0o644, ModTime: at(-1000, 0)},
		{Typeflag: tar.TypeReg, Name: "data/in-1970", Mode: 0o644, ModTime: at(0, 0)},
		{Typeflag: tar.TypeReg, Name: "data/nanoseconds", Mode: 0o644, ModTime: at(1_600_000_000, 123_456_789)},
		{Typeflag: tar.TypeReg, Name: "data/in-2200", Mode: 0o644, ModTime: at(7_258_118_400, 5)},
		{Typeflag: tar.TypeReg, Name: "data/in-2400", Mode: 0o644, ModTime: at(13_569_465_600, 0)},
		{Typeflag: tar.TypeChar, Name: "data/null", Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: modified},
		{Typeflag: tar.TypeChar, Name: "data/large-minor", Mode: 0o600, Devmajor: 5, Devminor: 70_000, ModTime: modified},
		{Typeflag: tar.TypeBlock, Name: "data/loop", Mode: 0o660, Gid: 6, Devmajor: 7, Devminor: 1, ModTime: modified},
		{Typeflag: tar.TypeFifo, Name: "data/fifo", Mode: 0o600, ModTime: at(1_500_000_000, 0)},
		{Typeflag: tar.TypeSymlink, Name: "data/dangling", Linkname: "../nowhere/\xff", Mode: 0o600, Uid: 5, ModTime: at(1_400_000_000, 1)},
		regular("data/not-utf8-\xff\xfe", 0o644),
		regular("data/new\nline\tand \\ quote\"", 0o644),
		regular("data/"+strings.Repeat("n", 255), 0o644),
		regular("data/"+strings.Repeat(strings.Repeat("p", 200)+"/", 15)+"deep", 0o644),
		{Typeflag: tar.TypeSymlink, Name: "data/long-target", Linkname: strings.Repeat("t/", 1000), Mode: 0o777, ModTime: modified},
		{Typeflag: tar.TypeReg, Name: "data/attributes", Mode: 0o644, ModTime: modified, PAXRecords: map[string]string{
			"SCHILY.xattr.user.text":   "value",
			"SCHILY.xattr.user.binary": "\x01=\n\xff",
			"SCHILY.xattr.user.large":  strings.Repeat("x", 3000),
		}},
		{Typeflag: tar.TypeDir, Name: "data/directory-attributes", Mode: 0o750, Uid: 3, ModTime: at(1_300_000_000, 7), PAXRecords: map[string]string{
			"SCHILY.xattr.user.of": "a directory",
		}},
	} {
		var content []byte
		if header.Typeflag == tar.TypeReg {
			content = []byte("content of " + header.Name)
		}
		l.entry(header, content)
	}
	large := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	l.entry(regular("data/large", 0o644), large).entry(regular("data/empty", 0o644), nil)
	l.capped("data/capped").dir("data/other/directory", 0o700)
	// As every image builder writes it, with the attributes: containerd sets the owner again, and with it the kernel drops capabilities.
	return l.entry(tar.Header{Typeflag: tar.TypeLink, Name: "data/other/directory/link", Linkname: "data/capped", Mode: 0o755, ModTime: modified, PAXRecords: netRaw()}, nil).
		entry(tar.Header{Typeflag: tar.TypeLink, Name: "data/link-to-link", Linkname: "data/dangling", Mode: 0o600, Uid: 5, ModTime: at(1_400_000_000, 1)}, nil)
}

// sparseLayer has files with holes, as GNU tar writes them.
func sparseLayer() (v1.Layer, error) {
	dir, err := os.MkdirTemp("", "sparse-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"sparse-holes", "sparse-end"} {
		if err := sparseFile(filepath.Join(dir, name), name == "sparse-holes"); err != nil {
			return nil, err
		}
	}
	command := exec.Command("tar", "--create", "--sparse", "--format=posix", "--owner=0", "--group=0", "--mtime=@1600000000",
		"--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f", "--directory="+dir, "sparse-holes", "sparse-end")
	stream, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("tar: %w", err)
	}
	return layerOf(stream)
}

func sparseFile(path string, many bool) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if many {
		for hole := range int64(30) {
			_, writeErr := file.WriteAt([]byte("data"), hole<<18+100)
			err = errors.Join(err, writeErr)
		}
	}
	return errors.Join(err, file.Truncate(10<<20), file.Close())
}

// below is changed by the layers above it.
func below() *layer {
	return newLayer().
		file("usr/lib/removed", "below", 0o644).file("usr/lib/kept", "below", 0o644).symlink("lib", "usr/lib").
		symlink("absolute", "/usr/lib").symlink("outside", "../../../usr").
		file("data/file", "below", 0o644).file("data/other", "below", 0o600).
		file("data/file-to-directory", "below", 0o644).file("data/file-to-link", "below", 0o644).
		entry(directory("data/directory", 0o750), nil).file("data/directory/a", "below", 0o644).file("data/directory/b/c", "below", 0o644).
		file("data/directory-to-file/a", "below", 0o644).
		file("data/directory-to-link/a", "below", 0o644).
		file("data/opaque/a", "below", 0o644).file("data/opaque/b/c", "below", 0o644).
		file("data/opaque-later/a", "below", 0o644).
		file("data/removed/a", "below", 0o644).file("data/reborn/a", "below", 0o644).
		symlink("data/link", "file").symlink("data/link-to-directory", "directory").
		file("data/linked", "below", 0o4711).
		entry(tar.Header{Typeflag: tar.TypeDir, Name: "data/private", Mode: 0o700, Uid: 7, Gid: 8, ModTime: modified, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "1"}}, nil).
		file("data/private/a", "below", 0o644).
		file("data/twice/a", "below", 0o644).file("data/twice/b", "below", 0o644)
}

// changes leaves out parents, names files through links, and takes away.
func changes() *layer {
	l := newLayer()
	plain := func(name, content string) { l.entry(regular(name, 0o644), []byte(content)) }
	gone := func(name string) { plain(filepath.Dir(name)+"/.wh."+filepath.Base(name), "") }
	gone("lib/removed")
	plain("lib/added", "by a link")
	plain("absolute/also", "by an absolute link")
	plain("outside/lib/too", "by a link that leads out")
	plain("../../data/climbing", "from above")
	plain("/data/absolute", "from the root")
	plain("data/file", "changed")
	plain("data/private/new/deep", "changed")
	l.entry(directory("data/file-to-directory", 0o711), nil)
	plain("data/file-to-directory/a", "changed")
	l.entry(tar.Header{Typeflag: tar.TypeSymlink, Name: "data/file-to-link", Linkname: "other", Mode: 0o777, ModTime: modified}, nil)
	plain("data/directory-to-file", "changed")
	l.entry(tar.Header{Typeflag: tar.TypeSymlink, Name: "data/directory-to-link", Linkname: "directory", Mode: 0o777, ModTime: modified}, nil)
	plain("data/link-to-directory/through", "changed")
	l.entry(directory("data/directory", 0o700), nil)
	plain("data/opaque/.wh..wh..opq", "")
	plain("data/opaque/new", "changed")
	plain("data/opaque-later/new", "changed")
	plain("data/opaque-later/.wh..wh..opq", "")
	gone("data/removed")
	gone("data/reborn")
	l.entry(directory("data/reborn", 0o755), nil)
	plain("data/reborn/b", "changed")
	gone("data/never-there")
	gone("data/twice/a")
	return l.entry(tar.Header{Typeflag: tar.TypeLink, Name: "data/private/hard-link", Linkname: "data/linked", Mode: 0o4711, ModTime: modified}, nil)
}

// moreChanges changes what changes had changed.
func moreChanges() *layer {
	l := newLayer()
	plain := func(name, content string) { l.entry(regular(name, 0o600), []byte(content)) }
	gone := func(name string) { plain(filepath.Dir(name)+"/.wh."+filepath.Base(name), "") }
	plain("lib/removed", "again")
	gone("lib/added")
	gone("data/opaque/new")
	plain("data/opaque/a", "again")
	plain("data/removed/b", "again")
	gone("data/reborn/b")
	plain("data/twice/a", "again")
	gone("data/twice/b")
	plain("data/file-to-directory/b", "again")
	plain("data/directory-to-link/through-a-link", "again")
	gone("data/file-to-link")
	// Of a directory with attributes it could not be: containerd keeps them in a plain directory, and loses them in an overlay.
	return l.entry(directory("data/opaque", 0o711), nil)
}

// repeated names the same file more than once.
func repeated() *layer {
	l := newLayer().dir("data", 0o755)
	plain := func(name, content string) { l.entry(regular(name, 0o644), []byte(content)) }
	link := func(name, target string) {
		l.entry(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644, ModTime: modified}, nil)
	}
	symlink := func(name, target string) {
		l.entry(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: modified}, nil)
	}
	plain("data/twice", "first")
	plain("data/twice", "second, longer")
	plain("data/file-then-directory", "first")
	l.entry(directory("data/file-then-directory", 0o711), nil)
	plain("data/file-then-directory/a", "second")
	plain("data/directory-then-file/a", "first")
	plain("data/directory-then-file", "second")
	l.entry(directory("data/directory-then-link", 0o755), nil)
	plain("data/directory-then-link/a", "first")
	symlink("data/directory-then-link", "file-then-directory")
	plain("data/directory-then-link/b", "through the link")
	l.entry(directory("data/modes", 0o700), nil)
	plain("data/modes/a", "first")
	l.entry(tar.Header{Typeflag: tar.TypeDir, Name: "data/modes", Mode: 0o555, Gid: 9, ModTime: time.Unix(1_234_567_890, 0)}, nil)
	plain("data/one", "first")
	link("data/two", "data/one")
	plain("data/one", "second")
	link("data/three", "./data/../data/two")
	symlink("data/target", "one")
	symlink("data/target", "two")
	link("data/four", "data/target")
	plain("data/link-over-file", "first")
	link("data/link-over-file", "data/one")
	return l
}

// opaqueRoot hides all layers below.
func opaqueRoot() *layer {
	return newLayer().
		file("data/new", "above", 0o644).
		entry(regular(".wh..wh..opq", 0o644), nil).
		file("data/private/new", "above", 0o600).
		symlink("lib", "data")
}
