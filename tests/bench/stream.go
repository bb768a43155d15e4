package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

const (
	streamRounds = 10
	// What is sent through a stream to learn how fast it is.
	sentMiB  = 64
	sentPort = 9000
	// Bounds one measurement.
	streamPatience = 2 * time.Minute
)

// streams measures what goes through the streaming server, in one pod.
func (b *bench) streams(ctx context.Context) (err error) {
	if err := b.pull(ctx, images.Vsock); err != nil {
		return err
	}
	runtime, config := b.node.Runtime, b.node.PodConfig("streams")
	sandbox, err := runtime.RunPodSandbox(ctx, config, "")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, runtime.StopPodSandbox(ctx, sandbox), runtime.RemovePodSandbox(ctx, sandbox))
	}()
	script := fmt.Sprintf("%s %d %d %d & exec cat", images.VsockProgram, vsockPort, sentPort, sentMiB)
	container := fixture.ContainerConfig("cat", images.Vsock, "sh", "-c", script)
	container.Stdin = true
	id, err := runtime.CreateContainer(ctx, sandbox, container, config)
	if err != nil {
		return err
	}
	if err := runtime.StartContainer(ctx, id); err != nil {
		return err
	}
	if err := b.vsockListens(ctx, sandbox); err != nil {
		return err
	}
	for range streamRounds {
		if err := errors.Join(b.attach(ctx, id), b.exec(ctx, id)); err != nil {
			return err
		}
		vsock, err := b.vsock(sandbox)
		if err != nil {
			return err
		}
		forwarded, err := b.forward(ctx, sandbox)
		if err != nil {
			return err
		}
		b.add(portForwardVsVsock, forwarded/vsock)
	}
	return b.output(ctx, id)
}

// attach takes the time from the call to the echo of the first byte.
func (b *bench) attach(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, streamPatience)
	defer cancel()
	start := time.Now()
	response, err := b.node.Runtime.Attach(ctx, &cri.AttachRequest{ContainerId: id, Stdin: true, Stdout: true})
	if err != nil {
		return err
	}
	input, typed := io.Pipe()
	defer typed.Close()
	shown, output := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, response.Url, remotecommand.StreamOptions{Stdin: input, Stdout: output})
		output.CloseWithError(errors.Join(err, io.ErrUnexpectedEOF))
		ended <- err
	}()
	go func() { _, _ = typed.Write([]byte("\n")) }()
	if _, err := shown.Read(make([]byte, 1)); err != nil {
		return err
	}
	b.add(attachMS, milliseconds(time.Since(start)))
	shown.Close()
	cancel()
	<-ended
	return nil
}

func (b *bench) exec(ctx context.Context, id string) error {
	start := time.Now()
	if err := b.execTo(ctx, id, io.Discard, "true"); err != nil {
		return err
	}
	b.add(execStreamMS, milliseconds(time.Since(start)))
	return nil
}

// output measures the speed of an exec's output.
func (b *bench) output(ctx context.Context, id string) error {
	for range streamRounds {
		var count counter
		start := time.Now()
		if err := b.execTo(ctx, id, &count, "dd", "if=/dev/zero", "bs=64k", fmt.Sprintf("count=%d", sentMiB*16)); err != nil {
			return err
		}
		if count != sentMiB<<20 {
			return fmt.Errorf("an exec wrote %d bytes of %d MiB", count, sentMiB)
		}
		b.add(execStdoutMiBS, sentMiB/time.Since(start).Seconds())
	}
	return nil
}

func (b *bench) execTo(ctx context.Context, id string, output io.Writer, command ...string) error {
	ctx, cancel := context.WithTimeout(ctx, streamPatience)
	defer cancel()
	response, err := b.node.Runtime.Exec(ctx, &cri.ExecRequest{ContainerId: id, Cmd: command, Stdout: true})
	if err != nil {
		return err
	}
	return run(ctx, response.Url, remotecommand.StreamOptions{Stdout: output})
}

func run(ctx context.Context, address string, options remotecommand.StreamOptions) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	executor, err := remotecommand.NewSPDYExecutor(&rest.Config{}, http.MethodPost, u)
	if err != nil {
		return err
	}
	return executor.StreamWithContext(ctx, options)
}

// forward measures the speed of one forwarded connection.
func (b *bench) forward(ctx context.Context, sandbox string) (speed float64, err error) {
	response, err := b.node.Runtime.PortForward(ctx, &cri.PortForwardRequest{PodSandboxId: sandbox, Port: []int32{sentPort}})
	if err != nil {
		return 0, err
	}
	u, err := url.Parse(response.Url)
	if err != nil {
		return 0, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
	if err != nil {
		return 0, err
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u)
	connection, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	headers := http.Header{"Streamtype": {"error"}, "Port": {fmt.Sprint(sentPort)}, "Requestid": {"1"}}
	failed, err := connection.CreateStream(headers)
	if err != nil {
		return 0, err
	}
	headers.Set("Streamtype", "data")
	start := time.Now()
	data, err := connection.CreateStream(headers)
	if err != nil {
		return 0, err
	}
	count, err := io.Copy(io.Discard, data)
	if err != nil {
		return 0, err
	}
	took := time.Since(start)
	data.Close()
	var message bytes.Buffer
	_, _ = io.Copy(&message, failed)
	if count != sentMiB<<20 {
		return 0, fmt.Errorf("a forwarded connection brought %d bytes of %d MiB: %s", count, sentMiB, message.String())
	}
	speed = sentMiB / took.Seconds()
	b.add(portForwardMiBS, speed)
	return speed, nil
}

// counter counts the bytes that are written to it.
type counter int64

func (c *counter) Write(bytes []byte) (int, error) {
	*c += counter(len(bytes))
	return len(bytes), nil
}
