package e2e

import (
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

func TestNonRootUserOpensItsStandardStreams(t *testing.T) {
	p := onNode(t).runPod()
	user := func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 1000}
	}
	config := fixture.ContainerConfig("main", images.Busybox, "sh", "-c", "echo out >/dev/stdout; echo err >/dev/stderr")
	user(config)
	c := p.start(config)
	equal(t, "log", c.succeeds(), "out\n")
	_, stderr := c.log()
	equal(t, "log of stderr", stderr, "err\n")
	stdout, errors, code := p.idle("idle", user).tryExec("sh", "-c", "echo out >/dev/stdout; echo err >/dev/stderr")
	equal(t, "exit code", code, 0)
	equal(t, "streams of an exec", stdout+errors, "out\nerr\n")
}

// Kubernetes does not ask for ambient capabilities yet, and containerd leaves them out.
func TestAmbientCapabilitiesAreAUsersToo(t *testing.T) {
	c := onNode(t).runPod().idle("main", func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 1000}
		config.Linux.SecurityContext.Capabilities = &cri.Capability{
			DropCapabilities:       []string{"ALL"},
			AddAmbientCapabilities: []string{"CHOWN"},
		}
		config.Linux.SecurityContext.Apparmor = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	})
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		equal(t, set, processStatus(c, set), "0000000000000001")
	}
	c.exec("sh", "-c", "touch /tmp/file && chown 33 /tmp/file")
}

// processStatus reads a field of the status of the container's first process.
func processStatus(c *container, field string) string {
	c.t.Helper()
	return strings.TrimSpace(strings.TrimPrefix(c.exec("grep", "^"+field+":", "/proc/1/status"), field+":"))
}

func TestSystemCallsAreFilteredUnlessUnconfined(t *testing.T) {
	p := onNode(t).runPod()
	filtered := p.idle("filtered", func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	})
	equal(t, "Seccomp", processStatus(filtered, "Seccomp"), "2")
	if _, _, code := filtered.tryExec("unshare", "-U", "true"); code == 0 {
		t.Error("unshare passes the default filter")
	}
	free := p.idle("free", func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
	})
	equal(t, "Seccomp", processStatus(free, "Seccomp"), "0")
}

func TestMaskedAndReadOnlyPathsAreHeld(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	equal(t, "/proc/kcore", c.exec("sh", "-c", "head -c 10 /proc/kcore | wc -c"), "0")
	_, stderr, code := c.tryExec("sh", "-c", "echo 1 > /proc/sys/kernel/panic")
	if code == 0 {
		t.Error("/proc/sys can be written")
	}
	contains(t, "the error", stderr, "Read-only file system")
}
