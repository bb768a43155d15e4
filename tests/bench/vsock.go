package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

// The guest's port where the image's program listens.
const vsockPort = 9001

func vsockImage() (images.Image, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return images.Image{}, err
	}
	cache = filepath.Join(cache, "a3s-box", "bench")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return images.Image{}, err
	}
	return images.MakeVsock(cache)
}

// vsock measures a pod's channel with nothing on it: bytes from a program in the guest to this one, and back. It returns how fast
// they came.
func (b *bench) vsock(sandbox string) (speed float64, err error) {
	took, err := b.overVsock(sandbox, 'p', func(connection io.ReadWriter) error {
		if count, err := io.CopyN(io.Discard, connection, sentMiB<<20); err != nil {
			return fmt.Errorf("%d bytes came of %d MiB: %w", count, sentMiB, err)
		}
		// A byte tells the program that all has come.
		_, err := connection.Write([]byte{0})
		return err
	})
	if err != nil {
		return 0, err
	}
	speed = sentMiB / took.Seconds()
	b.add(vsockMiBS, speed)
	took, err = b.overVsock(sandbox, 's', func(connection io.ReadWriter) error {
		chunk := make([]byte, 64<<10)
		for range sentMiB << 20 / len(chunk) {
			if _, err := connection.Write(chunk); err != nil {
				return err
			}
		}
		// The program answers when it has all.
		_, err := io.ReadFull(connection, chunk[:1])
		return err
	})
	b.add(vsockInMiBS, sentMiB/took.Seconds())
	return speed, err
}

func (b *bench) overVsock(sandbox string, direction byte, transfer func(io.ReadWriter) error) (took time.Duration, err error) {
	connection, reader, err := b.dialVsock(sandbox)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	start := time.Now()
	if _, err := connection.Write([]byte{direction}); err != nil {
		return 0, err
	}
	if err := transfer(struct {
		io.Reader
		io.Writer
	}{reader, connection}); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

func (b *bench) dialVsock(sandbox string) (net.Conn, *bufio.Reader, error) {
	connection, err := net.Dial("unix", filepath.Join(b.node.PodDir(sandbox), "vsock", "vsock"))
	if err != nil {
		return nil, nil, err
	}
	reader := bufio.NewReader(connection)
	err = connection.SetDeadline(time.Now().Add(streamPatience))
	if err == nil {
		_, err = fmt.Fprintf(connection, "CONNECT %d\n", vsockPort)
	}
	if err == nil {
		_, err = reader.ReadString('\n')
	}
	if err != nil {
		connection.Close()
		return nil, nil, fmt.Errorf("vsock port %d does not answer: %w", vsockPort, err)
	}
	return connection, reader, nil
}

// vsockListens waits until the image's program has begun to listen.
func (b *bench) vsockListens(ctx context.Context, sandbox string) error {
	return fixture.Until(ctx, streamPatience, "the program to listen", func() error {
		connection, _, err := b.dialVsock(sandbox)
		if err == nil {
			connection.Close()
		}
		return err
	})
}
