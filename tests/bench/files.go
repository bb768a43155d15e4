package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

const (
	fileRounds = 3
	filesImage = images.Host + "/a3s-box/tree:1"
	// Where the container has the host's directory.
	plain = "/plain"
	// Enough for the guest to keep what it reads.
	filesMemoryMB = "1024"
	// Bounds one measurement in the guest.
	filesPatience = 110 * time.Second

	stackRounds = 6
)

// files compares the files of an image with the same on plain virtio-fs, in one container.
func (b *bench) files(ctx context.Context) (err error) {
	if err := b.push(ctx, filesImage, images.Tree); err != nil {
		return err
	}
	if err := b.pull(ctx, filesImage); err != nil {
		return err
	}
	directory := b.node.Path("files")
	defer func() { err = errors.Join(err, os.RemoveAll(directory)) }()
	if err := images.WriteTree(directory); err != nil {
		return err
	}
	config := b.node.PodConfig("files")
	config.Annotations["a3s.box/memory-mb"] = filesMemoryMB
	config.Linux.SecurityContext.Privileged = true
	container := fixture.ContainerConfig("files", filesImage, "sleep", "3600")
	// Only then it may drop the guest's caches.
	container.Linux.SecurityContext.Privileged = true
	container.Linux.SecurityContext.ReadonlyPaths = nil
	container.Mounts = []*cri.Mount{{HostPath: directory, ContainerPath: plain}}
	return b.inPod(ctx, config, func(sandbox string) error {
		id, _, err := b.createStarted(ctx, sandbox, config, container)
		if err != nil {
			return err
		}
		for round := range fileRounds {
			if err := b.fileRound(ctx, id, round); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *bench) fileRound(ctx context.Context, id string, round int) error {
	if _, err := b.fileTimes(ctx, id, "read", "/"+images.TreeDirectory, coldReadVsVirtiofs, warmReadVsVirtiofs); err != nil {
		return err
	}
	here, err := b.fileTimes(ctx, id, "read", "/"+images.TreeLarge, seqReadVsVirtiofs)
	if err != nil {
		return err
	}
	const warm, kept = 1, 2
	fmt.Fprintf(os.Stderr, "  the large file again: %.0f ms\n", here[warm]/1e6)
	b.add(seqReadGuestMB, here[kept]/1024)
	_, err = b.fileTimes(ctx, id, "create", fmt.Sprint("/made-", round), createFilesVsVirtiofs)
	return err
}

// fileTimes does some work in the container's own files and in the host's, and adds how much faster the first is in each of the
// times that the program prints. It returns what was printed of the first.
func (b *bench) fileTimes(ctx context.Context, id, work, path string, metrics ...metric) ([]float64, error) {
	here, err := b.fileNumbers(ctx, id, work, path)
	if err != nil {
		return nil, err
	}
	there, err := b.fileNumbers(ctx, id, work, plain+path)
	if err != nil {
		return nil, err
	}
	for i, m := range metrics {
		fmt.Fprintf(os.Stderr, "  %s: %.0f ms, on virtio-fs %.0f ms\n", m.name, here[i]/1e6, there[i]/1e6)
		b.add(m, there[i]/here[i])
	}
	return here, nil
}

// fileNumbers runs the image's program, and returns the numbers that it prints.
func (b *bench) fileNumbers(ctx context.Context, id, work, path string) ([]float64, error) {
	output, errput, err := b.node.Runtime.ExecSync(ctx, id, []string{images.TreeProgram, work, path}, filesPatience)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", work, path, err, errput)
	}
	var numbers []float64
	for field := range strings.FieldsSeq(string(output)) {
		number, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", work, path, err)
		}
		numbers = append(numbers, number)
	}
	return numbers, nil
}

// layers compares containers whose images have twenty layers and one. No layer is mounted in the pod before.
func (b *bench) layers(ctx context.Context) error {
	stacks := []struct {
		reference string
		layers    int
	}{{images.Host + "/a3s-box/stack:1", 1}, {images.Host + "/a3s-box/stack:20", 20}}
	for _, stack := range stacks {
		err := b.push(ctx, stack.reference, func(string) (v1.Image, error) { return images.Stacked(stack.layers, strconv.Itoa(stack.layers)) })
		if err = errors.Join(err, b.pull(ctx, stack.reference)); err != nil {
			return err
		}
	}
	for round := range stackRounds {
		config := b.node.PodConfig("layers")
		err := b.inPod(ctx, config, func(sandbox string) error {
			if _, _, err := b.createStart(ctx, sandbox, config, "first"); err != nil {
				return err
			}
			var took [2]time.Duration
			for turn := range stacks {
				// Each is first in half of the pods.
				chosen := (round + turn) % len(stacks)
				container := fixture.ContainerConfig(fmt.Sprint("layers-", chosen), stacks[chosen].reference, "sleep", "3600")
				var err error
				if _, took[chosen], err = b.createStarted(ctx, sandbox, config, container); err != nil {
					return err
				}
			}
			b.add(layers20Vs1, float64(took[1])/float64(took[0]))
			fmt.Fprintf(os.Stderr, "  one layer %s, twenty %s\n", took[0].Round(time.Millisecond), took[1].Round(time.Millisecond))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
