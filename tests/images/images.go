// Package images makes the test images from programs of the host: small, and the same bytes each time.
package images

import (
	"archive/tar"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// What the images are pulled as. The runtime's mirrors lead this host to the test's own registry.
const (
	// Host is the registry's name in every reference.
	Host = "registry.k8s.io"
	// Busybox has all applets as hard links, a web root at /www, and nothing to run by default but a shell.
	Busybox = Host + "/a3s-box/busybox:1"
	// Layered is made of layers that hide, replace and add files of those below.
	Layered = Host + "/a3s-box/layered:1"
	// Defaults names an entrypoint, arguments, environment, working directory and stop signal.
	Defaults = Host + "/a3s-box/defaults:1"
	// User runs as uid 1002.
	User = Host + "/a3s-box/user:1"
	// NamedUser runs as www-data.
	NamedUser = Host + "/a3s-box/named-user:1"
	// Tools has iptables, ip, ss, setcap and getcap of the host.
	Tools = Host + "/a3s-box/tools:1"
	// CappedFile is a file of Tools that has the file capability cap_net_raw.
	CappedFile = "/opt/capped"
	// Vsock runs the program that measures a pod's channel to its host; it is not among All.
	Vsock = Host + "/a3s-box/vsock:1"
	// Files has /bin/files, which does to files what a shell cannot, and /bin/euid, setuid root, which says as whom it runs. Its root
	// directory is RootMode, of group RootGroup, and has the attribute RootAttribute.
	Files = Host + "/a3s-box/files:1"
	// What Files says of its root directory.
	RootMode, RootGroup, RootAttribute, RootValue = 0o751, 7, "user.root", "of an image"
	// Pause sleeps: what other runtimes hold a pod's namespaces with.
	Pause = Host + "/pause:3.10"
	// Absent is in no registry.
	Absent = Host + "/a3s-box/absent:1"
)

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Image is an image and the references it is pushed as.
type Image struct {
	References []string
	v1.Image
}

// All makes every test image.
func All() ([]Image, error) {
	base, err := busybox(busyboxProgram, passwd, group).build()
	if err != nil {
		return nil, err
	}
	programs, err := os.MkdirTemp("", "a3s-images-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(programs)
	files, err := staticProgram("files", programs)
	if err != nil {
		return nil, err
	}
	euid, err := staticProgram("nonewprivs", programs)
	if err != nil {
		return nil, err
	}
	shell := v1.Config{Cmd: []string{"sh"}}
	withUser := func(user string) v1.Config { return v1.Config{Cmd: shell.Cmd, User: user} }
	var made []Image
	for _, description := range []struct {
		reference string
		config    v1.Config
		layers    []*layer
	}{
		{Busybox, shell, nil},
		{Layered, shell, layered()},
		{Defaults, defaults, nil},
		{User, withUser("1002"), nil},
		{NamedUser, withUser("www-data"), nil},
		{Pause, v1.Config{Entrypoint: []string{"sleep", "2147483647"}}, nil},
		{Tools, shell, []*layer{tools()}},
		{Files, shell, []*layer{specialRoot().copy("bin/files", files, 0o755).copy("bin/euid", euid, setuid)}},
	} {
		image, err := assemble(description.config, base, description.layers)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", description.reference, err)
		}
		made = append(made, Image{[]string{description.reference}, image})
	}
	return made, nil
}

var defaults = v1.Config{
	Entrypoint: []string{"sh", "-c", `echo "$0 $1 $GREETING $(pwd)"`},
	Cmd:        []string{"image-argument"},
	Env:        []string{"GREETING=from-image"},
	WorkingDir: "/www",
	StopSignal: "SIGINT",
}

// layered shows each way in which a layer changes what lies below it.
func layered() []*layer {
	return []*layer{
		newLayer().
			file("data/kept", "bottom", 0o644).
			file("data/replaced", "bottom", 0o644).
			file("data/hidden", "bottom", 0o644).
			file("data/directory/hidden", "bottom", 0o644).
			file("data/reborn/hidden", "bottom", 0o644).
			file("data/secret", "bottom", 0o600),
		newLayer().
			file("data/replaced", "middle", 0o644).
			whiteout("data/hidden").
			whiteout("data/directory").
			opaque("data/reborn").
			file("data/reborn/new", "middle", 0o644),
		newLayer().
			file("data/top", "top", 0o644).
			symlink("data/link", "top").
			hardLink("data/hard-link", "data/top"),
	}
}

// specialRoot is a layer that says what the root directory is like.
func specialRoot() *layer {
	return newLayer().entry(tar.Header{
		Typeflag: tar.TypeDir, Name: "./", Mode: RootMode, Gid: RootGroup, ModTime: modified,
		PAXRecords: map[string]string{"SCHILY.xattr." + RootAttribute: RootValue},
	}, nil)
}

func assemble(config v1.Config, base v1.Layer, upper []*layer, top ...v1.Layer) (v1.Image, error) {
	layers := []v1.Layer{base}
	for _, l := range upper {
		built, err := l.build()
		if err != nil {
			return nil, err
		}
		layers = append(layers, built)
	}
	layers = append(layers, top...)
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(image, layers...)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Architecture, file.OS = "amd64", "linux"
	file.Created = v1.Time{Time: modified}
	file.Config = config
	file.Config.Env = append([]string{searchPath}, config.Env...)
	return mutate.ConfigFile(image, file)
}
