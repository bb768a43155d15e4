package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/images"
)

const readOnlyText = "Read-only file system"

// files starts a container that has the program of that name, and waits to be told what to do.
func (p *pod) files(name string, change ...func(*cri.ContainerConfig)) *container {
	p.t.Helper()
	withFiles := func(config *cri.ContainerConfig) {
		config.Image = &cri.ImageSpec{Image: images.Files, UserSpecifiedImage: images.Files}
	}
	return p.idle(name, append([]func(*cri.ContainerConfig){withFiles}, change...)...)
}

// inBackground starts a command in the container, and waits until it says a word.
func (c *container) inBackground(word, command string) {
	c.t.Helper()
	c.exec("sh", "-c", fmt.Sprintf("%s >/tmp/said 2>&1 & until grep -q %s /tmp/said; do usleep 20000; done", command, word))
}

func bind(host, container string, change ...func(*cri.Mount)) *cri.Mount {
	mount := &cri.Mount{HostPath: host, ContainerPath: container}
	for _, change := range change {
		change(mount)
	}
	return mount
}

func readOnly(mount *cri.Mount)          { mount.Readonly = true }
func recursiveReadOnly(mount *cri.Mount) { mount.Readonly, mount.RecursiveReadOnly = true, true }
func hostToContainer(mount *cri.Mount) {
	mount.Propagation = cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
}

// mount mounts a tmpfs on a directory that it makes.
func (n *node) mount(dir string) {
	n.t.Helper()
	must(n.t, os.MkdirAll(dir, 0o755))
	must(n.t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	n.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// What one container does to the files of a volume is what the host and another container see.
func TestParityVolumesAreShared(t *testing.T) {
	n := onNode(t)
	host := n.hostDir()
	volume := mounted(bind(host, "/volume"))
	p := n.runPod()
	first, second := p.files("first", volume), p.files("second", volume)
	on := func(name string) string { return filepath.Join(host, name) }

	t.Run("files", func(t *testing.T) {
		first, second := first.in(t), second.in(t)
		first.exec("sh", "-c", "mkdir -p /volume/a/b && echo one > /volume/a/b/file")
		equal(t, "in the other container", second.exec("cat", "/volume/a/b/file"), "one")
		equal(t, "on the host", mustRead(t, on("a/b/file")), "one\n")
		second.exec("sh", "-c", "echo two >> /volume/a/b/file")
		equal(t, "appended by the other", first.exec("cat", "/volume/a/b/file"), "one\ntwo")
		mustWrite(t, on("from-host"), "three")
		for _, c := range []*container{first, second} {
			c.until("the host's file to be seen", func() error {
				if got, _, _ := c.tryExec("cat", "/volume/from-host"); got != "three" {
					return fmt.Errorf("it reads %q", got)
				}
				return nil
			})
		}
	})

	t.Run("many names", func(t *testing.T) {
		first.in(t).exec("sh", "-c", "mkdir /volume/many && cd /volume/many && for i in $(seq 500); do : > a-rather-long-name-$i; done")
		equal(t, "in the other container", second.in(t).exec("sh", "-c", "ls /volume/many | wc -l"), "500")
		entries, err := os.ReadDir(on("many"))
		must(t, err)
		equal(t, "on the host", len(entries), 500)
	})

	t.Run("rename, links, sizes and modes", func(t *testing.T) {
		first.in(t).exec("sh", "-c", `set -e; mkdir /volume/from /volume/to; cd /volume
			echo x > from/file; mv from/file to/file; echo y > from/other; mv from/other to/file
			ln to/file to/hard; ln -s file to/soft; chown 12:34 to/hard; chmod 4711 to/hard
			truncate -s 1M to/sparse; mkfifo to/fifo; mv from renamed`)
		equal(t, "what was moved there last", second.in(t).exec("cat", "/volume/to/soft"), "y")
		info, err := os.Stat(on("to/file"))
		must(t, err)
		stat := info.Sys().(*syscall.Stat_t)
		equal(t, "mode", stat.Mode, syscall.S_IFREG|0o4711)
		equal(t, "owner", fmt.Sprint(stat.Uid, ":", stat.Gid), "12:34")
		equal(t, "links", stat.Nlink, 2)
		target, err := os.Readlink(on("to/soft"))
		must(t, err)
		equal(t, "symbolic link", target, "file")
		info, err = os.Stat(on("to/sparse"))
		must(t, err)
		equal(t, "size", info.Size(), 1<<20)
		equal(t, "blocks", info.Sys().(*syscall.Stat_t).Blocks, 0)
		for name, is := range map[string]bool{"renamed": true, "from": false, "to/fifo": true} {
			_, err := os.Lstat(on(name))
			equal(t, name+" is there", err == nil, is)
		}
	})

	t.Run("device nodes", func(t *testing.T) {
		first.in(t).exec("sh", "-c", "mknod /volume/null c 1 3 && echo x > /volume/null")
		second.in(t).exec("sh", "-c", "test -c /volume/null && echo x > /volume/null")
	})

	t.Run("a file without a name", func(t *testing.T) {
		equal(t, "content", first.in(t).exec("files", "unlink", "/volume/gone"), "still here")
	})

	t.Run("locks", func(t *testing.T) {
		first.in(t).inBackground("locked", "files lock /volume/lock")
		equal(t, "for the other container", second.in(t).exec("files", "trylock", "/volume/lock"), "flock held\nrecord held")
		first.in(t).exec("killall", "files")
		second.in(t).until("the locks to be free", func() error {
			if got := second.in(t).exec("files", "trylock", "/volume/lock"); got != "flock free\nrecord free" {
				return fmt.Errorf("%s", got)
			}
			return nil
		})
	})

	t.Run("shared memory", func(t *testing.T) {
		mustWrite(t, on("memory"), strings.Repeat(".", 4096))
		first.in(t).inBackground("mapped", "files map /volume/memory 1 2")
		second.in(t).exec("files", "map", "/volume/memory", ".", "1")
		second.in(t).exec("files", "map", "/volume/memory", "2", "3")
		second.in(t).until("the host to read it", func() error {
			if got := mustRead(t, on("memory"))[0]; got != '3' {
				return fmt.Errorf("the first byte is %q", got)
			}
			return nil
		})
	})

	t.Run("direct", func(t *testing.T) {
		first.in(t).exec("files", "direct", "/volume/direct")
		equal(t, "on the host", mustRead(t, on("direct")), strings.Repeat("direct..", 1024))
	})

	t.Run("extended attributes", func(t *testing.T) {
		first.in(t).exec("sh", "-c", "echo > /volume/noted; files setattr /volume/noted user.note kept")
		equal(t, "for the other container", second.in(t).exec("files", "getattr", "/volume/noted", "user.note"), "kept")
		value := make([]byte, 16)
		length, err := unix.Getxattr(on("noted"), "user.note", value)
		must(t, err)
		equal(t, "on the host", string(value[:length]), "kept")
	})

	t.Run("sockets", func(t *testing.T) {
		first.in(t).inBackground("listening", "files listen /volume/socket hello")
		equal(t, "answer", second.in(t).exec("files", "dial", "/volume/socket"), "hello")
	})

	t.Run("pipes", func(t *testing.T) {
		first.in(t).exec("sh", "-c", "mkfifo /volume/pipe; (echo through > /volume/pipe) > /dev/null 2>&1 &")
		equal(t, "answer", second.in(t).exec("cat", "/volume/pipe"), "through")
	})

	t.Run("inotify", func(t *testing.T) {
		first.in(t).inBackground("watching", "files watch /volume/to")
		second.in(t).exec("touch", "/volume/to/new")
		first.in(t).until("the other container's file to be told", func() error {
			if said := first.in(t).exec("cat", "/tmp/said"); !strings.Contains(said, "create new") {
				return fmt.Errorf("it says %q", said)
			}
			return nil
		})
	})

	t.Run("size of the file system", func(t *testing.T) {
		var stat unix.Statfs_t
		must(t, unix.Statfs(host, &stat))
		said := strings.Fields(first.in(t).exec("files", "fstype", "/volume"))
		equal(t, "bytes", said[1], fmt.Sprint(stat.Blocks*uint64(stat.Bsize)))
	})
}

// Whatever a source is, its container sees what containerd and runc would show.
func TestParityVolumesSources(t *testing.T) {
	n := onNode(t)
	host := n.hostDir()
	on := func(name string) string { return filepath.Join(host, name) }
	must(t, os.MkdirAll(on("dir/sub"), 0o755))
	mustWrite(t, on("dir/sub/file"), "sub")
	mustWrite(t, on("file"), "first")
	mustWrite(t, on("sub file"), "blank")
	must(t, os.Symlink("dir", on("link")))
	must(t, os.Symlink(on("link"), on("link-to-link")))
	// In a container it leads into the container.
	must(t, os.Symlink("/etc", on("dir/to-etc")))
	// A subPath as kubelet gives it: bound to another place.
	must(t, os.MkdirAll(on("volume-subpaths/0"), 0o755))
	must(t, unix.Mount(on("dir/sub"), on("volume-subpaths/0"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(on("volume-subpaths/0"), unix.MNT_DETACH) })
	must(t, os.Mkdir(on("group"), 0o777))
	must(t, os.Chown(on("group"), 0, 2000))
	must(t, unix.Chmod(on("group"), 0o2775))

	c := n.runPod().files("main", mounted(
		bind(on("dir"), "/made/by/runtime"),
		bind(on("file"), "/etc/one"),
		bind(on("file"), "/etc/passwd.d/one", readOnly),
		bind(on("sub file"), "/a file"),
		bind(on("link"), "/link"),
		bind(on("link-to-link")+"/sub", "/deep"),
		bind(on("missing/below"), "/missing"),
		bind(on("volume-subpaths/0"), "/sub"),
		bind(on("dir"), "/below"),
		bind(on("file"), "/below/sub/covered"),
		bind(on("file"), "/below/to-etc/by-link"),
		bind(on("group"), "/group"),
		bind("/", "/host", readOnly),
	), func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.SupplementalGroups = []int64{2000}
	})

	t.Run("files", func(t *testing.T) {
		for path, want := range map[string]string{
			"/made/by/runtime/sub/file": "sub",
			"/etc/one":                  "first",
			"/etc/passwd.d/one":         "first",
			"/a file":                   "blank",
			"/link/sub/file":            "sub",
			"/deep/file":                "sub",
			"/sub/file":                 "sub",
			"/below/sub/covered":        "first",
			"/etc/by-link":              "first",
			"/host" + on("file"):        "first",
		} {
			equal(t, path, c.in(t).exec("cat", path), want)
		}
	})

	t.Run("a missing source becomes a directory", func(t *testing.T) {
		c.in(t).exec("touch", "/missing/new")
		info, err := os.Stat(on("missing/below/new"))
		must(t, err)
		equal(t, "is a directory", info.IsDir(), false)
	})

	t.Run("one file stays that file", func(t *testing.T) {
		c.in(t).exec("sh", "-c", "echo written > /etc/one")
		equal(t, "on the host", mustRead(t, on("file")), "written\n")
		mustWrite(t, on("new"), "new")
		must(t, os.Rename(on("new"), on("file")))
		equal(t, "after another took its name", c.in(t).exec("cat", "/etc/one"), "written")
		_, stderr, code := c.in(t).tryExec("rm", "/etc/one")
		equal(t, "exit code of rm", code, 1)
		contains(t, "rm", stderr, "busy")
	})

	t.Run("a group owns what is written", func(t *testing.T) {
		user := &cri.LinuxContainerSecurityContext{
			RunAsUser: &cri.Int64Value{Value: 1000}, RunAsGroup: &cri.Int64Value{Value: 1000}, SupplementalGroups: []int64{2000},
		}
		writer := c.pod.in(t).files("writer", mounted(bind(on("group"), "/group"), bind(on("dir"), "/dir")), func(config *cri.ContainerConfig) {
			config.Linux.SecurityContext = user
		})
		c.in(t).exec("sh", "-c", "cp -L $(command -v euid) /below/euid && chown 0:0 /below/euid && chmod 4755 /below/euid")
		equal(t, "a set-user-ID program", writer.exec("/dir/euid"), "Effective uid: 0")
		writer.exec("sh", "-c", "echo > /group/file")
		info, err := os.Stat(on("group/file"))
		must(t, err)
		stat := info.Sys().(*syscall.Stat_t)
		equal(t, "owner", fmt.Sprint(stat.Uid, ":", stat.Gid), "1000:2000")
		_, stderr, code := writer.tryExec("touch", "/dir/file")
		equal(t, "exit code where others may not write", code, 1)
		contains(t, "touch", stderr, "Permission denied")
	})
}

func TestParityVolumesAccess(t *testing.T) {
	n := onNode(t)
	host := n.hostDir()
	n.mount(host + "/below")
	mustWrite(t, host+"/file", "file")
	must(t, os.Chmod(host+"/below", 0o777))
	c := n.runPod().idle("main", mounted(
		bind(host, "/rw"), bind(host, "/ro", readOnly), bind(host, "/rro", recursiveReadOnly),
		bind(host+"/file", "/file", readOnly),
	))
	for _, step := range []struct {
		command string
		allowed bool
	}{
		{"touch /rw/a", true},
		{"touch /rw/below/a", true},
		{"touch /ro/b", false},
		{"mkdir /ro/b", false},
		{"rm /ro/a", false},
		{"chmod 600 /ro/file", false},
		{"echo x >> /ro/file", false},
		{"cat /ro/file /ro/below/a", true},
		{"touch /ro/below/b", true},
		{"touch /rro/c", false},
		{"touch /rro/below/c", false},
		{"cat /rro/below/b", true},
		{"echo x >> /file", false},
		{"mount -o remount,rw /ro", false},
	} {
		t.Run(step.command, func(t *testing.T) {
			_, stderr, code := c.in(t).tryExec("sh", "-c", step.command)
			equal(t, "it is allowed", code == 0, step.allowed)
			if !step.allowed && !strings.HasPrefix(step.command, "mount") {
				contains(t, "the error", stderr, readOnlyText)
			}
		})
	}
	told := c.status().Mounts
	equal(t, "mounts told", len(told), 4)
	for _, mount := range told {
		equal(t, mount.ContainerPath+" read-only", mount.Readonly, mount.ContainerPath != "/rw")
		equal(t, mount.ContainerPath+" recursively so", mount.RecursiveReadOnly, mount.ContainerPath == "/rro")
	}
}

// Mounts that the host makes later are seen where that is asked for, and nowhere else.
func TestParityVolumesPropagation(t *testing.T) {
	n := onNode(t)
	host := n.hostDir()
	n.mount(host)
	must(t, unix.Mount("", host, "", unix.MS_SHARED, ""))
	must(t, os.Mkdir(host+"/later", 0o755))
	mustWrite(t, host+"/later/covered", "")
	c := n.runPod().idle("main", mounted(bind(host, "/private"), bind(host, "/slave", hostToContainer)))
	equal(t, "before", c.exec("ls", "/private/later", "/slave/later"), "/private/later:\ncovered\n\n/slave/later:\ncovered")
	n.mount(host + "/later")
	mustWrite(t, host+"/later/file", "later")
	c.until("the host's mount to be seen", func() error {
		if got, _, _ := c.tryExec("cat", "/slave/later/file"); got != "later" {
			return fmt.Errorf("it reads %q", got)
		}
		return nil
	})
	equal(t, "in the private one", c.exec("ls", "/private/later"), "covered")
	must(t, c.Runtime.StopContainer(t.Context(), c.id, 5))
	must(t, unix.Unmount(host+"/later", 0))
}

// in is the container in a part of its test.
func (c *container) in(t *testing.T) *container {
	return &container{c.pod.in(t), c.id, c.config}
}
