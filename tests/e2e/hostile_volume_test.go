package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func privilegedPod(config *cri.PodSandboxConfig) { config.Linux.SecurityContext.Privileged = true }
func privileged(config *cri.ContainerConfig)     { config.Linux.SecurityContext.Privileged = true }

// A privileged container is root in its guest: what it finds there is all that a hostile guest can reach of the host's files.
func TestGuestReachesNoOtherPodsFiles(t *testing.T) {
	n := onNode(t)
	const secret = "what-only-the-first-pod-may-read"
	theirs, ours, readable := n.hostDir(), n.hostDir(), n.hostDir()
	mustWrite(t, theirs+"/secret", secret)
	mustWrite(t, ours+"/file", "our own")
	mustWrite(t, readable+"/file", "read only")
	n.runPod().idle("main", mounted(bind(theirs, "/volume"))).exec("cat", "/volume/secret")

	p := n.runPod(privilegedPod)
	c := p.idle("hostile", privileged)
	// Before there are volumes: the kernel mounts any of the file systems that come from the same device.
	c.exec("sh", "-c", "mkdir /share && mount -t virtiofs share /share")
	reader := p.idle("reader", mounted(bind(ours, "/volume"), bind(readable, "/readable", readOnly)))
	equal(t, "volumes in the share", c.exec("sh", "-c", "ls /share/volumes | wc -l"), "2")
	found := c.exec("sh", "-c", "cd /share && find . -type f ! -path './layers/*' ! -path ./streams | sort && grep -rl "+secret+" volumes rootfs || true")
	equal(t, "files in the share", strings.Count(found, "\n")+1, 2)
	for _, file := range strings.Fields(found) {
		contains(t, "a file of the share", file, "./volumes/", "/file")
	}
	// The mounted share is the host's word: whatever is tried below fails there, not by the guest's own flags.
	for _, attempt := range []string{
		"touch /share/new",
		"mkdir /share/volumes/new",
		"rm -r /share/layers/*",
		"for layer in /share/layers/*; do echo x >> $layer || exit 1; done",
		"for volume in /share/volumes/*; do grep -q 'read only' $volume/file && { echo x > $volume/file || exit 1; }; done",
		"cat /share/../" + theirs + "/secret",
		"rm /share/streams",
		"mv /share/streams /share/volumes/streams",
		"ln /share/streams /share/other",
		"dd if=/dev/zero of=/share/streams bs=1M count=9",
		"for volume in /share/volumes/*; do ln -s " + theirs + " $volume/link && cat $volume/link/secret && exit 0; done; exit 1",
	} {
		t.Run(attempt, func(t *testing.T) {
			if stdout, _, code := c.in(t).tryExec("sh", "-c", attempt); code == 0 {
				t.Errorf("it succeeded: %s", stdout)
			}
		})
	}
	equal(t, "the read-only file", mustRead(t, readable+"/file"), "read only")
	c.exec("sh", "-c", ": > /share/streams")
	equal(t, "much output after the file for it was filled and cut", len(c.exec("sh", "-c", "dd if=/dev/zero bs=64k count=64 | tr '\\0' x")), 4<<20)

	// A container that may write comes later: it can, and the first one still cannot.
	writer := p.idle("writer", mounted(bind(readable, "/readable")))
	writer.exec("sh", "-c", "echo written > /readable/file")
	equal(t, "written", mustRead(t, readable+"/file"), "written\n")
	_, stderr, _ := reader.tryExec("touch", "/readable/file")
	contains(t, "touch", stderr, readOnlyText)
}

func TestVolumeInMemoryThatTheHostHasFilledStaysThere(t *testing.T) {
	n := onNode(t)
	dir := n.kubeletVolume("empty-dir", "filled")
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	mustWrite(t, filepath.Join(dir, "file"), "the host's")
	c := n.runPod().idle("main", mounted(bind(dir, "/volume")))
	equal(t, "the host's file", c.exec("cat", "/volume/file"), "the host's")
	c.exec("sh", "-c", "echo written > /volume/file")
	equal(t, "on the host", mustRead(t, filepath.Join(dir, "file")), "written\n")
}

// One that is larger than what is copied into the guest is shared as any other directory is.
func TestLargeVolumeThatKubeletSwapsIsSharedLive(t *testing.T) {
	n := onNode(t)
	volume := &atomicWriter{t: t, dir: n.kubeletVolume("projected", "large")}
	large := strings.Repeat("x", 5<<20)
	volume.write(map[string]string{"key": "first", "large": large})
	c := n.runPod().idle("main", mounted(bind(volume.dir, "/volume", readOnly)))
	equal(t, "before", c.exec("cat", "/volume/key"), "first")
	volume.write(map[string]string{"key": "second", "large": large})
	c.until("the new content to be read", func() error {
		if got, _, _ := c.tryExec("cat", "/volume/key"); got != "second" {
			return fmt.Errorf("it reads %q", got)
		}
		return nil
	})
	_, err := os.Stat(filepath.Join(volume.dir, "key"))
	must(t, err)
}
