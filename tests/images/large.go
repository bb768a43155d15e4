package images

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// What Large is made of: most of its files are small, and most of its bytes in a few large ones.
const (
	largeLayers     = 8
	smallPerLayer   = 2490
	largePerLayer   = 10
	smallestBytes   = 256
	largeBytes      = 3_600_000
	filesADirectory = 50
)

// Large is an image of 20,000 files in 8 layers, 450 MB when unpacked. Its blobs are kept in a directory.
func Large(directory string) (v1.Image, error) {
	layers := make([]v1.Layer, largeLayers)
	var making errgroup.Group
	for number := range layers {
		making.Go(func() (err error) {
			layers[number], err = largeLayer(number).layer(filepath.Join(directory, fmt.Sprint("large-", number)))
			return err
		})
	}
	if err := making.Wait(); err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(image, layers...)
	if err != nil {
		return nil, err
	}
	return mutate.Config(image, v1.Config{Cmd: []string{"none"}})
}

func largeLayer(number int) tree {
	var files tree
	root := fmt.Sprintf("opt/package-%d", number)
	for i := range smallPerLayer {
		// Sizes from 256 bytes to 16 KiB, each as often.
		bytes := smallestBytes + int64(i*7919%64)*smallestBytes
		files = append(files, madeFile{fmt.Sprintf("%s/directory-%d/file-%d", root, i/filesADirectory, i), bytes})
	}
	for i := range largePerLayer {
		files = append(files, madeFile{fmt.Sprintf("%s/library-%d", root, i), largeBytes})
	}
	return files
}

// Crowded is an image of that many empty files, a thousand in a directory: "0/0", "0/1", "1/1000". Its blob is kept in a directory.
func Crowded(directory string, files int) (v1.Image, error) {
	blob := filepath.Join(directory, "crowded")
	err := writeFile(blob, func(out io.Writer) error {
		compressed, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
		if err != nil {
			return err
		}
		l := layerTo(compressed)
		for number := range files {
			l.file(fmt.Sprintf("%d/%d", number/1000, number), "", 0o644)
		}
		return errors.Join(l.close(), compressed.Close())
	})
	if err != nil {
		return nil, err
	}
	crowd, err := tarball.LayerFromFile(blob, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(empty.Image, crowd)
}

// The files of Tree: TreeDirectory with many small ones, and one large one.
const (
	TreeDirectory = "tree/small"
	TreeLarge     = "tree/large"
	// TreeProgram is what takes the time of reading and writing them: images/filetimes.
	TreeProgram = "/filetimes"
	smallFiles  = 5000
	largeMiB    = 256
)

func measured() tree {
	files := tree{{TreeLarge, largeMiB << 20}}
	for i := range smallFiles {
		bytes := smallestBytes + int64(i*7919%32)*smallestBytes
		files = append(files, madeFile{fmt.Sprintf("%s/%d/%d", TreeDirectory, i/filesADirectory, i), bytes})
	}
	return files
}

// Tree is an image with those files; the program and the blob are kept in a directory.
func Tree(directory string) (v1.Image, error) {
	program, err := staticProgram("filetimes", directory)
	if err != nil {
		return nil, err
	}
	base, err := busybox(busyboxProgram, passwd, group).build()
	if err != nil {
		return nil, err
	}
	top, err := measured().layer(filepath.Join(directory, "files"))
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{Cmd: []string{"sh"}}, base, []*layer{newLayer().copy(TreeProgram[1:], program, 0o755)}, top)
}

// WriteTree puts the same files below a directory.
func WriteTree(directory string) error { return measured().write(directory) }

// Stacked is a busybox of that many layers. Images of different names share none.
func Stacked(layers int, name string) (v1.Image, error) {
	base, err := busybox(busyboxProgram, passwd, group).file("stack/"+name, name, 0o644).build()
	if err != nil {
		return nil, err
	}
	var upper []*layer
	for number := 1; number < layers; number++ {
		upper = append(upper, newLayer().file(fmt.Sprintf("stack/%s-%d", name, number), name, 0o644))
	}
	return assemble(v1.Config{Cmd: []string{"sh"}}, base, upper)
}
