package e2e

import (
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

// imageVolume mounts an image, or a directory of it.
func imageVolume(image, path, subPath string) *cri.Mount {
	return &cri.Mount{
		ContainerPath: path, Readonly: true, ImageSubPath: subPath,
		Image: &cri.ImageSpec{Image: image, UserSpecifiedImage: image},
	}
}

func TestParityImageVolumeShowsTheImageReadOnly(t *testing.T) {
	n := onNode(t)
	n.pull(images.Layered)
	p := n.runPod()
	c := p.idle("main", mounted(
		imageVolume(images.Layered, "/whole", ""),
		imageVolume(images.Layered, "/part", "data/reborn"),
		imageVolume(images.Busybox, "/other", "www"),
	))
	equal(t, "what the layers hide and replace", c.exec("sh", "-c", "cd /whole/data; ls; cat replaced"),
		"hard-link\nkept\nlink\nreborn\nreplaced\nsecret\ntop\nmiddle")
	equal(t, "the sub path", c.exec("ls", "/part"), "new")
	equal(t, "another image", c.exec("cat", "/other/index.html"), "hello from a pod")
	equal(t, "a program of the image", c.exec("/whole/bin/echo", "it runs"), "it runs")
	for _, path := range []string{"/whole/file", "/part/file", "/whole/data/kept"} {
		if _, stderr, code := c.tryExec("sh", "-c", "echo x > "+path); code == 0 {
			t.Errorf("%s was written", path)
		} else {
			contains(t, "the write", stderr, "Read-only file system")
		}
	}
	// A second container of the pod has the same image again.
	second := p.idle("second", mounted(imageVolume(images.Layered, "/again", "data")))
	equal(t, "in a second container", second.exec("cat", "/again/kept"), "bottom")
}

func TestParityImageVolumeIsRefused(t *testing.T) {
	n := onNode(t)
	n.pull(images.Layered)
	p := n.runPod()
	refuse := func(name, word string, mount *cri.Mount) {
		config := fixture.ContainerConfig(name, images.Busybox, "true")
		config.Mounts = []*cri.Mount{mount}
		p.pull(images.Busybox)
		id, err := p.Runtime.CreateContainer(t.Context(), p.id, config, p.config)
		if err == nil {
			// What only the guest can see is told by the start.
			err = p.Runtime.StartContainer(t.Context(), id)
		}
		if err == nil {
			t.Errorf("%s: it started", name)
			return
		}
		contains(t, name, err.Error(), word)
	}
	writable := imageVolume(images.Layered, "/image", "")
	writable.Readonly = false
	refuse("writable", "readonly", writable)
	both := imageVolume(images.Layered, "/image", "")
	both.HostPath = "/srv"
	refuse("both", "host", both)
	refuse("absent", images.Absent, imageVolume(images.Absent, "/image", ""))
	refuse("missing", "no-such", imageVolume(images.Layered, "/image", "data/no-such"))
	refuse("file", "data/kept", imageVolume(images.Layered, "/image", "data/kept"))
	refuse("above", "..", imageVolume(images.Layered, "/image", "data/../../etc"))
	refuse("absolute", "/data", imageVolume(images.Layered, "/image", "/data"))
}
