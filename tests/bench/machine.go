package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"a3s.box/tests/fixture"
)

// The host's port that the agent calls when it is ready, as a suffix of the vsock backend's socket.
const readySocket = "vsock_1024"

const bootTimeout = 30 * time.Second

// program is how one of a pod's processes was started.
type program struct {
	path      string
	arguments []string
	uid       uint32
}

// machine is a pod's MicroVM without the pod: the same programs, started by the same command lines.
type machine struct {
	qemu, virtiofsd, vsock program
	scratch                string
	kernel, initramfs      string
	dir                    string
}

// bareMachine copies the command lines of a running pod.
func (b *bench) bareMachine(ctx context.Context) (*machine, error) {
	sandbox, err := b.node.Runtime.RunPodSandbox(ctx, b.node.PodConfig("model"), "")
	if err != nil {
		return nil, err
	}
	m := &machine{dir: b.node.Path("bare")}
	for name, to := range map[string]*program{"qemu": &m.qemu, "virtiofsd": &m.virtiofsd, "vhost-device-vsock": &m.vsock} {
		if *to, err = programOf(b.node.PodProcesses(sandbox, name)); err != nil {
			return nil, fmt.Errorf("the pod's %s: %w", name, err)
		}
	}
	m.kernel, m.initramfs = b.node.GuestFile("vmlinux"), b.node.GuestFile("initramfs.cpio")
	m.scratch = b.node.Path("scratch.ext4")
	template := filepath.Join(b.node.RootDir(), "pods", sandbox, "scratch.ext4")
	if output, err := exec.CommandContext(ctx, "cp", "--sparse=always", template, m.scratch).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy the scratch disk: %w: %s", err, output)
	}
	if err := b.node.Runtime.StopPodSandbox(ctx, sandbox); err != nil {
		return nil, err
	}
	return m, b.node.Runtime.RemovePodSandbox(ctx, sandbox)
}

func programOf(found []fixture.Process) (program, error) {
	if len(found) == 0 {
		return program{}, fmt.Errorf("no such process")
	}
	proc := filepath.Join("/proc", strconv.Itoa(found[0].PID))
	path, err := os.Readlink(filepath.Join(proc, "exe"))
	if err != nil {
		return program{}, err
	}
	line, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil {
		return program{}, err
	}
	info, err := os.Stat(proc)
	if err != nil {
		return program{}, err
	}
	arguments := strings.Split(string(bytes.TrimSuffix(line, []byte{0})), "\x00")[1:]
	return program{path, arguments, info.Sys().(*syscall.Stat_t).Uid}, nil
}

// boot starts the backends and then QEMU, and returns the time from QEMU's start to the agent's first byte.
func (m *machine) boot(ctx context.Context) (took time.Duration, err error) {
	var s setup
	defer s.undo()
	s.directory(m.dir, m.vsock.uid)
	ready := s.listen(filepath.Join(m.dir, readySocket), m.vsock.uid)
	share := s.virtiofsd(m.virtiofsd, m.dir)
	s.start(m.vsock, m.dir, nil)
	vsock := s.connect(ctx, filepath.Join(m.dir, "backend"))
	files := map[string]*os.File{
		"vsock":   vsock,
		"share":   share,
		"scratch": s.open(m.scratch, os.O_RDWR),
		"console": s.sink(),
		"qmp":     s.sink(),
		"nic0":    s.tap(),
		"-kernel": s.open(m.kernel, os.O_RDONLY),
		"-initrd": s.open(m.initramfs, os.O_RDONLY),
	}
	qemu, inherited := m.qemu.withFiles(files)
	started := time.Now()
	s.start(qemu, "/", inherited)
	if s.err != nil {
		return 0, s.err
	}
	if err := ready.SetDeadline(started.Add(bootTimeout)); err != nil {
		return 0, err
	}
	agent, err := ready.Accept()
	if err != nil {
		return 0, fmt.Errorf("the bare machine's agent does not call: %w", err)
	}
	defer agent.Close()
	_, err = agent.Read(make([]byte, 1))
	return time.Since(started), err
}

// Where QEMU's arguments name an open file: the device or the option it belongs to, and its number.
var (
	identified = regexp.MustCompile(`id=(\w+),fd=(\d+)`)
	scratchSet = regexp.MustCompile(`^fd=(\d+),set=1$`)
	opened     = regexp.MustCompile(`^/proc/self/fd/\d+$`)
)

// withFiles gives the program other open files in the places of those it had.
func (p program) withFiles(files map[string]*os.File) (program, []*os.File) {
	const firstInherited = 3
	var inherited []*os.File
	next := func(name string) string {
		if files[name] == nil {
			panic(fmt.Sprintf("no file for %q of %s: the shim's command line has changed", name, p.path))
		}
		inherited = append(inherited, files[name])
		return strconv.Itoa(firstInherited + len(inherited) - 1)
	}
	arguments := make([]string, len(p.arguments))
	for i, argument := range p.arguments {
		if found := identified.FindStringSubmatch(argument); found != nil {
			argument = strings.Replace(argument, "fd="+found[2], "fd="+next(found[1]), 1)
		} else if scratchSet.MatchString(argument) {
			argument = "fd=" + next("scratch") + ",set=1"
		} else if opened.MatchString(argument) {
			argument = "/proc/self/fd/" + next(p.arguments[i-1])
		}
		arguments[i] = argument
	}
	return program{p.path, arguments, p.uid}, inherited
}

// tap opens a network device that leads nowhere. It goes with its last descriptor.
func (s *setup) tap() *os.File {
	if s.err != nil {
		return nil
	}
	var fd int
	if fd, s.err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); s.err != nil {
		return nil
	}
	file := os.NewFile(uintptr(fd), "tap")
	s.closeLater(file)
	request, err := unix.NewIfreq("a3sbench%d")
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	s.err = err
	return file
}

// listen makes a socket that another user may connect to.
func (s *setup) listen(path string, uid uint32) *net.UnixListener {
	if s.err != nil {
		return nil
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		s.err = err
		return nil
	}
	s.closeLater(listener)
	s.err = os.Chown(path, int(uid), int(uid))
	return listener
}
