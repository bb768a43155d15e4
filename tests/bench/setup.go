package main

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"a3s.box/tests/fixture"
)

// setup is a sequence of steps with their undoing. After the first that fails the others do nothing.
type setup struct {
	err   error
	undos []func()
}

func (s *setup) undo() {
	for _, undo := range slices.Backward(s.undos) {
		undo()
	}
}

func (s *setup) closeLater(closer io.Closer) {
	s.undos = append(s.undos, func() { closer.Close() })
}

func (s *setup) directory(path string, uid uint32) {
	if s.err = os.Mkdir(path, 0o755); s.err == nil {
		s.undos = append(s.undos, func() { os.RemoveAll(path) })
		s.err = os.Chown(path, int(uid), int(uid))
	}
}

func (s *setup) open(path string, flags int) *os.File {
	if s.err != nil {
		return nil
	}
	file, err := os.OpenFile(path, flags, 0)
	if err != nil {
		s.err = err
		return nil
	}
	s.closeLater(file)
	return file
}

// sink is a socket whose other end swallows what comes.
func (s *setup) sink() *os.File {
	if s.err != nil {
		return nil
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.err = err
		return nil
	}
	theirs, ours := os.NewFile(uintptr(pair[0]), "sink"), os.NewFile(uintptr(pair[1]), "sink")
	s.closeLater(theirs)
	s.closeLater(ours)
	go io.Copy(io.Discard, ours)
	return theirs
}

// start runs a program in a directory as its user; it is killed and awaited at the end.
func (s *setup) start(p program, directory string, inherited []*os.File) {
	if s.err != nil {
		return
	}
	command := exec.Command(p.path, p.arguments...)
	command.Dir = directory
	command.ExtraFiles = inherited
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.uid, Gid: p.uid}}
	if s.err = command.Start(); s.err == nil {
		s.undos = append(s.undos, func() {
			_ = command.Process.Kill()
			_ = command.Wait()
		})
	}
}

// virtiofsd starts the file server on an empty directory, and returns the VMM's end of its connection.
func (s *setup) virtiofsd(p program, directory string) *os.File {
	socket, shared := filepath.Join(directory, "virtiofs"), filepath.Join(directory, "share")
	listener := s.listen(socket, p.uid)
	if s.err != nil {
		return nil
	}
	if s.err = os.Mkdir(shared, 0o755); s.err != nil {
		return nil
	}
	client := s.connect(context.Background(), socket)
	file, err := listener.File()
	if err != nil {
		s.err = err
		return nil
	}
	s.closeLater(file)
	arguments := slices.Clone(p.arguments)
	for i, argument := range arguments[:len(arguments)-1] {
		switch argument {
		case "--shared-dir":
			arguments[i+1] = shared
		case "--fd":
			arguments[i+1] = "3"
		}
	}
	s.start(program{p.path, arguments, p.uid}, "/", []*os.File{file})
	return client
}

// connect waits until somebody listens.
func (s *setup) connect(ctx context.Context, path string) *os.File {
	if s.err != nil {
		return nil
	}
	var file *os.File
	s.err = fixture.Until(ctx, 10*time.Second, path+" to listen", func() error {
		connection, err := net.Dial("unix", path)
		if err != nil {
			return err
		}
		defer connection.Close()
		file, err = connection.(*net.UnixConn).File()
		return err
	})
	if s.err == nil {
		s.closeLater(file)
	}
	return file
}
