// Command files does to files what a shell cannot: the test image Files has it as /bin/files.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What waits for another container's step gives up after this time.
const patience = 20 * time.Second

var commands = map[string]func(path string, rest []string) error{
	"watch":   watch,
	"lock":    lock,
	"trylock": tryLock,
	"map":     mapShared,
	"direct":  direct,
	"setattr": setAttribute,
	"getattr": getAttribute,
	"listen":  listen,
	"dial":    dial,
	"echo":    echo,
	"unlink":  unlinked,
	"fstype":  fileSystem,
}

func main() {
	if len(os.Args) < 3 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: files COMMAND PATH [ARGUMENT...]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// watch says which names in a directory are moved to, made and removed, a line each, until it is killed.
func watch(path string, _ []string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	names := map[uint32]string{unix.IN_CREATE: "create", unix.IN_MOVED_TO: "moved-to", unix.IN_DELETE: "delete", unix.IN_CLOSE_WRITE: "written"}
	var mask uint32
	for bit := range names {
		mask |= bit
	}
	if _, err := unix.InotifyAddWatch(fd, path, mask); err != nil {
		return err
	}
	fmt.Println("watching")
	buffer := make([]byte, 64<<10)
	for {
		length, err := unix.Read(fd, buffer)
		if err != nil {
			return err
		}
		for rest := buffer[:length]; len(rest) >= unix.SizeofInotifyEvent; {
			event := (*unix.InotifyEvent)(unsafe.Pointer(&rest[0]))
			name := rest[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+event.Len]
			fmt.Println(names[event.Mask&mask], string(bytes.TrimRight(name, "\x00")))
			rest = rest[unix.SizeofInotifyEvent+event.Len:]
		}
	}
}

// echo sends each datagram that comes to a UDP port back to whom it is from, until it is killed.
func echo(port string, _ []string) error {
	listener, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	buffer := make([]byte, 64<<10)
	for {
		length, from, err := listener.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if _, err := listener.WriteTo(buffer[:length], from); err != nil {
			return err
		}
	}
}

// lock holds an flock and a record lock on a file, until it is killed.
func lock(path string, _ []string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	if err := unix.FcntlFlock(file.Fd(), unix.F_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		return err
	}
	fmt.Println("locked")
	time.Sleep(time.Hour)
	return nil
}

// tryLock says which locks of a file it can get.
func tryLock(path string, _ []string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	say := func(name string, err error) {
		if err == nil {
			fmt.Println(name, "free")
		} else {
			fmt.Println(name, "held")
		}
	}
	say("flock", unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	say("record", unix.FcntlFlock(file.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	return nil
}

// mapShared maps a file shared, waits for its first byte to become the first argument, and writes the second one there.
func mapShared(path string, arguments []string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	memory, err := unix.Mmap(int(file.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	fmt.Println("mapped")
	for deadline := time.Now().Add(patience); memory[0] != arguments[0][0]; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("the first byte is %q", memory[0])
		}
	}
	memory[0] = arguments[1][0]
	return unix.Msync(memory, unix.MS_SYNC)
}

// direct writes and reads a file around the page cache.
func direct(path string, _ []string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o644)
	if err != nil {
		return err
	}
	const size = 8192
	// A mapping is aligned as O_DIRECT wants it.
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	copy(memory, bytes.Repeat([]byte("direct.."), size/8))
	if _, err := file.WriteAt(memory, 0); err != nil {
		return err
	}
	clear(memory)
	if _, err := file.ReadAt(memory, 0); err != nil {
		return err
	}
	if !bytes.Equal(memory, bytes.Repeat([]byte("direct.."), size/8)) {
		return fmt.Errorf("read %q", memory[:32])
	}
	return nil
}

func setAttribute(path string, arguments []string) error {
	return unix.Setxattr(path, arguments[0], []byte(arguments[1]), 0)
}

func getAttribute(path string, arguments []string) error {
	value := make([]byte, 1024)
	length, err := unix.Getxattr(path, arguments[0], value)
	if err == nil {
		fmt.Println(string(value[:length]))
	}
	return err
}

// listen answers one caller of a unix socket.
func listen(path string, arguments []string) error {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	connection, err := listener.Accept()
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(connection, strings.Join(arguments, " "))
	connection.Close()
	return err
}

func dial(path string, _ []string) error {
	connection, err := net.DialTimeout("unix", path, patience)
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, connection)
	return err
}

// unlinked goes on with a file that has no name any more.
func unlinked(path string, _ []string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	if _, err := file.WriteString("still here"); err != nil {
		return err
	}
	content := make([]byte, 64)
	length, err := file.ReadAt(content, 0)
	if err != nil && err != io.EOF {
		return err
	}
	fmt.Println(string(content[:length]))
	return nil
}

// fileSystem says the type and the size, in bytes, of the file system that a path lies on.
func fileSystem(path string, _ []string) error {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return err
	}
	fmt.Printf("%x %d\n", stat.Type, stat.Blocks*uint64(stat.Bsize))
	return nil
}
