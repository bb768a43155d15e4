package images

import v1 "github.com/google/go-containerregistry/pkg/v1"

// VsockProgram is where the image Vsock has its program.
const VsockProgram = "/vsock"

// MakeVsock makes the image Vsock: busybox, and the program, which is built into a cache directory.
func MakeVsock(cache string) (Image, error) {
	program, err := staticProgram("vsock", cache)
	if err != nil {
		return Image{}, err
	}
	base, err := busybox(busyboxProgram, passwd, group).build()
	if err != nil {
		return Image{}, err
	}
	image, err := assemble(v1.Config{Cmd: []string{"sh"}}, base, []*layer{newLayer().copy(VsockProgram[1:], program, 0o755)})
	return Image{[]string{Vsock}, image}, err
}
