// Package listing says all that can be seen of the files below a directory.
package listing

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Entry is what can be seen of one file, as text.
type Entry struct {
	// Path is below the directory, quoted.
	Path string
	// Facts are type, permissions, owner, size, device, attributes, content, and the first path of the same file.
	Facts string
	// Time is the time of the last change of the content, in seconds.
	Time string
}

// Walk lists everything below root but what skip names, sorted by path. The root itself is left out.
func Walk(root string, skip func(path string) bool) ([]Entry, error) {
	w := walker{root: root, skip: skip, links: map[[2]uint64]string{}}
	err := w.directory("")
	return w.entries, err
}

// MadeByRuntime tells the paths that every runtime makes in a container, whatever its image.
func MadeByRuntime(path string) bool {
	return slices.Contains([]string{"/dev", "/proc", "/sys", "/run", "/etc"}, path)
}

type walker struct {
	root    string
	skip    func(string) bool
	entries []Entry
	links   map[[2]uint64]string
}

func (w *walker) directory(path string) error {
	names, err := names(filepath.Join(w.root, path))
	if err != nil {
		return err
	}
	for _, name := range names {
		child := path + "/" + name
		if w.skip(child) {
			continue
		}
		if err := w.file(child); err != nil {
			return fmt.Errorf("%q: %w", child, err)
		}
	}
	return nil
}

// names sorts by bytes: not every name is UTF-8.
func names(directory string) ([]string, error) {
	opened, err := os.Open(directory)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	names, err := opened.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

func (w *walker) file(path string) error {
	full := w.root + path
	var stat unix.Stat_t
	if err := unix.Lstat(full, &stat); err != nil {
		return err
	}
	kind := stat.Mode & unix.S_IFMT
	facts := fmt.Sprintf("%o %d:%d", stat.Mode, stat.Uid, stat.Gid)
	switch kind {
	case unix.S_IFREG:
		content, err := contentOf(full)
		if err != nil {
			return err
		}
		facts += fmt.Sprintf(" %d bytes %s", stat.Size, content)
	case unix.S_IFLNK:
		target, err := os.Readlink(full)
		if err != nil {
			return err
		}
		facts += fmt.Sprintf(" -> %q", target)
	case unix.S_IFCHR, unix.S_IFBLK:
		facts += fmt.Sprintf(" device %d,%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
	}
	attributes, err := attributesOf(full)
	if err != nil {
		return err
	}
	facts += attributes
	if kind != unix.S_IFDIR {
		if first, known := w.links[[2]uint64{stat.Dev, stat.Ino}]; known {
			facts += fmt.Sprintf(" same as %q", first)
		} else {
			w.links[[2]uint64{stat.Dev, stat.Ino}] = path
		}
	}
	w.entries = append(w.entries, Entry{fmt.Sprintf("%q", path), facts, fmt.Sprintf("%d.%09d", stat.Mtim.Sec, stat.Mtim.Nsec)})
	if kind == unix.S_IFDIR {
		return w.directory(path)
	}
	return nil
}

func contentOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

func attributesOf(path string) (string, error) {
	buffer := make([]byte, 64<<10)
	length, err := unix.Llistxattr(path, buffer)
	if err != nil {
		return "", fmt.Errorf("list attributes: %w", err)
	}
	names := strings.FieldsFunc(string(buffer[:length]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	var text strings.Builder
	for _, name := range names {
		length, err := unix.Lgetxattr(path, name, buffer)
		if err != nil {
			return "", fmt.Errorf("attribute %s: %w", name, err)
		}
		fmt.Fprintf(&text, " %s=%q", name, buffer[:length])
	}
	return text.String(), nil
}

// Write writes entries as lines that Read reads.
func Write(out io.Writer, entries []Entry) error {
	buffered := bufio.NewWriter(out)
	for _, entry := range entries {
		fmt.Fprintf(buffered, "%s\t%s\t%s\n", entry.Path, entry.Facts, entry.Time)
	}
	return buffered.Flush()
}

// Read reads what Write wrote.
func Read(text string) ([]Entry, error) {
	var entries []Entry
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != 3 {
			return nil, fmt.Errorf("no entry: %q", line)
		}
		entries = append(entries, Entry{fields[0], fields[1], fields[2]})
	}
	return entries, nil
}
