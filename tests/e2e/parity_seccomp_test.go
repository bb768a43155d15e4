package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

// seccompFile asks for the profile in a file of the node.
func seccompFile(path string) func(*cri.ContainerConfig) {
	return func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.Seccomp = &cri.SecurityProfile{
			ProfileType:  cri.SecurityProfile_Localhost,
			LocalhostRef: path,
		}
	}
}

func TestParitySeccompProfileOfTheNode(t *testing.T) {
	p := onNode(t).runPod()
	file := filepath.Join(t.TempDir(), "no-mkdir.json")
	write := func(text string) { must(t, os.WriteFile(file, []byte(text), 0o644)) }
	write(`{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
		{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
		{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}]}`)

	c := p.idle("filtered", seccompFile(file))
	equal(t, "Seccomp", processStatus(c, "Seccomp"), "2")
	_, stderr, code := c.tryExec("mkdir", "/tmp/it")
	equal(t, "exit code of mkdir", code, 1)
	contains(t, "mkdir", stderr, "No space left on device")
	_, stderr, _ = c.tryExec("sh", "-c", "kill -USR1 $$")
	contains(t, "kill -USR1", stderr, "Operation not permitted")
	c.exec("sh", "-c", "kill -0 $$ && touch /tmp/it")

	// The container keeps the profile it was made with.
	write(`{"defaultAction": "SCMP_ACT_ALLOW"}`)
	must(t, os.Remove(file))
	limits := &cri.ContainerResources{Linux: &cri.LinuxContainerResources{CpuShares: 512}}
	must(t, c.Runtime.UpdateContainerResources(t.Context(), c.id, limits))
	_, _, code = c.tryExec("mkdir", "/tmp/it")
	equal(t, "exit code of mkdir after the file's end", code, 1)

	config := fixture.ContainerConfig("missing", images.Busybox, "true")
	seccompFile(file)(config)
	if _, err := p.Runtime.CreateContainer(t.Context(), p.id, config, p.config); err == nil {
		t.Error("a container whose profile is missing was made")
	}
}

func TestSeccompProfilesThatCannotBeHeldAreRefused(t *testing.T) {
	p := onNode(t).runPod()
	dir := t.TempDir()
	for _, c := range []struct{ name, text, word string }{
		{"notify", `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}`, "SCMP_ACT_NOTIFY"},
		{"docker", `{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}`, "archMap"},
		{"action", `{"defaultAction": "SCMP_ACT_MAYBE"}`, "SCMP_ACT_MAYBE"},
		{"syntax", `defaultAction`, "seccomp Localhost"},
	} {
		file := filepath.Join(dir, c.name)
		must(t, os.WriteFile(file, []byte(c.text), 0o644))
		config := fixture.ContainerConfig(c.name, images.Busybox, "true")
		seccompFile(file)(config)
		_, err := p.Runtime.CreateContainer(t.Context(), p.id, config, p.config)
		refused(t, err, codes.InvalidArgument, c.word)
	}
}
