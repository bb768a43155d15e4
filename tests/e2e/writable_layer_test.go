package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

func TestWritableLayerIsCountedAndEndsHonestly(t *testing.T) {
	n := onNode(t)
	p := n.runPod(annotated("a3s.box/scratch-mb", "64"))
	first, second := p.idle("first"), p.idle("second")
	bytes, inodes := first.writable()

	first.exec("sh", "-c", "mkdir /own; for i in 1 2 3 4 5 6 7 8 9; do echo x > /own/$i; done; dd if=/dev/zero of=/own/large bs=1M count=8")
	nowBytes, nowInodes := first.writable()
	equal(t, "inodes of a directory and ten files", nowInodes-inodes, 11)
	if grown := nowBytes - bytes; grown < 8<<20 || grown > 8<<20+64<<10 {
		t.Errorf("8 MiB and nine small files take %d bytes", grown)
	}
	otherBytes, _ := second.writable()
	if otherBytes > 1<<20 {
		t.Errorf("the other container is said to have written %d bytes", otherBytes)
	}

	_, stderr, code := first.tryExec("sh", "-c", "dd if=/dev/zero of=/own/huge bs=1M count=80")
	if code == 0 {
		t.Error("80 MiB more fit on a disk of 64")
	}
	contains(t, "the write", stderr, "No space left on device")
	full := n.scratchBlocks(p.id)
	second.exec("true")
	first.exec("sh", "-c", "rm -r /own && sync")
	n.until("the freed blocks to be given back", func() error {
		first.exec("sync")
		if now := n.scratchBlocks(p.id); now > full/2 {
			return fmt.Errorf("the scratch disk takes %d bytes, and took %d when it was full", now, full)
		}
		return nil
	})
	// So are those of a container that is removed.
	second.exec("sh", "-c", "dd if=/dev/zero of=/large bs=1M count=24 && sync")
	full = n.scratchBlocks(p.id)
	must(t, n.Runtime.StopContainer(t.Context(), second.id, 0))
	must(t, n.Runtime.RemoveContainer(t.Context(), second.id))
	n.until("the removed container's blocks to be given back", func() error {
		if now := n.scratchBlocks(p.id); now > full-20<<20 {
			return fmt.Errorf("the scratch disk takes %d bytes, and took %d with the container", now, full)
		}
		return nil
	})
	after, _ := first.writable()
	if after > bytes+64<<10 {
		t.Errorf("%d bytes are counted after all is removed, %d before", after, bytes)
	}
	first.exec("sh", "-c", "dd if=/dev/zero of=/room bs=1M count=16 && rm /room")
}

// A node whose disk fills has pods that get errors, go on as far as they can, and are well again when there is room.
func TestHostWhoseDiskIsFullGivesGuestsIOErrors(t *testing.T) {
	n := ownNode(t, fixture.Options{Config: fixture.Config{"images.keep_free_mb": 1}})
	n.onSmallDisk("96m")
	p := n.runPod()
	first, second := p.idle("first"), p.idle("second")
	filler := filepath.Join(n.RootDir(), "filler")
	room := n.fill(filler, 16<<20)

	_, stderr, code := first.tryExec("dd", "if=/dev/zero", "of=/large", "bs=1M", "count=64", "oflag=direct")
	if code == 0 {
		t.Fatalf("64 MiB were written where %d bytes are free", room)
	}
	contains(t, "the write", stderr, "Input/output error")
	// Nor is a write that waited in the guest's memory lost in silence.
	_, stderr, code = first.tryExec("sh", "-c", "dd if=/dev/zero of=/more bs=1M count=32; sync; dd if=/dev/zero of=/note bs=1 count=1 conv=fsync")
	if code == 0 {
		t.Error("an fsync after a write that failed succeeds")
	}
	contains(t, "the fsync", stderr, "Input/output error")
	equal(t, "what the other container says", second.exec("echo", "alive"), "alive")
	equal(t, "the pod", p.status().State, cri.PodSandboxState_SANDBOX_READY)

	must(t, os.Remove(filler))
	second.exec("dd", "if=/dev/zero", "of=/again", "bs=1M", "count=16", "oflag=direct")
	third := p.idle("third")
	third.exec("dd", "if=/dev/zero", "of=/new", "bs=1M", "count=4", "conv=fsync")
}

// onSmallDisk puts the node's root directory on a file system of its own.
func (n *node) onSmallDisk(size string) {
	n.t.Helper()
	must(n.t, n.Kill())
	must(n.t, syscall.Mount("a3s-box-test", n.RootDir(), "tmpfs", 0, "mode=0755,size="+size))
	n.t.Cleanup(func() {
		must(n.t, n.Kill())
		must(n.t, syscall.Unmount(n.RootDir(), 0))
		must(n.t, n.Restart(context.Background()))
	})
	must(n.t, n.Restart(n.t.Context()))
}

// fill makes a file that leaves so many bytes free; it returns how many are.
func (n *node) fill(path string, leave uint64) uint64 {
	n.t.Helper()
	var before, after syscall.Statfs_t
	must(n.t, syscall.Statfs(filepath.Dir(path), &before))
	file, err := os.Create(path)
	must(n.t, err)
	must(n.t, syscall.Fallocate(int(file.Fd()), 0, 0, int64(before.Bavail*uint64(before.Bsize)-leave)))
	must(n.t, file.Close())
	must(n.t, syscall.Statfs(filepath.Dir(path), &after))
	return after.Bavail * uint64(after.Bsize)
}

func TestScratchBeyondTheCeilingIsRefused(t *testing.T) {
	n := onNode(t)
	for _, value := range []string{"0", "-1", "much", "999999999"} {
		_, err := n.tryPod("", annotated("a3s.box/scratch-mb", value))
		refused(t, err, codes.InvalidArgument, "a3s.box/scratch-mb", value)
	}
}

// writable is what the stats say of a container's writable layer.
func (c *container) writable() (bytes, inodes uint64) {
	c.t.Helper()
	// The usage is what is on disk.
	c.exec("sync")
	stats, err := c.Runtime.ContainerStats(c.t.Context(), c.id)
	must(c.t, err)
	return stats.WritableLayer.GetUsedBytes().GetValue(), stats.WritableLayer.GetInodesUsed().GetValue()
}

// scratchBlocks is what a pod's directory on disk takes of the host.
func (n *node) scratchBlocks(id string) uint64 {
	n.t.Helper()
	bytes, _ := n.diskUsage("pods", id)
	return bytes
}

// diskUsage is what a part of the node's root directory takes of the host: bytes, and files and directories.
func (n *node) diskUsage(elements ...string) (bytes, files uint64) {
	n.t.Helper()
	root := filepath.Join(append([]string{n.RootDir()}, elements...)...)
	must(n.t, filepath.Walk(root, func(_ string, file os.FileInfo, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			bytes += uint64(file.Sys().(*syscall.Stat_t).Blocks) * 512
			files++
		}
		return err
	}))
	return bytes, files
}
