package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

// condition is what Status says about "RuntimeReady" or "NetworkReady".
func (n *node) condition(kind string) *cri.RuntimeCondition {
	n.t.Helper()
	response, err := n.Runtime.Status(n.t.Context(), true)
	must(n.t, err)
	for _, condition := range response.Status.Conditions {
		if condition.Type == kind {
			return condition
		}
	}
	n.t.Fatalf("no condition %s: %v", kind, response.Status.Conditions)
	return nil
}

func (n *node) notReady(kind string, words ...string) {
	n.t.Helper()
	condition := n.condition(kind)
	equal(n.t, kind, condition.Status, false)
	if condition.Reason == "" {
		n.t.Errorf("%s gives no reason", kind)
	}
	contains(n.t, kind+"'s message", condition.Message, words...)
}

func TestHealthyNodeIsReady(t *testing.T) {
	n := onNode(t)
	for _, kind := range []string{"RuntimeReady", "NetworkReady"} {
		if condition := n.condition(kind); !condition.Status {
			t.Errorf("%s: %s: %s", kind, condition.Reason, condition.Message)
		}
	}
	response, err := n.Runtime.Status(t.Context(), true)
	must(t, err)
	var info strings.Builder
	for _, text := range response.Info {
		info.WriteString(text)
	}
	contains(t, "Status", info.String(), "sha256", accelerator(t))
}

func TestMissingCNIConfigIsReported(t *testing.T) {
	n := ownNode(t, fixture.Options{NoNetwork: true})
	n.notReady("NetworkReady", n.NetworkDir())
	_, err := n.tryPod("")
	refused(t, err, codes.FailedPrecondition, n.NetworkDir())
}

func TestCNIPluginThatFailsIsReportedAndUndone(t *testing.T) {
	n := ownNode(t, fixture.Options{})
	plugin := `#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion": "1.0.0", "code": 100, "msg": "out of patience", "details": "as told"}'
exit 1
`
	must(t, os.WriteFile(filepath.Join(n.PluginDir(), "failing"), []byte(plugin), 0o755))
	list := filepath.Join(n.NetworkDir(), "10-test.conflist")
	good := mustRead(t, list)
	mustWrite(t, list, strings.Replace(good, `{"type": "portmap"`, `{"type": "failing"}, {"type": "portmap"`, 1))
	_, err := n.tryPod("")
	refused(t, err, codes.Internal, "failing", "out of patience")
	must(t, n.Leaks(t.Context()))
	mustWrite(t, list, good)
	n.runPod()
}

func TestMissingCNIPluginIsReported(t *testing.T) {
	n := ownNode(t, fixture.Options{})
	list := filepath.Join(n.NetworkDir(), "10-test.conflist")
	mustWrite(t, list, strings.Replace(mustRead(t, list), `"portmap"`, `"no-such-plugin"`, 1))
	_, err := n.tryPod("")
	refused(t, err, codes.FailedPrecondition, "no-such-plugin")
}

func TestMissingKernelIsReported(t *testing.T) {
	n := ownNode(t, fixture.Options{Config: fixture.Config{"vm.kernel": "/no/such/vmlinux"}})
	n.notReady("RuntimeReady", "/no/such/vmlinux")
	_, err := n.tryPod("")
	refused(t, err, codes.FailedPrecondition, "/no/such/vmlinux")
}

func TestBrokenKernelIsReportedAndUndone(t *testing.T) {
	kernel := filepath.Join(t.TempDir(), "vmlinux")
	must(t, os.WriteFile(kernel, []byte("no kernel"), 0o644))
	n := ownNode(t, fixture.Options{Config: fixture.Config{"vm.kernel": kernel, "vm.boot_timeout_s": 3}})
	_, err := n.tryPod("")
	refused(t, err, codes.Internal, "booting the guest failed (accelerator "+accelerator(t)+")", "qemu")
}

// What a guest says that gives up reaches whoever asked for the pod, and nobody waits for its agent.
func TestGuestThatDoesNotBootIsQuotedAndUndone(t *testing.T) {
	initramfs := filepath.Join(t.TempDir(), "initramfs.cpio")
	must(t, os.WriteFile(initramfs, []byte("no archive"), 0o644))
	n := ownNode(t, fixture.Options{Config: fixture.Config{"vm.initramfs": initramfs}})
	_, err := n.tryPod("")
	refused(t, err, codes.Internal, "booting the guest failed (accelerator "+accelerator(t)+")", "the guest's console ends with", "Kernel panic")
}

// virtualizes tells whether the processor runs stock guests under KVM.
func virtualizes(t *testing.T) bool {
	t.Helper()
	flags := " " + strings.ReplaceAll(mustRead(t, "/proc/cpuinfo"), "\n", " ") + " "
	return strings.Contains(flags, " vmx ") || strings.Contains(flags, " svm ")
}

// accelerator is how this machine's VMs run.
func accelerator(t *testing.T) string {
	t.Helper()
	if virtualizes(t) {
		return "kvm"
	}
	return "tcg"
}

func TestEmulationIsNoSilentFallback(t *testing.T) {
	if virtualizes(t) {
		t.Skip("this machine has KVM, so nothing falls back")
	}
	n := ownNode(t, fixture.Options{Config: fixture.Config{"vm.allow_tcg": false}})
	n.notReady("RuntimeReady", "allow_tcg")
	_, err := n.tryPod("")
	refused(t, err, codes.FailedPrecondition, "allow_tcg")
}

func TestForcedKVMThatHangsIsReportedAndUndone(t *testing.T) {
	if virtualizes(t) {
		t.Skip("this machine has KVM that works")
	}
	n := ownNode(t, fixture.Options{Config: fixture.Config{"vm.accelerator": "kvm", "vm.boot_timeout_s": 3}})
	n.notReady("RuntimeReady", "KVM cannot be used")
	_, err := n.tryPod("")
	refused(t, err, codes.DeadlineExceeded, "booting the guest failed (accelerator kvm)", "vm.boot_timeout_s = 3")
}

func TestUnknownKeyInTheConfigurationIsRefused(t *testing.T) {
	broken, err := fixture.Start(t.Context(), fixture.Options{Registry: shared.Registry(), Config: fixture.Config{"vm.kernle": "/x"}})
	if err == nil {
		must(t, broken.Close(t.Context()))
		t.Fatal("the frontend runs")
	}
	contains(t, "the error", err.Error(), "config.toml", "kernle")
}

func TestSecondFrontendOnOneStateDirectoryIsRefused(t *testing.T) {
	n := onNode(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	output, err := n.Command(ctx, "serve").CombinedOutput()
	if err == nil || ctx.Err() != nil {
		t.Fatal("it runs")
	}
	if len(output) == 0 {
		t.Error("it says nothing")
	}
	must(t, firstError(n.Runtime.Version(t.Context(), "v1")))
}

func firstError(_ any, err error) error { return err }
