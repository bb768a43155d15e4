// Package registry runs Debian's docker-registry on a free loopback port, with its storage in a directory of its own.
package registry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 5 * time.Second
)

const configuration = `version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}
http: {addr: "127.0.0.1:0"%s}
%s`

// The registry says in its log which port it got.
var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// Registry is a running docker-registry.
type Registry struct {
	// Address is its host:port, spoken to by plain HTTP.
	Address string

	process *exec.Cmd
	exited  chan struct{}
}

// Start runs a registry that keeps everything below dir, and returns when it listens.
func Start(ctx context.Context, dir string) (*Registry, error) {
	return StartGuarded(ctx, dir, Guard{})
}

// StartGuarded is Start for a registry that wants to know who asks.
func StartGuarded(ctx context.Context, dir string, guard Guard) (*Registry, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	config := filepath.Join(dir, "config.yml")
	http, rest, err := guard.write(dir)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	text := fmt.Sprintf(configuration, filepath.Join(dir, "storage"), http, rest)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	r := &Registry{process: exec.Command("docker-registry", "serve", config), exited: make(chan struct{})}
	output, err := r.process.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if err := r.process.Start(); err != nil {
		return nil, fmt.Errorf("registry: start docker-registry (Debian package docker-registry): %w", err)
	}
	address := make(chan string, 1)
	go r.follow(output, address)
	select {
	case r.Address = <-address:
		return r, nil
	case <-r.exited:
		return nil, errors.New("registry: docker-registry ended before it listened")
	case <-time.After(startTimeout):
		return nil, errors.Join(fmt.Errorf("registry: docker-registry does not listen after %s", startTimeout), r.Stop())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), r.Stop())
	}
}

// follow reads the registry's log to its end, so that the registry never blocks on it.
func (r *Registry) follow(output io.Reader, address chan<- string) {
	defer close(r.exited)
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if found := listening.FindStringSubmatch(lines.Text()); found != nil {
			select {
			case address <- found[1]:
			default:
			}
		}
	}
	_, _ = io.Copy(io.Discard, output)
	// Ended by a signal, as Stop does it: the status says nothing.
	_ = r.process.Wait()
}

// Stop ends the registry. Its files stay.
func (r *Registry) Stop() error {
	if err := r.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("registry: stop: %w", err)
	}
	select {
	case <-r.exited:
	case <-time.After(stopTimeout):
		_ = r.process.Process.Kill()
		<-r.exited
	}
	return nil
}

// Push stores an image under "host/repository:tag" in this registry.
func (r *Registry) Push(ctx context.Context, reference string, image v1.Image) error {
	return Push(ctx, r.Address, reference, image)
}

// Push stores an image under "host/repository:tag" in the registry at a loopback address. The host is left out: the runtime's mirrors
// map it to that registry.
func Push(ctx context.Context, address, reference string, image v1.Image) error {
	return push(address, reference, func(target name.Reference) error { return remote.Write(target, image, remote.WithContext(ctx)) })
}

// PushIndex is Push for an index, with all that it names.
func PushIndex(ctx context.Context, address, reference string, index v1.ImageIndex) error {
	return push(address, reference, func(target name.Reference) error { return remote.WriteIndex(target, index, remote.WithContext(ctx)) })
}

func push(address, reference string, write func(name.Reference) error) error {
	_, path, found := strings.Cut(reference, "/")
	if !found {
		return fmt.Errorf("registry: %q names no host", reference)
	}
	target, err := name.ParseReference(address+"/"+path, name.Insecure)
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	if err := write(target); err != nil {
		return fmt.Errorf("registry: push %s: %w", reference, err)
	}
	return nil
}
