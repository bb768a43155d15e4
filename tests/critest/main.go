// Critest runs the CRI's conformance tests, and a walk through crictl, against a node made for it. Both programs must be on PATH:
// they are part of cri-tools, which is not to be had as a Go module. Its arguments are critest's; without any it runs all tests, and
// those of streaming once more over WebSockets.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

// What the tests may take for a call that boots a VM.
const callTimeout = time.Minute

func main() {
	started := time.Now()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	err := run(ctx)
	took := time.Since(started).Round(time.Second)
	if err != nil {
		fmt.Fprintf(os.Stderr, "critest: failed after %s: %v\n", took, err)
		os.Exit(1)
	}
	fmt.Printf("critest: done in %s\n", took)
}

func run(ctx context.Context) (err error) {
	for _, program := range []string{"crictl", "critest"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: build it from kubernetes-sigs/cri-tools", err)
		}
	}
	made, err := critestImages()
	if err != nil {
		return err
	}
	node, err := fixture.Start(ctx, fixture.Options{Images: made})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close(context.Background())) }()
	if err := walk(ctx, node); err != nil {
		return err
	}
	endpoint := "unix://" + node.Socket()
	arguments := []string{
		"-runtime-endpoint", endpoint,
		"-image-endpoint", endpoint,
		"-runtime-service-timeout", callTimeout.String(),
	}
	ways := [][]string{os.Args[1:]}
	if len(os.Args) == 1 {
		ways = append(ways, overWebSockets)
	}
	for _, way := range ways {
		err = errors.Join(err, command(ctx, "critest", slices.Concat(arguments, way)...))
	}
	return err
}

var overWebSockets = []string{"-ginkgo.focus=Streaming", "-websocket-exec", "-websocket-attach", "-websocket-portforward"}

func critestImages() ([]images.Image, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	cache = filepath.Join(cache, "a3s-box", "critest")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	return images.Critest(cache)
}

func command(ctx context.Context, program string, arguments ...string) error {
	run := exec.CommandContext(ctx, program, arguments...)
	run.Stdout, run.Stderr = os.Stdout, os.Stderr
	if err := run.Run(); err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	return nil
}
