// Overhead measures what a pod costs beside its containers, on the host and in the guest, and compares it with what the
// configuration reckons with and the RuntimeClass states.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

const (
	pods  = 5
	vmMB  = 256
	mebi  = 1 << 20
	milli = 1e-3
)

func main() {
	repository := flag.String("repository", "..", "the `directory` with packaging/")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *repository); err != nil {
		fmt.Fprintln(os.Stderr, "overhead:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, repository string) error {
	stated, err := readStated(filepath.Join(repository, "packaging"))
	if err != nil {
		return err
	}
	measured, err := measure(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "\nof %d pods, the largest\tmeasured\treckoned with\t\n", pods)
	fmt.Fprintf(table, "host: shim, VMM, helpers (MiB)\t%.1f\t%d\t\n", measured.host/mebi, stated.hostMB)
	fmt.Fprintf(table, "host: the emulator's buffer (MiB)\t%.1f\t%d\t\n", measured.buffer/mebi, stated.bufferMB)
	fmt.Fprintf(table, "guest: kernel and agent (MiB)\t%.1f\t%d\t\n", measured.guest/mebi, stated.guestMB)
	fmt.Fprintf(table, "podFixed memory, the sum (MiB)\t\t%d\t\n", stated.hostMB+stated.bufferMB+stated.guestMB)
	fmt.Fprintf(table, "podFixed cpu, of an idle pod (m)\t%.0f\t%d\t\n", measured.cpu/milli, stated.podFixedCPU)
	if err := table.Flush(); err != nil {
		return err
	}
	return stated.check(measured)
}

// figures are bytes, and processors.
type figures struct{ host, buffer, guest, cpu float64 }

func measure(ctx context.Context) (largest figures, err error) {
	node, err := fixture.Start(ctx, fixture.Options{Config: fixture.Config{"log.filter": "info", "vm.default_memory_mb": vmMB}})
	if err != nil {
		return figures{}, err
	}
	defer func() { err = errors.Join(err, node.Close(context.Background())) }()
	if _, err := node.Images.PullImage(ctx, &cri.ImageSpec{Image: images.Busybox}, nil, nil); err != nil {
		return figures{}, err
	}
	var running []*pod
	defer func() {
		for _, pod := range running {
			err = errors.Join(err, pod.remove())
		}
	}()
	for range pods {
		pod, err := runPod(ctx, node)
		if err != nil {
			return figures{}, err
		}
		running = append(running, pod)
	}
	// All are up before the first is measured: their processor time is that of pods at rest.
	for _, pod := range running {
		one, err := pod.measure(ctx)
		if err != nil {
			return figures{}, err
		}
		largest = figures{
			host: max(largest.host, one.host), buffer: max(largest.buffer, one.buffer),
			guest: max(largest.guest, one.guest), cpu: max(largest.cpu, one.cpu),
		}
	}
	return largest, nil
}
