package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
	"a3s.box/tests/registry"
)

const (
	pullRounds = 10
	largeImage = images.Host + "/a3s-box/large:1"
	// How often the frontend's memory is looked at.
	memoryInterval = 10 * time.Millisecond
	// Bounds what a runtime needs to forget an image.
	removalPatience = 30 * time.Second
)

// pulls pulls a large image here and by containerd, in turns; each time it is new to all of them.
func (b *bench) pulls(ctx context.Context) error {
	if err := b.push(ctx, largeImage, images.Large); err != nil {
		return err
	}
	return b.withContainerd(ctx, "", func(overlayfs *bench) error {
		return b.withContainerd(ctx, fixture.EROFS, func(erofs *bench) error {
			for range pullRounds {
				if err := b.pullRound(ctx, overlayfs, erofs); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (b *bench) pullRound(ctx context.Context, overlayfs, erofs *bench) error {
	peak := b.watchMemory()
	ours, err := b.pullTime(ctx, "root/images/blobs/*", "root/images/layers/*")
	if err := errors.Join(err, peak()); err != nil {
		return err
	}
	b.add(pullMS, milliseconds(ours))
	for _, other := range []struct {
		*bench
		metric
		snapshotter string
	}{{overlayfs, pullVsOverlayfs, "overlayfs"}, {erofs, pullVsErofs, "erofs"}} {
		snapshots := "containerd/io.containerd.snapshotter.v1." + other.snapshotter + "/snapshots/*"
		theirs, err := other.pullTime(ctx, "containerd/io.containerd.content.v1.content/blobs/sha256/*", snapshots)
		if err != nil {
			return fmt.Errorf("containerd with %s: %w", other.snapshotter, err)
		}
		fmt.Fprintf(os.Stderr, "  %s %s, here %s\n", other.snapshotter, theirs.Round(time.Millisecond), ours.Round(time.Millisecond))
		b.add(other.metric, float64(ours)/float64(theirs))
	}
	return nil
}

// pullTime takes the time of a pull. Afterwards the image is removed, and of these files of the node there are as many as before.
func (b *bench) pullTime(ctx context.Context, patterns ...string) (time.Duration, error) {
	before, err := b.matches(patterns)
	if err != nil {
		return 0, err
	}
	// What others left to be written is not this pull's.
	unix.Sync()
	start := time.Now()
	if err := b.pull(ctx, largeImage); err != nil {
		return 0, err
	}
	took := time.Since(start)
	if during, err := b.matches(patterns); err != nil || during == before {
		return 0, errors.Join(err, fmt.Errorf("the pull added nothing to %q", patterns))
	}
	if err := b.node.Images.RemoveImage(ctx, &cri.ImageSpec{Image: largeImage}); err != nil {
		return 0, err
	}
	return took, fixture.Until(ctx, removalPatience, "the image's files to go", func() error {
		left, err := b.matches(patterns)
		if err == nil && left != before {
			err = fmt.Errorf("%d of them, %d before the pull", left, before)
		}
		return err
	})
}

// matches counts files of the node.
func (b *bench) matches(patterns []string) (count int, err error) {
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(filepath.Dir(b.node.RootDir()), pattern))
		if err != nil {
			return 0, err
		}
		count += len(found)
	}
	return count, nil
}

// watchMemory looks at the frontend's memory until the returned function is called, which adds the most that was seen.
func (b *bench) watchMemory() (end func() error) {
	done, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ticker := time.NewTicker(memoryInterval)
		defer ticker.Stop()
		most := 0.0
		for {
			kb, err := kilobytes(b.node.FrontendPID(), "status", "RssAnon:")
			if err != nil {
				ended <- err
				return
			}
			most = max(most, kb)
			select {
			case <-done:
				b.add(pullRSSMB, most/1024)
				ended <- nil
				return
			case <-ticker.C:
			}
		}
	}()
	return func() error {
		close(done)
		return <-ended
	}
}

// withContainerd does something with a node of containerd that pulls from the same registry.
func (b *bench) withContainerd(ctx context.Context, snapshotter fixture.Snapshotter, do func(*bench) error) error {
	return b.onNode(ctx, fixture.Options{Runtime: fixture.Runc, Snapshotter: snapshotter}, func(other *bench) error {
		other.results = newResults()
		return do(other)
	})
}

// onNode does something with another node that pulls from the same registry.
func (b *bench) onNode(ctx context.Context, options fixture.Options, do func(*bench) error) (err error) {
	options.Registry = b.node.Registry()
	node, err := fixture.Start(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close(context.WithoutCancel(ctx))) }()
	return do(&bench{node: node, results: b.results})
}

// push makes an image, with a directory for what it is made of, and puts it into the registry.
func (b *bench) push(ctx context.Context, reference string, make func(directory string) (v1.Image, error)) (err error) {
	directory := b.node.Path("image")
	if err := os.Mkdir(directory, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(directory)) }()
	image, err := make(directory)
	if err != nil {
		return err
	}
	return registry.Push(ctx, b.node.Registry(), reference, image)
}
