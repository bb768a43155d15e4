package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

func TestImageIsPulledListedAndRemoved(t *testing.T) {
	n := onNode(t)
	spec := &cri.ImageSpec{Image: images.User}
	must(t, n.Images.RemoveImage(t.Context(), spec))
	id := n.pull(images.User)

	found, err := n.Images.ImageStatus(t.Context(), spec, false)
	must(t, err)
	equal(t, "id", found.Image.Id, id)
	equal(t, "user", found.Image.Uid.GetValue(), 1002)
	if found.Image.Size == 0 {
		t.Error("the image has no size")
	}
	if !slices.Contains(found.Image.RepoTags, images.User) {
		t.Errorf("tags: %v", found.Image.RepoTags)
	}
	listed, err := n.Images.ListImages(t.Context(), &cri.ImageFilter{Image: spec})
	must(t, err)
	sameIDs(t, images.User, listed, (*cri.Image).GetId, []string{id})

	for range 2 {
		must(t, n.Images.RemoveImage(t.Context(), spec))
	}
	found, err = n.Images.ImageStatus(t.Context(), spec, false)
	must(t, err)
	if found.Image != nil {
		t.Errorf("the removed image is still there: %v", found.Image)
	}
}

func TestPinnedImageIsSaidToBeAndStays(t *testing.T) {
	n := ownNode(t, fixture.Options{Config: fixture.Config{"images.pinned": []string{images.User}}})
	pinned, other := n.pull(images.User), n.pull(images.Defaults)
	status, err := n.Images.ImageStatus(t.Context(), &cri.ImageSpec{Image: pinned}, false)
	must(t, err)
	equal(t, "pinned in its status", status.Image.GetPinned(), true)
	says := func() string {
		t.Helper()
		listed, err := n.Images.ListImages(t.Context(), nil)
		must(t, err)
		told := map[string]bool{}
		for _, image := range listed {
			told[image.Id] = image.Pinned
		}
		return fmt.Sprint(told)
	}
	equal(t, "pinned in the list", says(), fmt.Sprint(map[string]bool{pinned: true, other: false}))
	for _, name := range append(status.Image.RepoDigests, images.User, pinned) {
		err := n.Images.RemoveImage(t.Context(), &cri.ImageSpec{Image: name})
		refused(t, err, codes.FailedPrecondition, name, "images.pinned")
	}
	must(t, n.Images.RemoveImage(t.Context(), &cri.ImageSpec{Image: other}))
	equal(t, "what is left", says(), fmt.Sprint(map[string]bool{pinned: true}))
	table, err := n.Command(t.Context(), "images").CombinedOutput()
	must(t, err)
	contains(t, "the table of images", string(table), "(pinned)")
}

func TestImageIsPulledByDigest(t *testing.T) {
	n := onNode(t)
	id := n.pull(busybox)
	found, err := n.Images.ImageStatus(t.Context(), &cri.ImageSpec{Image: busybox}, false)
	must(t, err)
	if len(found.Image.RepoDigests) != 1 {
		t.Fatalf("digests: %v", found.Image.RepoDigests)
	}
	byDigest, err := n.Images.PullImage(t.Context(), &cri.ImageSpec{Image: found.Image.RepoDigests[0]}, nil, nil)
	must(t, err)
	equal(t, "id", byDigest, id)
	p := n.runPod()
	config := fixture.ContainerConfig("main", busybox, "true")
	config.Image.Image = id
	p.start(config).succeeds()
}

func TestLayersHideReplaceAndAddFiles(t *testing.T) {
	c := onNode(t).runPod().start(fixture.ContainerConfig("main", images.Layered, "sh", "-c", "cd /data; find . -type f -o -type l | sort | xargs grep ''; stat -c '%a %n' secret"))
	want := []string{
		"./hard-link:top", "./kept:bottom", "./link:top", "./reborn/new:middle", "./replaced:middle", "./secret:bottom", "./top:top",
		"600 secret",
	}
	equal(t, "files", strings.TrimSpace(c.succeeds()), strings.Join(want, "\n"))
}

func TestContainersOfOneImageDoNotSeeEachOthersFiles(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	first, second := p.idle("first"), p.idle("second")
	first.exec("sh", "-c", "echo mine > /www/index.html")
	equal(t, "the other's file", second.exec("cat", "/www/index.html"), "hello from a pod")

	output, err := n.Command(t.Context(), "images").CombinedOutput()
	must(t, err)
	contains(t, "the table of images", string(output), busybox, first.id[:13], second.id[:13])
	output, err = n.Command(t.Context(), "images", "--layers").CombinedOutput()
	must(t, err)
	contains(t, "the table of layers", string(output), "layer.erofs", "of "+busybox)

	// The merged root is the writable layer's, and looks as the image's.
	root := p.start(fixture.ContainerConfig("root", images.Files, "sh", "-c", "stat -c '%a %u:%g' /; files getattr / "+images.RootAttribute))
	equal(t, "the root", root.succeeds(), fmt.Sprintf("%o 0:%d\n%s\n", images.RootMode, images.RootGroup, images.RootValue))
}

func TestImageFsInfoIsExactAndASecondPodAddsNoImageBytes(t *testing.T) {
	n := onNode(t)
	n.runPod().idle("main")
	images, inodes := n.imageBytes(), n.imageInodes()
	onDisk, files := n.diskUsage("images")
	equal(t, "bytes of images", images, onDisk)
	equal(t, "files of images", inodes, files)

	second := n.runPod().idle("main")
	equal(t, "bytes of images with a second pod", n.imageBytes(), images)
	equal(t, "files of images with a second pod", n.imageInodes(), inodes)

	before, _ := n.diskUsage("pods")
	second.exec("sh", "-c", "dd if=/dev/zero of=/written bs=1M count=8 && sync")
	n.until("ImageFsInfo to say what is on disk", func() error {
		info, err := n.Images.ImageFsInfo(t.Context())
		must(t, err)
		onDisk, files := n.diskUsage("pods")
		said := info.ContainerFilesystems[0]
		if onDisk < before+8<<20 || said.UsedBytes.GetValue() != onDisk || said.InodesUsed.GetValue() != files {
			return fmt.Errorf("it says %v, and %d bytes in %d files are on disk, %d before 8 MiB were written", said, onDisk, files, before)
		}
		if mount := said.FsId.GetMountpoint(); mount != n.RootDir() {
			return fmt.Errorf("the mount point is %q", mount)
		}
		return nil
	})
}

func TestUnknownImageIsNotFound(t *testing.T) {
	n := onNode(t)
	_, err := n.Images.PullImage(t.Context(), &cri.ImageSpec{Image: images.Absent}, nil, nil)
	refused(t, err, codes.NotFound, images.Absent)
	p := n.runPod()
	_, err = n.Runtime.CreateContainer(t.Context(), p.id, fixture.ContainerConfig("main", images.Absent, "true"), p.config)
	refused(t, err, codes.NotFound, images.Absent)
}

func TestUnreachableRegistryIsUnavailable(t *testing.T) {
	// Port 1 of loopback: nobody listens.
	_, err := onNode(t).Images.PullImage(t.Context(), &cri.ImageSpec{Image: "127.0.0.1:1/image:1"}, nil, nil)
	refused(t, err, codes.Unavailable, "127.0.0.1:1")
}

func TestMalformedReferenceIsRefused(t *testing.T) {
	_, err := onNode(t).Images.PullImage(t.Context(), &cri.ImageSpec{Image: "UPPER//case:"}, nil, nil)
	refused(t, err, codes.InvalidArgument, "UPPER//case:")
}
