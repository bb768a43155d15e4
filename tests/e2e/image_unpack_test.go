package e2e

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
	"a3s.box/tests/images/listing"
	"a3s.box/tests/registry"
)

// Each file that a container sees is what containerd's own unpacking of the same layers makes of it.
func TestImageFilesAreThoseThatContainerdUnpacks(t *testing.T) {
	n := onNode(t)
	unpack := filepath.Join(t.TempDir(), "unpack")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../unpack", "-o", unpack, ".")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program that unpacks: %v: %s", err, output)
	}
	made, err := images.Unpacked(t.TempDir())
	must(t, err)
	p := n.runPod()
	for number, image := range made {
		reference := image.References[0]
		must(t, registry.Push(t.Context(), n.Registry(), reference, image))
		begun := time.Now()
		want := unpackedBy(t, unpack, image)
		c := p.start(fixture.ContainerConfig("list-"+strconv.Itoa(number), reference))
		got, err := listing.Read(c.succeeds())
		must(t, err)
		compareFiles(t, reference, got, want, begun)
	}
}

// unpackedBy lists what a program makes of an image's layers.
func unpackedBy(t *testing.T, program string, image v1.Image) []listing.Entry {
	t.Helper()
	layers, err := image.Layers()
	must(t, err)
	root := t.TempDir()
	arguments := []string{root}
	for number, layer := range layers {
		stream, err := layer.Uncompressed()
		must(t, err)
		content, err := io.ReadAll(stream)
		must(t, err)
		must(t, stream.Close())
		path := filepath.Join(t.TempDir(), strconv.Itoa(number)+".tar")
		must(t, os.WriteFile(path, content, 0o600))
		arguments = append(arguments, path)
	}
	var errors bytes.Buffer
	command := exec.CommandContext(t.Context(), program, arguments...)
	command.Stderr = &errors
	if err := command.Run(); err != nil {
		t.Fatalf("unpack: %v: %s", err, errors.String())
	}
	entries, err := listing.Walk(root, listing.MadeByRuntime)
	must(t, err)
	return entries
}

// compareFiles leaves out times that the unpacking itself made: of directories that no layer describes after their last change.
func compareFiles(t *testing.T, image string, got, want []listing.Entry, begun time.Time) {
	t.Helper()
	unpacked := map[string]listing.Entry{}
	for _, entry := range want {
		unpacked[entry.Path] = entry
	}
	for _, entry := range got {
		expected, known := unpacked[entry.Path]
		delete(unpacked, entry.Path)
		if !known {
			t.Errorf("%s: %s is there, and containerd has none: %s", image, entry.Path, entry.Facts)
			continue
		}
		if entry.Facts != expected.Facts {
			t.Errorf("%s: %s: got %s\nwant %s", image, entry.Path, entry.Facts, expected.Facts)
		}
		seconds, err := strconv.ParseFloat(expected.Time, 64)
		must(t, err)
		if entry.Time != expected.Time && seconds < float64(begun.Unix()-1) {
			t.Errorf("%s: %s was changed at %s, and with containerd at %s", image, entry.Path, entry.Time, expected.Time)
		}
	}
	for path, entry := range unpacked {
		t.Errorf("%s: %s is missing: %s", image, path, entry.Facts)
	}
}
