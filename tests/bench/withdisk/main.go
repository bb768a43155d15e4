// Command withdisk stands in for QEMU: it gives a VM one disk more, which is the file beside this program, and becomes QEMU.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	err := run()
	fmt.Fprintln(os.Stderr, "withdisk:", err)
	os.Exit(1)
}

func run() error {
	os.Setenv("PATH", "/usr/bin:/bin")
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return err
	}
	disk := []string{
		"-blockdev", "driver=file,node-name=layer,read-only=on,filename=" + os.Args[0] + ".disk",
		"-device", "virtio-blk-device,drive=layer",
	}
	return syscall.Exec(qemu, append(append([]string{qemu}, os.Args[1:]...), disk...), os.Environ())
}
