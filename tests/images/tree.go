package images

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// tree is files of made-up content: a layer's, or a directory's. Neither is ever in memory as a whole.
type tree []madeFile

// madeFile has the same bytes for the same name.
type madeFile struct {
	name  string
	bytes int64
}

func (f madeFile) content() io.Reader { return io.LimitReader(newProse(f.name), f.bytes) }

// layer compresses the tree into a file, and is that layer.
func (t tree) layer(blob string) (v1.Layer, error) {
	if err := writeFile(blob, t.compress); err != nil {
		return nil, err
	}
	return tarball.LayerFromFile(blob, tarball.WithMediaType(types.OCILayer))
}

func (t tree) compress(out io.Writer) error {
	compressed, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	l := layerTo(compressed)
	for _, file := range t {
		l.stream(tar.Header{Typeflag: tar.TypeReg, Name: file.name, Mode: 0o644, Size: file.bytes}, file.content())
	}
	return errors.Join(l.close(), compressed.Close())
}

// write puts the tree's files below a directory.
func (t tree) write(directory string) error {
	for _, file := range t {
		path := filepath.Join(directory, file.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		err := writeFile(path, func(out io.Writer) error {
			_, err := io.Copy(out, file.content())
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func writeFile(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(file, 256<<10)
	err = errors.Join(write(buffered), buffered.Flush(), file.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// prose is words without end, which gzip halves, as it does programs.
type prose struct {
	random *rand.Rand
	word   string
}

func newProse(seed string) *prose {
	return &prose{random: rand.New(rand.NewChaCha8(sha256.Sum256([]byte(seed))))}
}

const (
	// The words are pieces of noise: where one begins, and how long it is, is chosen.
	wordStarts = 1 << 14
	longest    = 32
)

var vocabulary = noise(0, wordStarts+longest)

func (p *prose) Read(buffer []byte) (int, error) {
	for filled := 0; filled < len(buffer); {
		if p.word == "" {
			drawn := p.random.Uint32()
			start := drawn % wordStarts
			p.word = vocabulary[start : start+1+drawn>>27]
		}
		copied := copy(buffer[filled:], p.word)
		p.word = p.word[copied:]
		filled += copied
	}
	return len(buffer), nil
}
