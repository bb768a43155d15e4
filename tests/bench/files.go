package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

const (
	fileRounds = 10
	filesImage = images.Host + "/a3s-box/tree:1"
	// Where the container has the host's directory, and the layer on a disk of its own.
	plain, disk = "/plain", "/disk"
	// The container makes the device itself. The disk is the one that has an EROFS image's magic number.
	mountDisk = `for device in /sys/block/vd*; do
		mknod /$(basename $device) b $(tr : ' ' < $device/dev)
		[ "$(dd if=/$(basename $device) bs=1 skip=1024 count=4 | od -An -tx1)" = " e2 e1 f5 e0" ] && mkdir /disk && exec mount -t erofs -o ro /$(basename $device) /disk
	done; echo 'no disk'; exit 1`
	// Enough for the guest to keep what it reads.
	filesMemoryMB = "1024"
	// Bounds one measurement in the guest.
	filesPatience = 110 * time.Second

	stackRounds = 10
)

// files compares the files of an image with the same on plain virtio-fs, and on a disk that holds the image's layer, in one container
// of a node whose VMs have that disk.
func (b *bench) files(ctx context.Context) error {
	if err := b.push(ctx, filesImage, images.Tree); err != nil {
		return err
	}
	directory, err := os.MkdirTemp("", "a3s-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	// The VM's user opens the disk.
	if err := os.Chmod(directory, 0o755); err != nil {
		return err
	}
	qemu := filepath.Join(directory, "qemu-system-x86_64")
	build := exec.CommandContext(ctx, "go", "build", "-o", qemu, "./bench/withdisk")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program that adds a disk: %w: %s", err, output)
	}
	return b.onNode(ctx, fixture.Options{Config: fixture.Config{"log.filter": "info", "vm.qemu": qemu}}, func(b *bench) error {
		if err := b.pull(ctx, filesImage); err != nil {
			return err
		}
		layer, err := b.largestLayer()
		if err != nil {
			return err
		}
		// Readable for the VM's user.
		if output, err := exec.CommandContext(ctx, "install", "--mode=644", layer, qemu+".disk").CombinedOutput(); err != nil {
			return fmt.Errorf("copy the layer: %w: %s", err, output)
		}
		return b.fileRounds(ctx)
	})
}

// fileRounds measures in a container that has the same files in three places.
func (b *bench) fileRounds(ctx context.Context) error {
	directory := b.node.Path("files")
	if err := images.WriteTree(directory); err != nil {
		return err
	}
	config := b.node.PodConfig("files")
	config.Annotations["a3s.box/memory-mb"] = filesMemoryMB
	config.Linux.SecurityContext.Privileged = true
	container := fixture.ContainerConfig("files", filesImage, "sleep", "3600")
	// Only then it may drop the guest's caches, and mount.
	container.Linux.SecurityContext.Privileged = true
	container.Linux.SecurityContext.ReadonlyPaths = nil
	container.Mounts = []*cri.Mount{{HostPath: directory, ContainerPath: plain}}
	return b.inPod(ctx, config, func(sandbox string) error {
		id, _, err := b.createStarted(ctx, sandbox, config, container)
		if err != nil {
			return err
		}
		if _, errput, err := b.node.Runtime.ExecSync(ctx, id, []string{"sh", "-c", mountDisk}, filesPatience); err != nil {
			return fmt.Errorf("mount the disk: %w: %s", err, errput)
		}
		for round := range fileRounds {
			if err := b.fileRound(ctx, id, round); err != nil {
				return err
			}
		}
		return nil
	})
}

// largestLayer is the file of the largest layer on the node.
func (b *bench) largestLayer() (largest string, err error) {
	layers, err := filepath.Glob(filepath.Join(b.node.RootDir(), "images/layers/*/layer.erofs"))
	var most int64
	for _, layer := range layers {
		info, statErr := os.Stat(layer)
		if statErr != nil {
			return "", statErr
		}
		if info.Size() > most {
			largest, most = layer, info.Size()
		}
	}
	return largest, err
}

func (b *bench) fileRound(ctx context.Context, id string, round int) error {
	small := "/" + images.TreeDirectory
	here, err := b.fileTimes(ctx, id, "read", small, coldReadVsVirtiofs, warmReadVsVirtiofs)
	if err != nil {
		return err
	}
	const cold, warm, kept = 0, 1, 2
	block, err := b.fileNumbers(ctx, id, "read", disk+small)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "  %s: %.0f ms, on a disk %.0f ms\n", coldReadVsBlock.name, here[cold]/1e6, block[cold]/1e6)
	b.add(coldReadVsBlock, block[cold]/here[cold])
	here, err = b.fileTimes(ctx, id, "read", "/"+images.TreeLarge, seqReadVsVirtiofs)
	if err != nil {
		return err
	}
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
