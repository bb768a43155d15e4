package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

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
	connection, err := net.Dial("unix", filepath.Join(b.node.PodDir(sandbox), "vsock", "vsock"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	if err := connection.SetDeadline(time.Now().Add(streamPatience)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(connection, "CONNECT %d\n", vsockPort); err != nil {
		return 0, err
	}
	reader := bufio.NewReader(connection)
	if answer, err := reader.ReadString('\n'); err != nil {
		return 0, fmt.Errorf("vsock port %d answers %q: %w", vsockPort, answer, err)
	}
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
