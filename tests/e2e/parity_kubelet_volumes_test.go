package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kubeletVolume is a directory where kubelet would have a volume.
func (n *node) kubeletVolume(plugin, name string) string {
	n.t.Helper()
	dir := filepath.Join(n.hostDir(), "pods", "uid", "volumes", "kubernetes.io~"+plugin, name)
	must(n.t, os.MkdirAll(dir, 0o755))
	return dir
}

// subPath binds a file or directory of a volume where kubelet binds it for a subPath.
func (n *node) subPath(source string) string {
	n.t.Helper()
	info, err := os.Stat(source)
	must(n.t, err)
	target := filepath.Join(n.hostDir(), "volume-subpaths", "0")
	must(n.t, os.MkdirAll(filepath.Dir(target), 0o755))
	if info.IsDir() {
		must(n.t, os.Mkdir(target, 0o755))
	} else {
		mustWrite(n.t, target, "")
	}
	must(n.t, unix.Mount(source, target, "", unix.MS_BIND, ""))
	n.t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	return target
}

// atomicWriter writes a volume as kubelet's AtomicWriter does.
type atomicWriter struct {
	t       *testing.T
	dir     string
	written int
}

func (w *atomicWriter) write(files map[string]string) {
	w.t.Helper()
	w.written++
	data := fmt.Sprintf("..2026_11_28_00_00_%02d.%d", w.written, 100+w.written)
	must(w.t, os.Mkdir(filepath.Join(w.dir, data), 0o755))
	for name, content := range files {
		path := filepath.Join(w.dir, data, name)
		must(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
		mustWrite(w.t, path, content)
		must(w.t, os.Chown(path, 0, 2000))
		must(w.t, os.Chmod(path, 0o440))
	}
	link := filepath.Join(w.dir, "..data")
	old, _ := os.Readlink(link)
	must(w.t, os.Symlink(data, link+"_tmp"))
	must(w.t, os.Rename(link+"_tmp", link))
	first := map[string]bool{}
	for name := range files {
		name, _, _ = strings.Cut(name, "/")
		if !first[name] {
			_ = os.Symlink(filepath.Join("..data", name), filepath.Join(w.dir, name))
		}
		first[name] = true
	}
	entries, err := os.ReadDir(w.dir)
	must(w.t, err)
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), "..") && !first[entry.Name()] {
			must(w.t, os.Remove(filepath.Join(w.dir, entry.Name())))
		}
	}
	if old != "" {
		must(w.t, os.RemoveAll(filepath.Join(w.dir, old)))
	}
}

// Programs watch the volumes that kubelet swaps: each container of the pod is told, and reads the new content.
func TestParityVolumesThatKubeletSwaps(t *testing.T) {
	n := onNode(t)
	config := &atomicWriter{t: t, dir: n.kubeletVolume("configmap", "config")}
	config.write(map[string]string{"key": "first", "dir/nested": "first", "old": "first"})
	secret := &atomicWriter{t: t, dir: n.kubeletVolume("secret", "secret")}
	must(t, unix.Mount("tmpfs", secret.dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { _ = unix.Unmount(secret.dir, unix.MNT_DETACH) })
	secret.write(map[string]string{"token": "first"})
	one := n.subPath(filepath.Join(config.dir, "key"))

	both := mounted(bind(config.dir, "/config", readOnly), bind(secret.dir, "/secret", readOnly), bind(one, "/one", readOnly))
	p := n.runPod()
	first, second := p.files("first", both), p.files("second", both)
	for _, c := range []*container{first, second} {
		equal(t, "before", c.exec("cat", "/config/key", "/config/dir/nested", "/config/old", "/secret/token", "/one"), strings.Repeat("first", 5))
		equal(t, "owner and mode", c.exec("stat", "-L", "-c", "%a %u:%g", "/config/key"), "440 0:2000")
		_, stderr, _ := c.tryExec("touch", "/config/new")
		contains(t, "touch", stderr, readOnlyText)
		c.inBackground("watching", "files watch /config")
	}
	begun := time.Now()
	config.write(map[string]string{"key": "second", "dir/nested": "second", "new": "second"})
	secret.write(map[string]string{"token": "second"})
	for _, c := range []*container{first, second} {
		c.until("the new content to be read", func() error {
			if got, _, _ := c.tryExec("cat", "/config/key", "/config/dir/nested", "/config/new", "/secret/token"); got != strings.Repeat("second", 4) {
				return fmt.Errorf("it reads %q", got)
			}
			return nil
		})
		c.until("the change to be told", func() error {
			if said := c.exec("cat", "/tmp/said"); !strings.Contains(said, "moved-to ..data") || !strings.Contains(said, "create new") {
				return fmt.Errorf("it says %q", said)
			}
			return nil
		})
		equal(t, "a subPath", c.exec("cat", "/one"), "first")
		equal(t, "names", c.exec("ls", "/config"), "dir\nkey\nnew")
	}
	t.Logf("all of it was seen after %s", time.Since(begun))

	for _, c := range []*container{first, second} {
		must(t, n.Runtime.StopContainer(t.Context(), c.id, 5))
	}
	must(t, unix.Unmount(secret.dir, 0))
}

// An emptyDir of medium Memory has the size of kubelet's, and is charged to the container that fills it.
func TestParityVolumesInMemory(t *testing.T) {
	n := onNode(t)
	dir := n.kubeletVolume("empty-dir", "cache")
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=48m"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	must(t, unix.Chmod(dir, 0o2777))
	must(t, os.Chown(dir, 0, 2000))
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o750))
	sub := n.subPath(filepath.Join(dir, "sub"))
	// As shared memory it is what kubelet's users mount most.
	whole := mounted(bind(dir, "/cache"), bind(dir, "/dev/shm"))
	p := n.runPod()
	first, second := p.files("first", whole), p.files("second", mounted(bind(dir, "/cache", readOnly), bind(sub, "/sub")))

	equal(t, "file system and size", first.exec("files", "fstype", "/cache"), fmt.Sprintf("1021994 %d", 48<<20))
	equal(t, "owner and mode", first.exec("stat", "-c", "%a %u:%g", "/cache", "/cache/sub"), "2777 0:2000\n2750 0:2000")
	first.exec("sh", "-c", "echo one > /dev/shm/file; echo two > /cache/sub/file")
	first.exec("sh", "-c", "mknod /cache/null c 1 3 && echo x > /cache/null")
	equal(t, "in the other container", second.exec("cat", "/cache/file", "/sub/file"), "one\ntwo")
	second.exec("sh", "-c", "echo three > /sub/file")
	equal(t, "by the subPath", first.exec("cat", "/cache/sub/file"), "three")
	_, stderr, _ := second.tryExec("touch", "/cache/new")
	contains(t, "touch where it is read-only", stderr, readOnlyText)

	must(t, n.Runtime.StopContainer(t.Context(), first.id, 5))
	again := p.files("again", whole, limited(memory(32)))
	equal(t, "after a restart", again.exec("cat", "/cache/file"), "one")
	_, _, code := again.tryExec("dd", "if=/dev/zero", "of=/cache/large", "bs=1M", "count=40")
	equal(t, "exit code of 40 MiB in 32", code, 137)
	again.exec("rm", "-f", "/cache/large")
	_, stderr, code = second.tryExec("dd", "if=/dev/zero", "of=/sub/larger", "bs=1M", "count=50")
	equal(t, "exit code of 50 MiB in 48", code, 1)
	contains(t, "dd", stderr, "No space left")
}
