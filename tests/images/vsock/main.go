// Vsock is the program of the image that measures a pod's channel to its host without anything else on it: it listens at a
// vsock port and, as the first byte of a connection says, pours out bytes or swallows as many. At a TCP port it pours out the
// same, to be forwarded.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// The backend takes no larger packets.
	chunk = 28 << 10
	// The byte that asks for bytes.
	pour = 'p'
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: vsock VSOCK-PORT TCP-PORT MEBIBYTES")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "vsock:", err)
		os.Exit(1)
	}
}

func run(vsockPort, tcpPort, mebibytes string) error {
	number, err := strconv.ParseUint(vsockPort, 10, 32)
	if err != nil {
		return err
	}
	mib, err := strconv.ParseInt(mebibytes, 10, 32)
	if err != nil {
		return err
	}
	size := mib << 20
	listener, err := net.Listen("tcp", "127.0.0.1:"+tcpPort)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- serveTCP(listener, size) }()
	go func() { failed <- serveVsock(uint32(number), size) }()
	return <-failed
}

func serveTCP(listener net.Listener, size int64) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		if err := errors.Join(pourOut(connection, size), connection.Close()); err != nil {
			fmt.Fprintln(os.Stderr, "vsock: tcp:", err)
		}
	}
}

func serveVsock(port uint32, size int64) error {
	listener, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(listener, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); err != nil {
		return err
	}
	if err := unix.Listen(listener, 1); err != nil {
		return err
	}
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			return err
		}
		connection := os.NewFile(uintptr(fd), "connection")
		if err := errors.Join(serve(connection, size), connection.Close()); err != nil {
			fmt.Fprintln(os.Stderr, "vsock:", err)
		}
	}
}

func pourOut(to io.Writer, size int64) error {
	buffer := make([]byte, chunk)
	for left := size; left > 0; {
		count, err := to.Write(buffer[:min(left, chunk)])
		if err != nil {
			return err
		}
		left -= int64(count)
	}
	return nil
}

// serve ends when the host has said, by a byte, that it has all: a connection closed with bytes under way loses them.
func serve(connection *os.File, size int64) error {
	var said [1]byte
	if _, err := io.ReadFull(connection, said[:]); err != nil {
		return err
	}
	if said[0] == pour {
		if err := pourOut(connection, size); err != nil {
			return err
		}
		_, err := io.ReadFull(connection, said[:])
		return err
	}
	if _, err := io.CopyN(io.Discard, connection, size); err != nil {
		return err
	}
	_, err := connection.Write(said[:])
	return err
}
