package e2e

import (
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

func TestNonRootUserIsHeld(t *testing.T) {
	c := onNode(t).runPod().idle("main", func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 1000}
		config.Linux.SecurityContext.RunAsGroup = &cri.Int64Value{Value: 1000}
		config.Linux.SecurityContext.SupplementalGroups = []int64{2000}
	})
	equal(t, "uid of the first process", c.exec("stat", "-c", "%u", "/proc/1"), "1000")
	equal(t, "groups", c.exec("id", "-G"), "1000 2000")
	_, stderr, code := c.tryExec("touch", "/etc/file")
	equal(t, "exit code of writing to /etc", code, 1)
	contains(t, "touch", stderr, "Permission denied")
	equal(t, "effective capabilities", processStatus(c, "CapEff"), "0000000000000000")
}

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

func TestUserOfTheImageIsUsed(t *testing.T) {
	p := onNode(t).runPod()
	number := p.start(fixture.ContainerConfig("number", images.User, "sh", "-c", "id -u; id -g"))
	equal(t, "ids of user 1002", number.succeeds(), "1002\n0\n")
	name := p.start(fixture.ContainerConfig("name", images.NamedUser, "sh", "-c", "id -u; id -g"))
	equal(t, "ids of user www-data", name.succeeds(), "33\n33\n")
}

func TestDefaultCapabilitiesAreThoseOfOtherRuntimes(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	equal(t, "bounding set", processStatus(c, "CapBnd"), "00000000a80425fb")
}

func TestDroppedCapabilitiesAreGone(t *testing.T) {
	c := onNode(t).runPod().idle("main", func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.Capabilities = &cri.Capability{
			DropCapabilities: []string{"ALL"},
			AddCapabilities:  []string{"NET_BIND_SERVICE"},
		}
	})
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
		equal(t, set, processStatus(c, set), "0000000000000400")
	}
	_, stderr, code := c.tryExec("chown", "33", "/www")
	equal(t, "exit code of chown", code, 1)
	contains(t, "chown", stderr, "Operation not permitted")
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

func TestNoNewPrivilegesIsHeld(t *testing.T) {
	c := onNode(t).runPod().idle("main", func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.NoNewPrivs = true
	})
	equal(t, "NoNewPrivs", processStatus(c, "NoNewPrivs"), "1")
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
