package e2e

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

// secured changes a container's security context.
func secured(change func(*cri.LinuxContainerSecurityContext)) func(*cri.ContainerConfig) {
	return func(config *cri.ContainerConfig) { change(config.Linux.SecurityContext) }
}

func id(number int64) *cri.Int64Value { return &cri.Int64Value{Value: number} }

// Whom containers run as, and what their statuses say of it.
func TestParitySecurityUsers(t *testing.T) {
	p := onNode(t).runPod()
	for _, c := range []struct {
		name, image string
		change      func(*cri.LinuxContainerSecurityContext)
		uid, gid    int64
		groups      []int64
	}{
		{"nothing", images.Busybox, func(*cri.LinuxContainerSecurityContext) {}, 0, 0, []int64{0}},
		{"number", images.Busybox, func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = id(1000) }, 1000, 0, []int64{0}},
		{"user-and-group", images.Busybox, func(s *cri.LinuxContainerSecurityContext) {
			s.RunAsUser, s.RunAsGroup, s.SupplementalGroups = id(1000), id(3000), []int64{2000}
		}, 1000, 3000, []int64{2000, 3000}},
		{"name", images.Busybox, func(s *cri.LinuxContainerSecurityContext) { s.RunAsUsername = "www-data" }, 33, 33, []int64{33, 100}},
		{"image-number", images.User, func(*cri.LinuxContainerSecurityContext) {}, 1002, 0, []int64{0}},
		{"image", images.NamedUser, func(*cri.LinuxContainerSecurityContext) {}, 33, 33, []int64{33, 100}},
		{"merged", images.NamedUser, func(s *cri.LinuxContainerSecurityContext) {
			s.SupplementalGroups, s.SupplementalGroupsPolicy = []int64{2000}, cri.SupplementalGroupsPolicy_Merge
		}, 33, 33, []int64{33, 100, 2000}},
		{"strict", images.NamedUser, func(s *cri.LinuxContainerSecurityContext) {
			s.SupplementalGroups, s.SupplementalGroupsPolicy = []int64{2000}, cri.SupplementalGroupsPolicy_Strict
		}, 33, 33, []int64{33, 2000}},
	} {
		config := fixture.ContainerConfig(c.name, c.image, "sh", "-c", "grep -E '^(Uid|Gid|Groups):' /proc/self/status; exec sleep 3600")
		c.change(config.Linux.SecurityContext)
		made := p.start(config)
		t.Run(c.name, func(t *testing.T) {
			made := made.in(t)
			made.says("Groups:")
			log, _ := made.log()
			lines := strings.Split(strings.TrimSpace(log), "\n")
			equal(t, "Uid", words(lines[0]), fmt.Sprintf("Uid: %[1]d %[1]d %[1]d %[1]d", c.uid))
			equal(t, "Gid", words(lines[1]), fmt.Sprintf("Gid: %[1]d %[1]d %[1]d %[1]d", c.gid))
			equal(t, "Groups", words(lines[2]), "Groups: "+strings.Trim(fmt.Sprint(c.groups), "[]"))
			user := made.status().User.GetLinux()
			told := slices.Sorted(slices.Values(user.GetSupplementalGroups()))
			equal(t, "the status's user", fmt.Sprint(user.GetUid(), user.GetGid(), told), fmt.Sprint(c.uid, c.gid, c.groups))
		})
	}
}

// What containers may do.
func TestParitySecurityPrivileges(t *testing.T) {
	p := onNode(t).runPod(privilegedPod, func(config *cri.PodSandboxConfig) {
		config.Linux.Sysctls = map[string]string{"net.core.somaxconn": "321", "kernel.shmmax": "4194304"}
	})
	sets := func(c *container) string {
		// Of an exec the same is due.
		const script = `for process in 1 self; do echo $(sed -n 's/^Cap[PEBA][a-z]*:.//p' /proc/$process/status); done`
		first, exec, _ := strings.Cut(c.exec("sh", "-c", script), "\n")
		equal(c.t, "sets of an exec", exec, first)
		return first
	}
	capable := func(add, drop []string) func(*cri.LinuxContainerSecurityContext) {
		return func(s *cri.LinuxContainerSecurityContext) {
			s.Capabilities = &cri.Capability{AddCapabilities: add, DropCapabilities: drop}
		}
	}
	const usual, bind, none = "00000000a80425fb", "0000000000000400", "0000000000000000"
	for _, c := range []struct {
		name   string
		change func(*cri.LinuxContainerSecurityContext)
		want   string
	}{
		{"usual", func(*cri.LinuxContainerSecurityContext) {}, usual + " " + usual + " " + usual + " " + none},
		{"added", capable([]string{"NET_ADMIN", "SYS_TIME"}, nil), "00000000aa0435fb 00000000aa0435fb 00000000aa0435fb " + none},
		{"dropped", capable([]string{"NET_BIND_SERVICE"}, []string{"ALL"}), bind + " " + bind + " " + bind + " " + none},
		{"user", func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = id(1000) }, none + " " + none + " " + usual + " " + none},
	} {
		made := p.idle(c.name, secured(c.change))
		equal(t, c.name, sets(made), c.want)
	}

	t.Run("new privileges", func(t *testing.T) {
		for held, want := range map[bool]string{false: "Effective uid: 0\n", true: "Effective uid: 1000\n"} {
			config := fixture.ContainerConfig(fmt.Sprintf("euid-%v", held), images.Files, "euid")
			config.Linux.SecurityContext.RunAsUser = id(1000)
			config.Linux.SecurityContext.NoNewPrivs = held
			equal(t, fmt.Sprintf("no_new_privs %v", held), p.in(t).start(config).succeeds(), want)
		}
	})
	t.Run("paths", func(t *testing.T) {
		c := p.in(t).idle("paths", secured(func(s *cri.LinuxContainerSecurityContext) {
			s.ReadonlyRootfs = true
			s.MaskedPaths = []string{"/proc/keys", "/www", "/no/such/path"}
			s.ReadonlyPaths = []string{"/proc/sys", "/dev/shm"}
		}))
		for _, step := range []struct {
			command string
			allowed bool
		}{
			{"touch /file", false},
			{"touch /dev/shm/file", false},
			{"echo 1 >/proc/sys/net/core/somaxconn", false},
			{"test -z \"$(ls /www)\"", true},
			{"test -z \"$(cat /proc/keys)\"", true},
			{"echo x >/dev/null", true},
		} {
			_, _, code := c.tryExec("sh", "-c", step.command)
			equal(t, step.command, code == 0, step.allowed)
		}
	})
	t.Run("devices", func(t *testing.T) {
		p := p.in(t)
		p.idle("devices", devices(
			&cri.Device{HostPath: "/dev/fuse", ContainerPath: "/dev/fuse", Permissions: "rw"},
			&cri.Device{HostPath: "/dev/net/tun", ContainerPath: "/dev/tunnel", Permissions: "rwm"},
		)).exec("sh", "-c", ": <>/dev/fuse && : <>/dev/tunnel")
		_, stderr, code := p.idle("no-devices").tryExec("sh", "-c", "mknod /tmp/fuse c 10 229 && : <>/tmp/fuse")
		equal(t, "the device is there for one that did not ask", code == 0, false)
		contains(t, "the refusal", stderr, "not permitted")
	})
	t.Run("sysctls", func(t *testing.T) {
		c := p.in(t).idle("sysctls")
		equal(t, "somaxconn", c.exec("cat", "/proc/sys/net/core/somaxconn"), "321")
		equal(t, "shmmax", c.exec("cat", "/proc/sys/kernel/shmmax"), "4194304")
	})
	t.Run("privileged", func(t *testing.T) {
		c := p.in(t).idle("privileged", secured(func(s *cri.LinuxContainerSecurityContext) {
			s.Privileged, s.MaskedPaths, s.ReadonlyPaths = true, nil, nil
		}))
		commands := []string{
			"mount -t tmpfs none /mnt 2>/dev/null || { mkdir -p /mnt && mount -t tmpfs none /mnt; }",
			"head -c 16 /proc/interrupts | wc -c | grep -qx 16",
			"test -w /sys/fs/cgroup && touch -c /sys/kernel/mm/ksm/run",
			"echo 322 >/proc/sys/net/core/somaxconn",
			"grep -q '^Seccomp:.0' /proc/1/status",
		}
		// containerd gives our handler's privileged containers no devices: those of the host mean nothing in a guest.
		if p.ServedBy() != fixture.Containerd {
			commands = append(commands, "mknod /tmp/null c 1 3 && echo x >/tmp/null", "test -c /dev/kmsg")
		}
		for _, command := range commands {
			if _, stderr, code := c.tryExec("sh", "-c", command); code != 0 {
				t.Errorf("%s: exit code %d, %s", command, code, stderr)
			}
		}
		mask := processStatus(c, "CapEff")
		set, err := strconv.ParseUint(mask, 16, 64)
		must(t, err)
		// root itself may lack some on a machine.
		if bound := processStatus(c, "CapBnd"); mask != bound || bits.OnesCount64(set) < 38 {
			t.Errorf("capabilities %s of %s", mask, bound)
		}
	})
	t.Run("modules", func(t *testing.T) {
		made := p.in(t).idle("modules", secured(func(s *cri.LinuxContainerSecurityContext) {
			if p.ServedBy() == fixture.A3sBox {
				s.Apparmor = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
			}
			s.SelinuxOptions = &cri.SELinuxOption{User: "u", Role: "r", Type: "t", Level: "s0:c1,c2"}
		}))
		made.exec("true")
	})
}

// Whose processes a container sees.
func TestParitySecurityProcesses(t *testing.T) {
	p := onNode(t).runPod(func(config *cri.PodSandboxConfig) {
		config.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	})
	sees := func(mode cri.NamespaceMode, target string) func(*cri.ContainerConfig) {
		return func(config *cri.ContainerConfig) {
			config.Linux.SecurityContext.NamespaceOptions.Pid = mode
			config.Linux.SecurityContext.NamespaceOptions.TargetId = target
		}
	}
	const marked = "trap 'exit 0' TERM; : %s; while :; do sleep 3600 & wait $!; done"
	start := func(name string, change func(*cri.ContainerConfig)) *container {
		return p.shell(name, fmt.Sprintf(marked, "marked-"+name), change)
	}
	namespace := func(c *container) string { return c.exec("readlink", "/proc/self/ns/pid") }
	processes := func(c *container) string { return c.exec("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '") }
	alone := start("alone", sees(cri.NamespaceMode_CONTAINER, ""))
	shared, other := start("shared", sees(cri.NamespaceMode_POD, "")), start("other", sees(cri.NamespaceMode_POD, ""))

	equal(t, "namespaces of POD", namespace(other), namespace(shared))
	if namespace(alone) == namespace(shared) {
		t.Error("a container of mode CONTAINER shares its processes")
	}
	contains(t, "processes of POD", processes(shared), "marked-shared", "marked-other")
	if strings.Contains(processes(alone), "marked-shared") {
		t.Error("a container of mode CONTAINER sees others")
	}
	equal(t, "the first process", strings.Contains(alone.exec("cat", "/proc/1/cmdline"), "marked-alone"), true)

	shared.exec("sh", "-c", "echo shared >/dev/shm/file")
	equal(t, "/dev/shm", alone.exec("cat", "/dev/shm/file"), "shared")
	for _, namespace := range []string{"net", "ipc", "uts"} {
		equal(t, namespace, alone.exec("readlink", "/proc/self/ns/"+namespace), shared.exec("readlink", "/proc/self/ns/"+namespace))
	}
	// The node's are the guest's, here.
	if p.ServedBy() == fixture.A3sBox {
		node := start("node", sees(cri.NamespaceMode_NODE, ""))
		contains(t, "processes of NODE", processes(node), "marked-node", "marked-shared", "marked-alone")
		equal(t, "the first process of NODE", node.exec("cat", "/proc/1/comm"), "init")
	}
	// containerd names a target by a process of the host, which a container of ours is not.
	if p.ServedBy() != fixture.Containerd {
		debugger := start("debugger", sees(cri.NamespaceMode_TARGET, alone.id))
		equal(t, "namespace of TARGET", namespace(debugger), namespace(alone))
		contains(t, "processes of TARGET", processes(debugger), "marked-debugger", "marked-alone")
		contains(t, "processes of the target", processes(alone), "marked-debugger")
		must(t, p.Runtime.StopContainer(t.Context(), debugger.id, 5))
		alone.exec("true")
	}
}

// What cannot be is refused.
func TestParitySecurityRefusals(t *testing.T) {
	n := onNode(t)
	fails := func(name string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	_, err := n.tryPod("", func(config *cri.PodSandboxConfig) { config.Linux.Sysctls = map[string]string{"kernel.panic": "1"} })
	fails("a sysctl of the host", err)
	p := n.runPod()
	stopped := p.shell("stopped", "exit 0")
	stopped.exited()
	for name, change := range map[string]func(*cri.LinuxContainerSecurityContext){
		"group without user": func(s *cri.LinuxContainerSecurityContext) { s.RunAsGroup = id(1) },
		"privileged":         func(s *cri.LinuxContainerSecurityContext) { s.Privileged = true },
		"apparmor": func(s *cri.LinuxContainerSecurityContext) {
			s.Apparmor = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "localhost/no-such"}
		},
		"target": func(s *cri.LinuxContainerSecurityContext) {
			s.NamespaceOptions.Pid, s.NamespaceOptions.TargetId = cri.NamespaceMode_TARGET, strings.Repeat("0", 64)
		},
		"stopped target": func(s *cri.LinuxContainerSecurityContext) {
			s.NamespaceOptions.Pid, s.NamespaceOptions.TargetId = cri.NamespaceMode_TARGET, stopped.id
		},
	} {
		config := fixture.ContainerConfig(strings.ReplaceAll(name, " ", "-"), images.Busybox, "true")
		change(config.Linux.SecurityContext)
		id, err := n.Runtime.CreateContainer(t.Context(), p.id, config, p.config)
		if err == nil {
			err = n.Runtime.StartContainer(t.Context(), id)
		}
		fails(name, err)
	}
}

// words is a text with one space between words.
func words(text string) string { return strings.Join(strings.Fields(text), " ") }
