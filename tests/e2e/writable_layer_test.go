package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
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
	after, _ := first.writable()
	if after > bytes+64<<10 {
		t.Errorf("%d bytes are counted after all is removed, %d before", after, bytes)
	}
	second.exec("sh", "-c", "dd if=/dev/zero of=/room bs=1M count=16 && rm /room")
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
func (n *node) scratchBlocks(id string) int64 {
	n.t.Helper()
	var bytes int64
	root := filepath.Join(n.RootDir(), "pods", id)
	must(n.t, filepath.Walk(root, func(_ string, file os.FileInfo, err error) error {
		if err == nil {
			bytes += file.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	}))
	return bytes
}
