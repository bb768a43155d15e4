// Bench measures a pod's life as the project's targets name it, prints a table and writes the same as JSON.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
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
	flag.Usage = usage
	flag.Parse()
	chosen, err := choose(flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	started := time.Now()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	results, err := measure(ctx, chosen)
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

func measure(ctx context.Context, chosen []section) (results *results, err error) {
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
	return (&bench{node: node, results: newResults()}).run(ctx, chosen)
}

type bench struct {
	*results
	node *fixture.Node
}

// section is a part of the measurements that can be had alone.
type section struct {
	name, what string
	measure    func(*bench, context.Context) error
}

var sections = []section{
	{"pods", "a pod's life beside a bare machine's boot", (*bench).pods},
	{"streams", "exec, attach and port-forward", (*bench).streams},
	{"runc", "streams beside containerd and runc", (*bench).besideRunc},
	{"memory", fmt.Sprintf("%d pods at once", manyPods), (*bench).frontendMemory},
	{"pull", "a large image's pull beside containerd's", (*bench).pulls},
	{"files", "files of an image beside those of a host's directory", (*bench).files},
	{"layers", "containers of many layers", (*bench).layers},
}

func usage() {
	fmt.Fprintln(flag.CommandLine.Output(), "usage: bench [-output file] [section...]\n\nAll sections are measured if none is named:")
	for _, s := range sections {
		fmt.Fprintf(flag.CommandLine.Output(), "  %-8s %s\n", s.name, s.what)
	}
	flag.PrintDefaults()
}

// choose finds the sections of such names, or all.
func choose(names []string) ([]section, error) {
	if len(names) == 0 {
		return sections, nil
	}
	var chosen []section
	for _, name := range names {
		i := slices.IndexFunc(sections, func(s section) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no section %q", name)
		}
		chosen = append(chosen, sections[i])
	}
	return chosen, nil
}

func (b *bench) run(ctx context.Context, chosen []section) (*results, error) {
	if err := b.pull(ctx, images.Busybox); err != nil {
		return nil, err
	}
	// The first pod pays for what is made once.
	if err := b.warmUp(ctx); err != nil {
		return nil, err
	}
	for _, s := range chosen {
		fmt.Fprintln(os.Stderr, s.name+":", s.what)
		if err := s.measure(b, ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return b.results, nil
}

func (b *bench) pods(ctx context.Context) error {
	machine, err := b.bareMachine(ctx)
	if err != nil {
		return err
	}
	for range rounds {
		if err := b.round(ctx, machine); err != nil {
			return err
		}
	}
	return nil
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
