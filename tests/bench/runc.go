package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"a3s.box/tests/images"
)

// What an exec writes to be compared.
const comparedMiB = 256

// besideRunc takes the same time on this node and on one of containerd and runc, in turns, so that both have the machine as it is.
func (b *bench) besideRunc(ctx context.Context) error {
	return b.withContainerd(ctx, "", func(runc *bench) error {
		if err := runc.pull(ctx, images.Busybox); err != nil {
			return err
		}
		return b.withIdle(ctx, func(ours string) error {
			return runc.withIdle(ctx, func(theirs string) error { return b.compareExecs(ctx, ours, runc, theirs) })
		})
	})
}

func (b *bench) compareExecs(ctx context.Context, ours string, runc *bench, theirs string) error {
	for range streamRounds {
		if err := b.compare(ctx, execVsRunc, ours, runc, theirs, 0, "true"); err != nil {
			return err
		}
	}
	output := []string{"dd", "if=/dev/zero", "bs=64k", fmt.Sprintf("count=%d", comparedMiB*16)}
	for range streamRounds {
		if err := b.compare(ctx, execStdoutVsRunc, ours, runc, theirs, comparedMiB<<20, output...); err != nil {
			return err
		}
	}
	return nil
}

// compare runs a command that writes so many bytes on both, and adds how many times as long it took here.
func (b *bench) compare(ctx context.Context, m metric, ours string, runc *bench, theirs string, bytes int, command ...string) error {
	here, err := b.execTime(ctx, ours, bytes, command)
	if err != nil {
		return err
	}
	there, err := runc.execTime(ctx, theirs, bytes, command)
	if err != nil {
		return fmt.Errorf("runc: %w", err)
	}
	fmt.Fprintf(os.Stderr, "  %s: %s, with runc %s\n", m.name, here.Round(time.Millisecond), there.Round(time.Millisecond))
	b.add(m, float64(here)/float64(there))
	return nil
}

func (b *bench) execTime(ctx context.Context, id string, bytes int, command []string) (time.Duration, error) {
	var count counter
	start := time.Now()
	if err := b.execTo(ctx, id, &count, command...); err != nil {
		return 0, err
	}
	if count != counter(bytes) {
		return 0, fmt.Errorf("%q wrote %d bytes of %d", command, count, bytes)
	}
	return time.Since(start), nil
}

// withIdle does something with a container that does nothing, in a pod of its own.
func (b *bench) withIdle(ctx context.Context, do func(container string) error) error {
	config := b.node.PodConfig("idle")
	return b.inPod(ctx, config, func(sandbox string) error {
		id, _, err := b.createStart(ctx, sandbox, config, "idle")
		if err != nil {
			return err
		}
		return do(id)
	})
}
