package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

// toolbox runs the image with the host's tools, as root.
func (p *pod) toolbox(change ...func(*cri.ContainerConfig)) *container {
	p.t.Helper()
	config := fixture.ContainerConfig("tools", images.Tools, "sleep", "3600")
	for _, change := range change {
		change(config)
	}
	return p.start(config)
}

// ofNetworks may change them.
func ofNetworks(config *cri.ContainerConfig) {
	config.Linux.SecurityContext.Capabilities = &cri.Capability{AddCapabilities: []string{"NET_ADMIN", "NET_RAW"}}
}

func TestFileCapabilitiesAreKept(t *testing.T) {
	n := onNode(t)
	memory := n.kubeletVolume("empty-dir", "cache")
	must(t, unix.Mount("tmpfs", memory, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { _ = unix.Unmount(memory, unix.MNT_DETACH) })
	volume := n.hostDir()
	c := n.runPod().toolbox(mounted(bind(volume, "/volume"), bind(memory, "/memory")))
	contains(t, "in the image", c.exec("getcap", images.CappedFile), "cap_net_raw=ep")
	c.exec("touch", images.CappedFile)
	contains(t, "after copy-up", c.exec("getcap", images.CappedFile), "cap_net_raw=ep")
	c.exec("setcap", "cap_net_bind_service+ep", "/usr/bin/ss")
	contains(t, "set on a file of the image", c.exec("getcap", "/usr/bin/ss"), "cap_net_bind_service=ep")
	for _, dir := range []string{"/volume", "/memory", "/tmp"} {
		c.exec("sh", "-c", "cp /usr/bin/ss "+dir+"/ss && setcap cap_chown+ep "+dir+"/ss")
		contains(t, "set on a file in "+dir, c.exec("getcap", dir+"/ss"), "cap_chown=ep")
	}

	// A write takes them away, also from a file of which the guest remembers that it had none when the host gave it some.
	capabilities := make([]byte, 64)
	size, err := unix.Getxattr(volume+"/ss", "security.capability", capabilities)
	must(t, err)
	c.exec("sh", "-c", "echo >> /volume/ss")
	equal(t, "after a write", c.exec("getcap", "/volume/ss"), "")
	must(t, unix.Setxattr(volume+"/ss", "security.capability", capabilities[:size], 0))
	c.exec("sh", "-c", "echo >> /volume/ss")
	if _, err := unix.Getxattr(volume+"/ss", "security.capability", capabilities); !errors.Is(err, unix.ENODATA) {
		t.Errorf("a file that was written to has capabilities: %v", err)
	}
}

// What the init container of a service mesh does.
func TestConnectionsAreRedirectedByOwner(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	p.shell("proxy", "exec httpd -f -p '[::]:7001' -h /www")
	tools := p.toolbox(ofNetworks)
	root := p.idle("root")
	owner := p.idle("owner", func(config *cri.ContainerConfig) {
		config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 33}
	})
	for _, family := range []struct{ program, loopback string }{{"iptables", "127.0.0.1"}, {"ip6tables", "[::1]"}} {
		for _, backend := range []string{"nft", "legacy"} {
			program := family.program + "-" + backend
			fetch := []string{"wget", "-q", "-O-", "http://" + family.loopback + ":7000/"}
			tools.exec(strings.Fields(program + " -t nat -A OUTPUT -p tcp -m owner --uid-owner 33 -m comment --comment mesh" +
				" -m multiport --dports 7000,7002 -j REDIRECT --to-ports 7001")...)
			n.until(program+": the owner's connection to be redirected", func() error {
				if page, stderr, code := owner.tryExec(fetch...); page != "hello from a pod\n" {
					return fmt.Errorf("exit code %d, stdout %q, stderr %q", code, page, stderr)
				}
				return nil
			})
			if page, _, code := root.tryExec(fetch...); code == 0 {
				t.Errorf("%s: another's connection is redirected too: %q", program, page)
			}
			tools.exec(program, "-t", "nat", "-F", "OUTPUT")
		}
	}
}

func TestMatchesAndTargetsOfServiceMeshesAreThere(t *testing.T) {
	tools := onNode(t).runPod().toolbox(ofNetworks)
	for _, program := range []string{"iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"} {
		for _, rule := range []string{
			"-t filter -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
			"-t mangle -A PREROUTING -p tcp -m mark --mark 1337 -j CONNMARK --save-mark",
			"-t mangle -A PREROUTING -p tcp -j TPROXY --on-port 15006 --tproxy-mark 1337/0xffffffff",
			"-t mangle -A OUTPUT -p tcp -j MARK --set-mark 1337",
			"-t mangle -A PREROUTING -p tcp -m socket -j RETURN",
			"-t raw -A OUTPUT -p udp --dport 53 -j CT --zone 1",
		} {
			if _, stderr, code := tools.tryExec(strings.Fields(program + " " + rule)...); code != 0 {
				t.Errorf("%s %s: %s", program, rule, stderr)
			}
		}
	}
}

func TestSocketsAreListedByNetlink(t *testing.T) {
	p := onNode(t).runPod()
	p.shell("server", webServer)
	tools := p.toolbox()
	// Only the kernel's socket diagnosis knows the congestion window; /proc/net/tcp does not.
	p.until("the server's socket", func() error {
		if sockets := tools.exec("ss", "-Hltni", "sport", "=", ":8080"); !strings.Contains(sockets, "cwnd:") {
			return fmt.Errorf("ss says %q", sockets)
		}
		return nil
	})
}

// controllers are all that a container's cgroup has.
const controllers = "cpu cpuset hugetlb io memory misc pids rdma"

func TestGuestHasWhatProgramsExpect(t *testing.T) {
	c := onNode(t).runPod().idle("main")
	filesystems := c.exec("cat", "/proc/filesystems")
	contains(t, "/proc/filesystems", filesystems, "overlay", "erofs", "ext4", "tmpfs", "mqueue")
	same(t, "cgroup controllers", strings.Fields(c.exec("cat", "/sys/fs/cgroup/cgroup.controllers")), strings.Fields(controllers))
	// A container is the root of what it sees.
	equal(t, "cgroup of a container's process", c.exec("cat", "/proc/self/cgroup"), "0::/")
	namespaces := c.exec("ls", "/proc/self/ns")
	contains(t, "namespaces", namespaces, "cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
	contains(t, "pressure stall information", c.exec("cat", "/proc/pressure/memory"), "some avg10")
	contains(t, "transparent huge pages", c.exec("cat", "/sys/kernel/mm/transparent_hugepage/enabled"), "madvise")
	// Without a good clock it would be jiffies, in steps of 10 ms.
	switch clock := c.exec("cat", "/sys/devices/system/clocksource/clocksource0/current_clocksource"); clock {
	case "tsc", "tsc-early", "kvm-clock":
	default:
		t.Errorf("the guest's clock is %q", clock)
	}
	// What the host told it was a little on the way.
	const late = 250 * time.Millisecond
	before := time.Now()
	if guest := guestTime(c); guest.Before(before.Add(-late)) || guest.After(time.Now()) {
		t.Errorf("the guest's clock said %s when the host's went from %s to %s", guest, before, time.Now())
	}
	contains(t, "CPU mitigations", c.exec("cat", "/sys/devices/system/cpu/vulnerabilities/spectre_v1"), "Mitigation")
	for _, file := range []string{"/proc/sysvipc/shm", "/proc/swaps", "/proc/keys", "/proc/net/if_inet6", "/proc/net/sctp/eps", "/proc/sys/fs/mqueue/msg_max"} {
		c.exec("test", "-e", file)
	}
}

// guestTime asks for the guest's clock.
func guestTime(c *container) time.Time {
	c.t.Helper()
	var seconds, microseconds int64
	for line := range strings.Lines(c.exec("adjtimex")) {
		fmt.Sscanf(strings.TrimSpace(line), "time.tv_sec: %d", &seconds)
		fmt.Sscanf(strings.TrimSpace(line), "time.tv_usec: %d", &microseconds)
	}
	return time.UnixMicro(seconds*1e6 + microseconds)
}
