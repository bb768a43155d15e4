// Demo shows a pod in its own MicroVM: image, network, output and exit code, on a node made for it and removed afterwards.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

// What the container runs. Its exit code is one that nobody returns by accident.
const script = `
echo "Hello from a container in a MicroVM of its own."
echo "kernel:   $(uname -r)"
echo "memory:   $(sed -n 's/MemTotal: *//p' /proc/meminfo)"
echo "address:  $(ip -4 -o addr show dev eth0 | tr -s ' ' | cut -d ' ' -f 4)"
echo "page of the host: $(wget -q -O- http://$HOST/)"
exit 7`

const exitCode = 7

func main() {
	started := time.Now()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	err := run(ctx)
	took := time.Since(started).Round(100 * time.Millisecond)
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: failed after %s: %v\n", took, err)
		os.Exit(1)
	}
	fmt.Printf("\ndemo: done in %s. Nothing of it is left on this machine.\n", took)
}

func run(ctx context.Context) (err error) {
	say("starting a registry with an image, a network bridge and the runtime, all in directories of their own")
	node, err := fixture.Start(ctx, fixture.Options{})
	if err != nil {
		return err
	}
	defer func() {
		say("removing all of it")
		err = errors.Join(err, node.Close(context.Background()))
	}()
	page, err := servePage(node)
	if err != nil {
		return err
	}
	defer page.Close()
	return pod(ctx, node, page.Addr)
}

// pod runs a pod by hand and checks what came of it.
func pod(ctx context.Context, node *fixture.Node, address string) error {
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	say("this machine's kernel is " + unix.ByteSliceToString(host.Release[:]))
	arguments := []string{"--env", "HOST=" + address, images.Busybox, "--", "sh", "-c", script}
	say("a3s-box-cri run --env HOST=" + address + " " + images.Busybox + " -- sh -c '…'")
	var output strings.Builder
	command := node.Command(ctx, "run", arguments...)
	command.Stdout = io.MultiWriter(os.Stdout, &output)
	command.Stderr = os.Stderr
	err := command.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("a3s-box-cri run: %w", err)
	}
	code := command.ProcessState.ExitCode()
	say(fmt.Sprintf("the container's exit code is %d; its log, as kubelet reads it:", code))
	if err := printLogs(ctx, node); err != nil {
		return err
	}
	if code != exitCode || !strings.Contains(output.String(), greeting) {
		return fmt.Errorf("the container was to exit with %d after a page from the host; the runtime's log:\n%s", exitCode, node.Log(0))
	}
	return nil
}

// printLogs prints the log files of the containers that are left, and removes them: what asked for a log owns it, not the runtime.
func printLogs(ctx context.Context, node *fixture.Node) error {
	containers, err := node.Runtime.ListContainers(ctx, nil)
	if err != nil {
		return fmt.Errorf("list the containers: %w", err)
	}
	for _, container := range containers {
		response, err := node.Runtime.ContainerStatus(ctx, container.Id, false)
		if err != nil {
			return fmt.Errorf("status of the container: %w", err)
		}
		path := response.Status.LogPath
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("the container's log: %w", err)
		}
		fmt.Printf("    %s\n    %s\n", path, strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "\n    "))
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			return fmt.Errorf("remove the container's log: %w", err)
		}
	}
	return nil
}

func say(what string) { fmt.Println("==> " + what) }
