package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

// many is more labels than anyone has use for.
func many(count int) map[string]string {
	labels := map[string]string{}
	for i := range count {
		labels[fmt.Sprintf("label-%d", i)] = "x"
	}
	return labels
}

func TestWrongPodIsRefusedByName(t *testing.T) {
	n := onNode(t)
	long := strings.Repeat("x", 10<<10)
	for name, c := range map[string]struct {
		change func(*cri.PodSandboxConfig)
		words  []string
	}{
		"long name":              {func(p *cri.PodSandboxConfig) { p.Metadata.Name = long }, []string{"metadata.name", "253"}},
		"name that is a path":    {func(p *cri.PodSandboxConfig) { p.Metadata.Name = "../../etc" }, []string{"metadata.name", "../../etc"}},
		"NUL in the name":        {func(p *cri.PodSandboxConfig) { p.Metadata.Name = "a\x00b" }, []string{"metadata.name"}},
		"NUL in the namespace":   {func(p *cri.PodSandboxConfig) { p.Metadata.Namespace = "a\x00b" }, []string{"metadata.namespace"}},
		"uid that is a path":     {func(p *cri.PodSandboxConfig) { p.Metadata.Uid = "../x" }, []string{"metadata.uid"}},
		"no name":                {func(p *cri.PodSandboxConfig) { p.Metadata.Name = "" }, []string{"metadata.name"}},
		"no metadata":            {func(p *cri.PodSandboxConfig) { p.Metadata = nil }, []string{"metadata"}},
		"thousands of labels":    {func(p *cri.PodSandboxConfig) { p.Labels = many(3000) }, []string{"labels", "3000", "1024"}},
		"thousands of notes":     {func(p *cri.PodSandboxConfig) { p.Annotations = many(3000) }, []string{"annotations", "3000", "1024"}},
		"long label":             {func(p *cri.PodSandboxConfig) { p.Labels["k"] = long }, []string{"labels", "k", "4096"}},
		"NUL in a label":         {func(p *cri.PodSandboxConfig) { p.Labels["k"] = "a\x00b" }, []string{"labels", "k", "NUL"}},
		"NUL in the hostname":    {func(p *cri.PodSandboxConfig) { p.Hostname = "a\x00b" }, []string{"hostname"}},
		"long hostname":          {func(p *cri.PodSandboxConfig) { p.Hostname = long }, []string{"hostname", "64"}},
		"relative log directory": {func(p *cri.PodSandboxConfig) { p.LogDirectory = "logs" }, []string{"log directory", "logs"}},
		"NUL in the logs' path":  {func(p *cri.PodSandboxConfig) { p.LogDirectory = "/tmp/a\x00b" }, []string{"log directory"}},
		"cgroup outside":         {func(p *cri.PodSandboxConfig) { p.Linux.CgroupParent = "/../../x" }, []string{"cgroup parent", ".."}},
		"NUL in the cgroup":      {func(p *cri.PodSandboxConfig) { p.Linux.CgroupParent = "/a\x00b" }, []string{"cgroup_parent", "NUL"}},
		"two lines of DNS": {func(p *cri.PodSandboxConfig) {
			p.DnsConfig = &cri.DNSConfig{Servers: []string{"10.0.0.1\nnameserver 10.0.0.2"}}
		}, []string{"dns_config.servers", "10.0.0.1"}},
		"sysctl of the host": {func(p *cri.PodSandboxConfig) { p.Linux.Sysctls = map[string]string{"kernel.panic": "1"} }, []string{"kernel.panic"}},
		"sysctl's value that is none": {func(p *cri.PodSandboxConfig) {
			p.Linux.Sysctls = map[string]string{"net.core.somaxconn": "many"}
		}, []string{"net.core.somaxconn", "many"}},
		"group without a user": {func(p *cri.PodSandboxConfig) {
			p.Linux.SecurityContext.RunAsGroup = &cri.Int64Value{Value: 1}
		}, []string{"run_as_group", "run_as_user"}},
		"the host's network": {func(p *cri.PodSandboxConfig) {
			p.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
		}, []string{"namespace_options.network", "kernel of its own"}},
		"the host's processes": {func(p *cri.PodSandboxConfig) {
			p.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE
		}, []string{"namespace_options.pid", "kernel of its own"}},
		"the host's IPC": {func(p *cri.PodSandboxConfig) {
			p.Linux.SecurityContext.NamespaceOptions.Ipc = cri.NamespaceMode_NODE
		}, []string{"namespace_options.ipc", "kernel of its own"}},
		"a pool of other huge pages": {func(p *cri.PodSandboxConfig) {
			p.Linux.Resources = &cri.LinuxContainerResources{HugepageLimits: []*cri.HugepageLimit{{PageSize: "1GB", Limit: 1 << 30}}}
		}, []string{"hugepage_limits", "1GB", "2MB"}},
		"port that is none": {func(p *cri.PodSandboxConfig) {
			p.PortMappings = []*cri.PortMapping{{ContainerPort: 80, HostPort: 70000}}
		}, []string{"70000"}},
		"more memory than the node gives": {func(p *cri.PodSandboxConfig) {
			p.Linux.Resources = &cri.LinuxContainerResources{MemoryLimitInBytes: 1 << 50}
		}, []string{"memory", "vm.max_memory_mb"}},
		"more processors than the node gives": {func(p *cri.PodSandboxConfig) {
			p.Linux.Resources = &cri.LinuxContainerResources{CpuPeriod: 100_000, CpuQuota: 100_000_000}
		}, []string{"processors", "vm.max_vcpus"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := n.tryPod("", c.change)
			refused(t, err, codes.InvalidArgument, c.words...)
			if len(err.Error()) > 2000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestAnnotationThatCannotBeObeyedIsRefused(t *testing.T) {
	n := onNode(t)
	for _, c := range []struct {
		key, value string
		accepted   []string
	}{
		{"a3s.box/tee", "sev-snp", []string{"lacks", "sev_snp", "/dev/sev", "none"}},
		{"a3s.box/tee", "tdx", []string{"none", "sev-snp"}},
		{"a3s.box/tee-generation", "naples", []string{"milan", "genoa", "turin"}},
		{"a3s.box/workload-id", "a b", []string{"253"}},
		{"a3s.box/workload-id", strings.Repeat("x", 254), []string{"253"}},
		{"a3s.box/pool", "fast", []string{"off"}},
		{"a3s.box/pids-limit", "0", []string{"1", "32768"}},
		{"a3s.box/pids-limit", "99999999", []string{"32768"}},
		{"a3s.box/scratch-mb", "1", []string{"16", "102400"}},
		{"a3s.box/network-mode", "host", []string{"bridge", "none"}},
		{"a3s.box/vcpus", "1.5", []string{"32"}},
		{"a3s.box/VCPUS", "1", []string{"a3s.box/vcpus"}},
	} {
		_, err := n.tryPod("", annotated(c.key, c.value))
		refused(t, err, codes.InvalidArgument, append(c.accepted, c.key, c.value)...)
	}
}

// All annotations of ours at once, with values that are good; they come back as they were given.
func TestAnnotationsAreObeyedAndComeBack(t *testing.T) {
	n := onNode(t)
	given := map[string]string{
		"a3s.box/vcpus": "2", "a3s.box/memory-mb": "208", "a3s.box/network-mode": "none", "a3s.box/scratch-mb": "64",
		"a3s.box/pids-limit": "55", "a3s.box/tee": "none", "a3s.box/tee-generation": "genoa", "a3s.box/workload-id": "team-a.job_7",
		"a3s.box/pool": "off", "example.com/lines": "one\ntwo", "example.com/empty": "",
	}
	p := n.runPod(func(config *cri.PodSandboxConfig) { config.Annotations = given })
	p.hasSize("2", 208)
	c := p.idle("main")
	equal(t, "pids.max", c.exec("cat", "/sys/fs/cgroup/pids.max"), "55")
	equal(t, "interfaces", c.exec("ls", "/sys/class/net"), "lo")
	equal(t, "pod IP", p.status().Network.Ip, "")
	for key, value := range given {
		if got, there := p.status().Annotations[key]; !there || got != value {
			t.Errorf("annotation %s came back as %q", key, got)
		}
	}
	equal(t, "annotations", len(p.status().Annotations), len(given))
	config := fixture.ContainerConfig("annotated", busybox)
	config.Annotations = map[string]string{"a3s.box/vcpus": "1"}
	_, err := n.Runtime.CreateContainer(t.Context(), p.id, config, p.config)
	refused(t, err, codes.InvalidArgument, "a3s.box/vcpus", "pod's annotations")
}

func TestWrongContainerIsRefusedByName(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	p.pull(busybox)
	host := n.hostDir()
	link := filepath.Join(host, "link")
	must(t, os.Symlink(n.RootDir(), link))
	must(t, os.Mkdir(filepath.Join(host, "proc"), 0o755))
	must(t, unix.Mount("/proc", filepath.Join(host, "proc"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(host, "proc"), unix.MNT_DETACH) })
	own := filepath.Join(host, "own")
	must(t, os.Mkdir(own, 0o755))
	must(t, unix.Mount(filepath.Join(n.RootDir(), "images"), own, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(own, unix.MNT_DETACH) })
	socket := filepath.Join(host, "socket")
	listener, err := net.Listen("unix", socket)
	must(t, err)
	defer listener.Close()
	long := strings.Repeat("x", 10<<10)
	bind := func(source string) func(*cri.ContainerConfig) {
		return mounted(&cri.Mount{HostPath: source, ContainerPath: "/data"})
	}
	for name, c := range map[string]struct {
		change func(*cri.ContainerConfig)
		words  []string
	}{
		"long name":             {func(c *cri.ContainerConfig) { c.Metadata.Name = long }, []string{"metadata.name", "253"}},
		"name that is a path":   {func(c *cri.ContainerConfig) { c.Metadata.Name = "../x" }, []string{"metadata.name", "../x"}},
		"NUL in the name":       {func(c *cri.ContainerConfig) { c.Metadata.Name = "a\x00b" }, []string{"metadata.name"}},
		"no metadata":           {func(c *cri.ContainerConfig) { c.Metadata = nil }, []string{"metadata.name"}},
		"thousands of labels":   {func(c *cri.ContainerConfig) { c.Labels = many(3000) }, []string{"labels", "3000", "1024"}},
		"NUL in an annotation":  {func(c *cri.ContainerConfig) { c.Annotations = map[string]string{"k": "\x00"} }, []string{"annotations", "NUL"}},
		"no image":              {func(c *cri.ContainerConfig) { c.Image = nil }, []string{"image"}},
		"NUL in the command":    {func(c *cri.ContainerConfig) { c.Command = []string{"a\x00b"} }, []string{"command", "NUL"}},
		"NUL in a variable":     {func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "K", Value: []byte("\x00")}} }, []string{"envs", "K"}},
		"variable with =":       {func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "K=V"}} }, []string{"envs", "K=V"}},
		"relative directory":    {func(c *cri.ContainerConfig) { c.WorkingDir = "here" }, []string{"working_dir", "here"}},
		"log elsewhere":         {func(c *cri.ContainerConfig) { c.LogPath = "../../etc/passwd" }, []string{"log path"}},
		"NUL in the log's path": {func(c *cri.ContainerConfig) { c.LogPath = "a\x00b" }, []string{"log path"}},
		"group without a user": {func(c *cri.ContainerConfig) {
			c.Linux.SecurityContext.RunAsGroup = &cri.Int64Value{Value: 1}
		}, []string{"run_as_group", "run_as_user"}},
		"user that is no number": {func(c *cri.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: -1}
		}, []string{"run_as_user", "-1"}},
		"user with a newline": {func(c *cri.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUsername = "root\n0"
		}, []string{"run_as_username"}},
		"unknown user": {func(c *cri.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUsername = "nobody-of-this-name"
		}, []string{"nobody-of-this-name"}},
		"the host's /proc":            {bind("/proc"), []string{"/data", "/proc", "kernel"}},
		"a file of /sys":              {bind("/sys/kernel/../kernel"), []string{"/sys/kernel", "kernel"}},
		"/proc at another place":      {bind(filepath.Join(host, "proc")), []string{filepath.Join(host, "proc"), "kernel"}},
		"the runtime's own directory": {bind(n.RootDir()), []string{n.RootDir(), "runtime's own"}},
		"it by a symbolic link":       {bind(link), []string{link, "runtime's own"}},
		"it by a mount elsewhere":     {bind(own), []string{own, "runtime's own"}},
		"another pod's directory":     {bind(filepath.Dir(n.PodDir(p.id))), []string{"runtime's own"}},
		"a socket of the host":        {bind(socket), []string{socket, "socket"}},
		"mounts for the host": {mounted(&cri.Mount{
			HostPath: host, ContainerPath: "/data", Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL,
		}), []string{"cannot appear on the host"}},
		"relative source":        {bind("data"), []string{"host_path", "data"}},
		"NUL in a source":        {bind("/tmp/a\x00b"), []string{"host_path", "NUL"}},
		"mount over everything":  {mounted(&cri.Mount{HostPath: host, ContainerPath: "/"}), []string{"container_path"}},
		"too many processes":     {limited(&cri.LinuxContainerResources{Unified: map[string]string{"pids.max": "999999"}}), []string{"pids.max", "32768"}},
		"value that is none":     {limited(&cri.LinuxContainerResources{Unified: map[string]string{"memory.high": "much"}}), []string{"memory.high", "much"}},
		"file that is not there": {limited(&cri.LinuxContainerResources{Unified: map[string]string{"cpu.no-such": "1"}}), []string{"cpu.no-such"}},
		"no time at all":         {limited(&cri.LinuxContainerResources{CpuQuota: 999}), []string{"cpu_quota", "999"}},
		"file of another name":   {limited(&cri.LinuxContainerResources{Unified: map[string]string{"memory/../x": "1"}}), []string{"memory/../x"}},
	} {
		t.Run(name, func(t *testing.T) {
			config := fixture.ContainerConfig(fmt.Sprintf("wrong-%d", len(name)), busybox, "true")
			config.Metadata.Name += strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "/", "-")
			c.change(config)
			// What only the guest, or a look at the host's files, can tell is told when it is started.
			id, err := n.Runtime.CreateContainer(t.Context(), p.id, config, p.config)
			if err == nil {
				err = n.Runtime.StartContainer(t.Context(), id)
			}
			refused(t, err, codes.InvalidArgument, c.words...)
			if len(err.Error()) > 2000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
	config := fixture.ContainerConfig("no-image", "registry.k8s.io/no/such:image")
	_, err = n.Runtime.CreateContainer(t.Context(), p.id, config, p.config)
	refused(t, err, codes.NotFound, "no/such")
	p.idle("right").exec("true")
}

func TestPodHasNoEndlessContainers(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	p.pull(busybox)
	for i := range 256 {
		config := fixture.ContainerConfig(fmt.Sprintf("c%d", i), busybox, "true")
		_, err := n.Runtime.CreateContainer(t.Context(), p.id, config, p.config)
		must(t, err)
	}
	_, err := n.Runtime.CreateContainer(t.Context(), p.id, fixture.ContainerConfig("last", busybox), p.config)
	refused(t, err, codes.ResourceExhausted, p.id, "256", "cri.max_containers")
	listed, err := n.Runtime.ListContainers(t.Context(), &cri.ContainerFilter{PodSandboxId: p.id})
	must(t, err)
	equal(t, "containers", len(listed), 256)
	p.fromMemory(map[string]func() error{
		"ListContainers":   func() error { return firstError(n.Runtime.ListContainers(t.Context(), nil)) },
		"PodSandboxStatus": func() error { return firstError(n.Runtime.PodSandboxStatus(t.Context(), p.id, true)) },
	})
}
