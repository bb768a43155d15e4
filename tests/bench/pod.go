package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

const (
	execsPerPod = 5
	// Containers besides a pod's first, which also pays for what the guest does once.
	laterContainers = 2
	// How often, and how far apart, memory is read: what an allocator gives back, it gives back later.
	memorySamples        = 10
	betweenMemorySamples = time.Second
)

func (b *bench) pull(ctx context.Context, reference string) error {
	_, err := b.node.Images.PullImage(ctx, &cri.ImageSpec{Image: reference}, nil, nil)
	return err
}

func (b *bench) warmUp(ctx context.Context) error {
	discarded := &bench{node: b.node, results: newResults()}
	_, err := discarded.life(ctx)
	return err
}

// life runs a pod with one container from its start to its removal, and returns how long RunPodSandbox took.
func (b *bench) life(ctx context.Context) (time.Duration, error) {
	runtime, config := b.node.Runtime, b.node.PodConfig("bench")
	start := time.Now()
	sandbox, err := runtime.RunPodSandbox(ctx, config, "")
	if err != nil {
		return 0, err
	}
	cold := time.Since(start)

	id, took, err := b.createStart(ctx, sandbox, config, "first")
	if err != nil {
		return 0, err
	}
	b.add(createStartFirstMS, milliseconds(took))
	for attempt := range laterContainers {
		id, took, err := b.createStart(ctx, sandbox, config, fmt.Sprint("later", attempt))
		if err != nil {
			return 0, err
		}
		b.add(createStartMS, milliseconds(took))
		if err := runtime.StopContainer(ctx, id, 0); err != nil {
			return 0, err
		}
		if err := runtime.RemoveContainer(ctx, id); err != nil {
			return 0, err
		}
	}

	for range execsPerPod {
		start = time.Now()
		if _, _, err := runtime.ExecSync(ctx, id, []string{"true"}, 10*time.Second); err != nil {
			return 0, err
		}
		b.add(execSyncMS, milliseconds(time.Since(start)))
	}
	if err := b.shimMemory(sandbox); err != nil {
		return 0, err
	}

	start = time.Now()
	for _, call := range []func() error{
		func() error { return runtime.StopContainer(ctx, id, 0) },
		func() error { return runtime.RemoveContainer(ctx, id) },
		func() error { return runtime.StopPodSandbox(ctx, sandbox) },
		func() error { return runtime.RemovePodSandbox(ctx, sandbox) },
	} {
		if err := call(); err != nil {
			return 0, err
		}
	}
	b.add(teardownMS, milliseconds(time.Since(start)))
	return cold, nil
}

func (b *bench) createStart(ctx context.Context, sandbox string, pod *cri.PodSandboxConfig, name string) (id string, took time.Duration, err error) {
	return b.createStarted(ctx, sandbox, pod, fixture.ContainerConfig(name, images.Busybox, "sleep", "3600"))
}

func (b *bench) createStarted(ctx context.Context, sandbox string, pod *cri.PodSandboxConfig, config *cri.ContainerConfig) (id string, took time.Duration, err error) {
	start := time.Now()
	if id, err = b.node.Runtime.CreateContainer(ctx, sandbox, config, pod); err == nil {
		err = b.node.Runtime.StartContainer(ctx, id)
	}
	return id, time.Since(start), err
}

// inPod does something in a pod of its own.
func (b *bench) inPod(ctx context.Context, config *cri.PodSandboxConfig, do func(sandbox string) error) (err error) {
	sandbox, err := b.node.Runtime.RunPodSandbox(ctx, config, "")
	if err != nil {
		return err
	}
	defer func() {
		ctx := context.WithoutCancel(ctx)
		err = errors.Join(err, b.node.Runtime.StopPodSandbox(ctx, sandbox), b.node.Runtime.RemovePodSandbox(ctx, sandbox))
	}()
	return do(sandbox)
}

func (b *bench) shimMemory(sandbox string) error {
	shims := b.node.PodProcesses(sandbox, "a3s-box-shim")
	if len(shims) != 1 {
		return fmt.Errorf("pod %s has %d shims", sandbox, len(shims))
	}
	kb, err := kilobytes(shims[0].PID, "smaps_rollup", "Pss:")
	b.add(shimPSSMB, kb/1024)
	return err
}

// frontendMemory reads the frontend's own memory while many pods are up.
func (b *bench) frontendMemory(ctx context.Context) error {
	var sandboxes []string
	var failed error
	for range manyPods {
		sandbox, err := b.node.Runtime.RunPodSandbox(ctx, b.node.PodConfig("many"), "")
		if err != nil {
			failed = err
			break
		}
		sandboxes = append(sandboxes, sandbox)
	}
	for sample := 0; failed == nil && sample < memorySamples; sample++ {
		time.Sleep(betweenMemorySamples)
		var kb float64
		if kb, failed = kilobytes(b.node.FrontendPID(), "status", "RssAnon:"); failed == nil {
			b.add(frontendRSSMB, kb/1024)
		}
	}
	for _, sandbox := range sandboxes {
		failed = errors.Join(failed, b.node.Runtime.StopPodSandbox(ctx, sandbox), b.node.Runtime.RemovePodSandbox(ctx, sandbox))
	}
	return failed
}

// kilobytes reads a figure of /proc/<pid>/<file>.
func kilobytes(pid int, file, key string) (float64, error) {
	path := filepath.Join("/proc", strconv.Itoa(pid), file)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == key {
			return strconv.ParseFloat(fields[1], 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, key)
}
