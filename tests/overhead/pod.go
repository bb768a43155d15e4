package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

const (
	atRest    = 5 * time.Second
	execBound = 2 * time.Minute
	// Fills what grows with use: the caches of virtiofsd, QEMU's requests, the emulator's buffer.
	exercise = `find / -xdev -type f -exec cat {} + >/dev/null 2>&1
dd if=/dev/zero of=/file bs=1M count=64 2>/dev/null; sync; rm /file; sync; sleep 1`
)

// pod is an idle pod.
type pod struct {
	node      *fixture.Node
	sandbox   string
	container string
}

func runPod(ctx context.Context, node *fixture.Node) (*pod, error) {
	config := node.PodConfig("idle")
	sandbox, err := node.Runtime.RunPodSandbox(ctx, config, "")
	if err != nil {
		return nil, err
	}
	p := &pod{node: node, sandbox: sandbox}
	p.container, err = node.Runtime.CreateContainer(ctx, sandbox, fixture.ContainerConfig("idle", images.Busybox, "sleep", "3600"), config)
	if err == nil {
		err = node.Runtime.StartContainer(ctx, p.container)
	}
	if err != nil {
		return nil, errors.Join(err, p.remove())
	}
	return p, nil
}

func (p *pod) remove() error {
	ctx := context.Background()
	return errors.Join(p.node.Runtime.StopPodSandbox(ctx, p.sandbox), p.node.Runtime.RemovePodSandbox(ctx, p.sandbox))
}

func (p *pod) exec(ctx context.Context, script string) (string, error) {
	stdout, _, err := p.node.Runtime.ExecSync(ctx, p.container, []string{"sh", "-c", script}, execBound)
	return string(stdout), err
}

func (p *pod) measure(ctx context.Context) (figures, error) {
	cpu, err := p.processorAtRest(ctx)
	if err != nil {
		return figures{}, err
	}
	if _, err := p.exec(ctx, exercise); err != nil {
		return figures{}, err
	}
	available, err := p.available(ctx)
	if err != nil {
		return figures{}, err
	}
	charged, err := p.charged()
	if err != nil {
		return figures{}, err
	}
	buffer, err := p.translationBuffer()
	// The VM is larger by its page table, which grows with it.
	const pageTable = vmMB * mebi / 64
	return figures{host: charged - buffer, buffer: buffer, guest: vmMB*mebi - pageTable - available, cpu: cpu}, err
}

// available is what containers could have, in bytes. What lies freed on a processor's own list counts, too: MemAvailable leaves it out,
// and it goes to who needs it.
func (p *pod) available(ctx context.Context) (float64, error) {
	table, err := p.exec(ctx, `cat /proc/meminfo; awk '$1 == "count:" { pages += $2 } END { print "Listed:", pages * 4, "kB" }' /proc/zoneinfo`)
	if err != nil {
		return 0, err
	}
	available, err := kilobytes(table, "MemAvailable")
	if err != nil {
		return 0, err
	}
	listed, err := kilobytes(table, "Listed")
	return available + listed, err
}

// processorAtRest is the share of a processor that the pod takes while nothing happens in it.
func (p *pod) processorAtRest(ctx context.Context) (float64, error) {
	before, err := p.processorTime()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	select {
	case <-time.After(atRest):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := p.processorTime()
	return (after - before).Seconds() / time.Since(start).Seconds(), err
}

func (p *pod) processorTime() (time.Duration, error) {
	for _, nanoseconds := range p.values("cpuacct.usage") {
		return parse(nanoseconds, time.Nanosecond)
	}
	for _, stat := range p.values("cpu.stat") {
		if microseconds, found := valueOf(stat, "usage_usec"); found {
			return parse(microseconds, time.Microsecond)
		}
	}
	return 0, errors.New("no cgroup counts processor time")
}

func parse(text string, unit time.Duration) (time.Duration, error) {
	number, err := strconv.ParseInt(text, 10, 64)
	return time.Duration(number) * unit, err
}

// charged is what the host's kernel charges the pod's cgroup with and cannot take back, but for the guest's memory, which is a
// shared memory file: pages of the processes' own, and the kernel's for them.
func (p *pod) charged() (float64, error) {
	for _, stat := range p.values("memory.stat") {
		own, found := valueOf(stat, "anon")
		kernel, _ := valueOf(stat, "kernel")
		if !found {
			own, found = valueOf(stat, "rss")
			kernel = strings.Join(p.values("memory.kmem.usage_in_bytes"), "")
		}
		if found {
			return sum(own, kernel)
		}
	}
	return 0, errors.New("no cgroup counts memory")
}

func sum(texts ...string) (total float64, err error) {
	for _, text := range texts {
		number, parseErr := strconv.ParseFloat(text, 64)
		total, err = total+number, errors.Join(err, parseErr)
	}
	return total, err
}

// translationBuffer is the part of QEMU's own memory that holds translated code: anonymous, and executable.
func (p *pod) translationBuffer() (float64, error) {
	var bytes float64
	for _, process := range p.node.PodProcesses(p.sandbox, "qemu") {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", process.PID))
		if err != nil {
			return 0, err
		}
		counts := false
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if !strings.HasSuffix(fields[0], ":") {
				counts = strings.Contains(fields[1], "x") && len(fields) == 5
			} else if counts && fields[0] == "Rss:" {
				number, err := strconv.ParseFloat(fields[1], 64)
				if err != nil {
					return 0, err
				}
				bytes += number * 1024
			}
		}
	}
	return bytes, nil
}

func (p *pod) values(file string) []string {
	return fixture.CgroupValues(fixture.PodCgroup(p.node.CgroupParent(), p.sandbox), file)
}

// valueOf finds a line "key value".
func valueOf(text, key string) (string, bool) {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == key {
			return fields[1], true
		}
	}
	return "", false
}

// kilobytes finds a line "key: value kB", in bytes.
func kilobytes(text, key string) (float64, error) {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == key+":" {
			number, err := strconv.ParseFloat(fields[1], 64)
			return number * 1024, err
		}
	}
	return 0, fmt.Errorf("no %s in %q", key, text)
}
