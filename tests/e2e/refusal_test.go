package e2e

import (
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

func TestBadAnnotationIsRefused(t *testing.T) {
	n := onNode(t)
	for _, c := range []struct{ key, value, accepted string }{
		{"a3s.box/vcpus", "0", "1"},
		{"a3s.box/vcpus", "many", "32"},
		{"a3s.box/vcpus", "33", "32"},
		{"a3s.box/memory-mb", "-5", "65536"},
		{"a3s.box/memory-mb", "1000000", "65536"},
		{"a3s.box/network-mode", "hots", "bridge"},
		{"a3s.box/no-such", "1", "a3s.box/vcpus"},
	} {
		_, err := n.tryPod("", annotated(c.key, c.value))
		refused(t, err, codes.InvalidArgument, c.key, c.value, c.accepted)
	}
}

func TestUnknownHandlerIsRefused(t *testing.T) {
	_, err := onNode(t).tryPod("no-such")
	refused(t, err, codes.InvalidArgument, "no-such", "a3s-box")
}

func TestHandlerOfTheRuntimeClassIsAccepted(t *testing.T) {
	p, err := onNode(t).tryPod("a3s-box")
	must(t, err)
	equal(t, "handler", p.status().RuntimeHandler, "a3s-box")
}

func TestPodNameIsReservedOnce(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	_, err := n.Runtime.RunPodSandbox(t.Context(), p.config, "")
	refused(t, err, codes.AlreadyExists, p.id)
	p.remove()
	again, err := n.tryPod("", func(config *cri.PodSandboxConfig) { config.Metadata = p.config.Metadata })
	must(t, err)
	if again.id == p.id {
		t.Error("two pods have one id")
	}
}

func TestTwoCallsForOnePodGetOneAnswer(t *testing.T) {
	n := onNode(t)
	config := n.PodConfig("pod")
	var ids [2]string
	var errs [2]error
	together(len(ids), func(i int) {
		if ids[i], errs[i] = n.Runtime.RunPodSandbox(t.Context(), config, ""); errs[i] == nil {
			t.Cleanup((&pod{node: n, id: ids[i], config: config}).remove)
		}
	})
	for i := range ids {
		must(t, errs[i])
	}
	equal(t, "second answer", ids[1], ids[0])
}

func TestContainerNameIsReservedOnce(t *testing.T) {
	p := onNode(t).runPod()
	c := p.idle("main")
	_, err := p.Runtime.CreateContainer(t.Context(), p.id, c.config, p.config)
	refused(t, err, codes.AlreadyExists, c.id)
}

func TestCommandMissingInTheImageFailsStart(t *testing.T) {
	p := onNode(t).runPod()
	c := p.create(fixture.ContainerConfig("main", busybox, "/no/such/program"))
	err := p.Runtime.StartContainer(t.Context(), c.id)
	refused(t, err, codes.FailedPrecondition, "/no/such/program", c.id)
	status := c.status()
	equal(t, "state", status.State, cri.ContainerState_CONTAINER_EXITED)
	equal(t, "reason", status.Reason, "StartError")
	contains(t, "the status's message", status.Message, "/no/such/program")
	if status.ExitCode == 0 {
		t.Error("the exit code is 0")
	}
	p.idle("next").exec("true")
}

func TestContainerStartsOnce(t *testing.T) {
	p := onNode(t).runPod()
	c := p.idle("main")
	refused(t, p.Runtime.StartContainer(t.Context(), c.id), codes.FailedPrecondition, c.id)
}

func TestStoppedPodTakesNoContainer(t *testing.T) {
	p := onNode(t).runPod()
	p.pull(busybox)
	must(t, p.Runtime.StopPodSandbox(t.Context(), p.id))
	_, err := p.Runtime.CreateContainer(t.Context(), p.id, fixture.ContainerConfig("main", busybox), p.config)
	refused(t, err, codes.FailedPrecondition, p.id)
}

func TestUnknownContainerIsNotFound(t *testing.T) {
	n := onNode(t)
	unknown := strings.Repeat("0", 64)
	for name, call := range map[string]func() error{
		"StartContainer":     func() error { return n.Runtime.StartContainer(t.Context(), unknown) },
		"ReopenContainerLog": func() error { return n.Runtime.ReopenContainerLog(t.Context(), unknown) },
		"ContainerStats":     func() error { _, err := n.Runtime.ContainerStats(t.Context(), unknown); return err },
		"ExecSync":           func() error { _, _, err := n.Runtime.ExecSync(t.Context(), unknown, []string{"true"}, 0); return err },
	} {
		t.Run(name, func(t *testing.T) { refused(t, call(), codes.NotFound, unknown) })
	}
}

func TestGarbageOnTheSocketHarmsNobody(t *testing.T) {
	n := onNode(t)
	for _, garbage := range []string{
		"\x00\xff\xfe\xfd random bytes that are no protocol\r\n",
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 4096),
	} {
		connection, err := net.Dial("unix", n.Socket())
		must(t, err)
		must(t, connection.SetDeadline(time.Now().Add(patience)))
		_, _ = connection.Write([]byte(garbage))
		must(t, connection.Close())
	}
	half, err := net.Dial("unix", n.Socket())
	must(t, err)
	defer half.Close()
	_, err = half.Write([]byte("PRI * HT"))
	must(t, err)
	version, err := n.Runtime.Version(t.Context(), "v1")
	must(t, err)
	equal(t, "runtime", version.RuntimeName, "a3s-box")
}

func TestNamesThatArePathsAreRefused(t *testing.T) {
	n := onNode(t)
	for _, id := range []string{"../../etc", "/", ".", "a\x00b"} {
		_, err := n.Runtime.PodSandboxStatus(t.Context(), id, false)
		if err == nil {
			t.Errorf("the pod %q has a status", id)
		}
	}
}
