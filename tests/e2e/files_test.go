package e2e

import (
	"os"
	"testing"
)

func readFile(path string) (string, error) {
	text, err := os.ReadFile(path)
	return string(text), err
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	text, err := readFile(path)
	must(t, err)
	return text
}

func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// hostDir makes a directory of the node for a test's volume.
func (n *node) hostDir() string {
	n.t.Helper()
	dir, err := os.MkdirTemp(n.Path(), "volume-")
	must(n.t, err)
	must(n.t, os.Chmod(dir, 0o755))
	return dir
}
