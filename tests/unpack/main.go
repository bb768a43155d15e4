// Command unpack applies layers to an empty directory with containerd's own code, each an uncompressed tar file, the lowest first:
// what our layers are compared with. A Go module of its own, so that containerd's dependencies are no other test's.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/pkg/archive"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: unpack DIRECTORY LAYER...")
		os.Exit(2)
	}
	for _, layer := range os.Args[2:] {
		if err := apply(os.Args[1], layer); err != nil {
			fmt.Fprintf(os.Stderr, "unpack %s: %v\n", layer, err)
			os.Exit(1)
		}
	}
}

func apply(directory, layer string) error {
	file, err := os.Open(layer)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = archive.Apply(context.Background(), directory, file)
	return err
}
