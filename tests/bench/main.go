// Bench measures a pod's life as the project's targets name it, prints a table and writes the same as JSON.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

const (
	rounds = 12
	// How many pods are up when the frontend's memory is read.
	manyPods = 20
)

func main() {
	output := flag.String("output", "../target/bench.json", "the `file` for the numbers")
	only := flag.String("only", "", "measure only this `part`: streams or runc")
	flag.Parse()
	started := time.Now()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	results, err := measure(ctx, *only)
	if err == nil {
		results.print(os.Stdout)
		err = results.write(*output)
	}
	took := time.Since(started).Round(time.Second)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: failed after %s: %v\n", took, err)
		os.Exit(1)
	}
	fmt.Printf("\nbench: measured in %s; the numbers are in %s too\n", took, *output)
}

func measure(ctx context.Context, only string) (results *results, err error) {
	vsock, err := vsockImage()
	if err != nil {
		return nil, err
	}
	node, err := fixture.Start(ctx, fixture.Options{
		Config: fixture.Config{"log.filter": "info", "vm.default_memory_mb": 256},
		Images: []images.Image{vsock},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, node.Close(context.Background())) }()
	b := &bench{node: node, results: newResults()}
	switch only {
	case "":
		return b.run(ctx)
	case "streams":
		return b.results, b.streams(ctx)
	case "runc":
		return b.results, errors.Join(b.pull(ctx, images.Busybox), b.besideRunc(ctx))
	default:
		return nil, fmt.Errorf("there is no part %q to be measured alone", only)
	}
}

type bench struct {
	*results
	node *fixture.Node
}

func (b *bench) run(ctx context.Context) (*results, error) {
	if err := b.pull(ctx, images.Busybox); err != nil {
		return nil, err
	}
	// The first pod pays for what is made once; the second is what the bare machine is copied from.
	if err := b.warmUp(ctx); err != nil {
		return nil, err
	}
	machine, err := b.bareMachine(ctx)
	if err != nil {
		return nil, err
	}
	for round := range rounds {
		fmt.Fprintf(os.Stderr, "\rround %d of %d", round+1, rounds)
		if err := b.round(ctx, machine); err != nil {
			return nil, err
		}
	}
	fmt.Fprintln(os.Stderr, "\rstreams           ")
	if err := b.streams(ctx); err != nil {
		return nil, fmt.Errorf("streams: %w", err)
	}
	fmt.Fprintln(os.Stderr, "streams beside containerd and runc")
	if err := b.besideRunc(ctx); err != nil {
		return nil, fmt.Errorf("beside runc: %w", err)
	}
	fmt.Fprintf(os.Stderr, "%d pods at once\n", manyPods)
	return b.results, b.frontendMemory(ctx)
}

func (b *bench) round(ctx context.Context, machine *machine) error {
	boot, err := machine.boot(ctx)
	if err != nil {
		return err
	}
	b.add(bootMS, milliseconds(boot))
	cold, err := b.life(ctx)
	if err != nil {
		return err
	}
	b.add(runpMS, milliseconds(cold))
	b.add(runpColdRatio, float64(cold)/float64(boot))
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
