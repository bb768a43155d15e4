// Command filetimes takes the time of work on files, in a guest, and prints it in nanoseconds.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How many bytes are read at once, and how many a made file has.
const (
	bufferBytes = 128 << 10
	fileBytes   = 1 << 10
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "filetimes:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 2 {
		return fmt.Errorf("usage: filetimes read|create PATH")
	}
	path := arguments[1]
	switch arguments[0] {
	case "read":
		return readTwice(path)
	case "create":
		syscall.Sync()
		return timed(func() error { return create(path) })
	default:
		return fmt.Errorf("cannot %q", arguments[0])
	}
}

func timed(work func() error) error {
	start := time.Now()
	err := work()
	fmt.Println(time.Since(start).Nanoseconds())
	return err
}

// readTwice reads a file, or all files of a directory, with empty caches and then with full ones, and prints the kilobytes that are
// kept of it, too. The second time it knows which files there are: looking for them again would be this program's own work.
func readTwice(root string) error {
	if err := dropCaches(); err != nil {
		return err
	}
	free, err := freeKB()
	if err != nil {
		return err
	}
	var files []string
	cold := func() error {
		return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			files = append(files, path)
			return read(path)
		})
	}
	if err := timed(cold); err != nil {
		return err
	}
	left, err := freeKB()
	if err != nil {
		return err
	}
	warm := func() error {
		for _, path := range files {
			if err := read(path); err != nil {
				return err
			}
		}
		return nil
	}
	if err := timed(warm); err != nil {
		return err
	}
	fmt.Println(free - left)
	return nil
}

var buffer = make([]byte, bufferBytes)

// read makes no more system calls than cat would: os.File's are felt here.
func read(path string) error {
	file, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer syscall.Close(file)
	for {
		if count, err := syscall.Read(file, buffer); err != nil || count == 0 {
			return err
		}
	}
}

// create makes 3,000 files in a new directory and waits until they are on its disk.
func create(directory string) error {
	const files = 3000
	if err := os.Mkdir(directory, 0o755); err != nil {
		return err
	}
	content := make([]byte, fileBytes)
	for i := range files {
		if err := os.WriteFile(filepath.Join(directory, strconv.Itoa(i)), content, 0o644); err != nil {
			return err
		}
	}
	syscall.Sync()
	return nil
}

func dropCaches() error {
	syscall.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o200)
}

func freeKB() (int, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[0] == "MemFree:" {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no MemFree")
}
