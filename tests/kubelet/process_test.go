package kubelet

import (
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

const configuration = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: %[1]s
containerRuntimeEndpoint: unix://%[2]s
address: 127.0.0.1
port: %[3]d
healthzPort: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: %[4]s
podLogsDir: %[5]s
volumePluginDir: %[6]s
fileCheckFrequency: 1s
syncFrequency: 1s
featureGates: {PodAndContainerStatsFromCRI: true}
cpuManagerPolicy: static
kubeReserved: {cpu: 100m}
evictionHard: {memory.available: 1Mi, nodefs.available: 0%%, nodefs.inodesFree: 0%%, imagefs.available: 0%%}
`

const nodeName = "test-node"

// What kubelet sets on the host.
var sysctls = []string{"vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"}

type kubelet struct {
	manifests string
	root      string
	address   string
	client    *http.Client
}

// startKubelet runs the kubelet of this module's version. All that it leaves on the machine is removed at the test's end.
func startKubelet(t *testing.T, node *fixture.Node) *kubelet {
	t.Helper()
	program := buildKubelet(t)
	k := &kubelet{manifests: node.Path("manifests"), client: insecureClient()}
	root, logs, plugins := node.Path("kubelet"), node.Path("pod-logs"), node.Path("plugins")
	k.root = root
	for _, dir := range []string{k.manifests, root, logs, plugins} {
		must(t, os.Mkdir(dir, 0o755))
	}
	port := freePort(t)
	k.address = fmt.Sprintf("https://127.0.0.1:%d", port)
	file := node.Path("kubelet.yaml")
	text := fmt.Appendf(nil, configuration, k.manifests, node.Socket(), port, node.CgroupParent(), logs, plugins)
	must(t, os.WriteFile(file, text, 0o644))
	keepSysctls(t)
	t.Cleanup(func() { removeLeftovers(node.CgroupParent(), root) })

	log, err := os.Create(node.Path("kubelet.log"))
	must(t, err)
	command := exec.Command(program, "--config", file, "--root-dir", root, "--cert-dir", filepath.Join(root, "pki"),
		"--hostname-override", nodeName, "--node-ip", "127.0.0.1", "--system-cgroups=", "--kubelet-cgroups=")
	command.Stdout, command.Stderr = log, log
	must(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
		_ = log.Close()
		if t.Failed() {
			t.Logf("kubelet's log:\n%s", tail(log.Name()))
		}
	})
	return k
}

// tail is the end of kubelet's log, without what a standalone kubelet says every second.
func tail(path string) string {
	text, _ := os.ReadFile(path)
	lines := slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool {
		return strings.Contains(line, "Creating a mirror pod") || strings.Contains(line, "node status fields")
	})
	return strings.Join(lines[max(0, len(lines)-200):], "\n")
}

// add gives kubelet a manifest, or another one of the same name, in which words are replaced. Kubelet never sees a part of it.
func (k *kubelet) add(t *testing.T, name, manifest string, replacements ...string) {
	t.Helper()
	text := strings.NewReplacer(append(replacements, "IMAGE", images.Busybox, "FILES", images.Files)...).Replace(manifest)
	unfinished := filepath.Join(k.manifests, "."+name)
	must(t, os.WriteFile(unfinished, []byte(text), 0o644))
	must(t, os.Rename(unfinished, filepath.Join(k.manifests, name+".yaml")))
}

// remove takes it away again.
func (k *kubelet) remove(t *testing.T, name string) {
	t.Helper()
	must(t, os.Remove(filepath.Join(k.manifests, name+".yaml")))
}

func buildKubelet(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	must(t, err)
	program := filepath.Join(cache, "a3s-box", "kubelet", "kubelet")
	started := time.Now()
	build := exec.Command("go", "build", "-trimpath", "-o", program, "k8s.io/kubernetes/cmd/kubelet")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build kubelet: %v: %s", err, output)
	}
	t.Logf("kubelet built in %s", time.Since(started).Round(time.Second))
	return program
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func keepSysctls(t *testing.T) {
	t.Helper()
	for _, name := range sysctls {
		path := filepath.Join("/proc/sys", name)
		value, err := os.ReadFile(path)
		must(t, err)
		t.Cleanup(func() { _ = os.WriteFile(path, value, 0o644) })
	}
}

// removeLeftovers unmounts what kubelet mounted below its directory, and removes the cgroups that it made and keeps.
func removeLeftovers(cgroupParent, root string) {
	table, _ := os.ReadFile("/proc/self/mountinfo")
	for _, line := range slices.Backward(strings.Split(string(table), "\n")) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4]+"/", root+"/") {
			_ = syscall.Unmount(fields[4], syscall.MNT_DETACH)
		}
	}
	kept, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent + "/kubepods")
	unified, _ := filepath.Glob("/sys/fs/cgroup" + cgroupParent + "/kubepods")
	for _, top := range append(kept, unified...) {
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			_ = syscall.Rmdir(dir)
		}
	}
}
