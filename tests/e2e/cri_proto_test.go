package e2e

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A number that differs would put a value into another field, without an error anywhere.
func TestProtoIsKubernetesOwn(t *testing.T) {
	module, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/cri-api").Output()
	must(t, err)
	kubernetes := declarations(t, filepath.Join(strings.TrimSpace(string(module)), "pkg/apis/runtime/v1/api.proto"))
	ours := declarations(t, "../../proto/proto/cri/runtime.v1.proto")
	if len(kubernetes) < 600 {
		t.Fatalf("Kubernetes' has %d declarations", len(kubernetes))
	}
	for _, missing := range without(kubernetes, ours) {
		t.Errorf("ours lacks %s", missing)
	}
	for _, invented := range without(ours, kubernetes) {
		t.Errorf("Kubernetes' has no %s", invented)
	}
}

var (
	comments   = regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*`)
	annotation = regexp.MustCompile(`\[[^\]]*\]|\boption [^;]*;`)
	nothing    = regexp.MustCompile(`\{\s*\}`)
	statement  = regexp.MustCompile(`[^{};]*[{};]`)
	blanks     = regexp.MustCompile(`\s+`)
)

// declarations are a file's calls, fields and values, each after the names of what it stands in.
func declarations(t *testing.T, path string) []string {
	t.Helper()
	text := annotation.ReplaceAllString(comments.ReplaceAllString(mustRead(t, path), ""), "")
	// A call's end may be a body that says nothing.
	text = nothing.ReplaceAllString(text, ";")
	var found, within []string
	for _, one := range statement.FindAllString(text, -1) {
		body := strings.TrimSpace(one[:len(one)-1])
		switch one[len(one)-1] {
		case '{':
			within = append(within, body)
		case '}':
			within = within[:len(within)-1]
		default:
			found = append(found, strings.Join(within, " ")+": "+blanks.ReplaceAllString(body, ""))
		}
	}
	return found
}

func without(all, known []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(one string) bool { return slices.Contains(known, one) })
}
