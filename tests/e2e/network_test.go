package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
)

const webServer = "exec httpd -f -p 8080 -h /www"

func (p *pod) podIP() string {
	p.t.Helper()
	return p.status().Network.Ip
}

// fetch gets a page from the host.
func (n *node) fetch(address string) string {
	n.t.Helper()
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var page string
	n.until("an answer of "+address, func() error {
		response, err := client.Get("http://" + address + "/")
		if err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		page = string(body)
		return errors.Join(err, response.Body.Close())
	})
	return page
}

func TestContainersReachEachOtherOnLocalhost(t *testing.T) {
	p := onNode(t).runPod()
	p.shell("server", webServer)
	client := p.idle("client")
	p.until("an answer on localhost", func() error {
		page, stderr, code := client.tryExec("wget", "-q", "-O-", "http://127.0.0.1:8080/")
		if code != 0 || page != "hello from a pod\n" {
			return fmt.Errorf("exit code %d, %q, %q", code, page, stderr)
		}
		return nil
	})
}

func TestPodIsReachedOnItsAddress(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	p.shell("server", webServer)
	equal(t, "page", n.fetch(net.JoinHostPort(p.podIP(), "8080")), "hello from a pod\n")
}

func TestPodsReachEachOther(t *testing.T) {
	n := onNode(t)
	server, other := n.runPod(), n.runPod()
	server.shell("server", webServer)
	n.fetch(net.JoinHostPort(server.podIP(), "8080"))
	page := other.idle("client").exec("wget", "-q", "-O-", "http://"+server.podIP()+":8080/")
	equal(t, "page", page, "hello from a pod")
}

func TestContainerReachesTheBridgesHostSide(t *testing.T) {
	n := onNode(t)
	p := n.runPod()
	listener, err := net.Listen("tcp", netip.AddrPortFrom(n.Gateway(), 0).String())
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		host, _, _ := net.SplitHostPort(request.RemoteAddr)
		fmt.Fprint(answer, host)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	seen := p.idle("main").exec("wget", "-q", "-O-", "http://"+listener.Addr().String()+"/")
	equal(t, "the client's address", seen, p.podIP())
}

func TestGuestHasTheAddressOfTheNetworkNamespace(t *testing.T) {
	p := onNode(t).runPod()
	c := p.idle("main")
	contains(t, "ip addr", c.exec("ip", "-4", "addr", "show", "dev", "eth0"), p.podIP()+"/24")
	contains(t, "ip route", c.exec("ip", "route"), "default via "+p.Gateway().String())
	contains(t, "loopback", c.exec("ip", "-4", "addr", "show", "dev", "lo"), "127.0.0.1/8")
}

func TestNetworkModeNoneGivesLoopbackOnly(t *testing.T) {
	n := ownNode(t, fixture.Options{NoNetwork: true})
	p := n.runPod(annotated("a3s.box/network-mode", "none"))
	equal(t, "pod IP", p.podIP(), "")
	links := p.idle("main").exec("ls", "/sys/class/net")
	equal(t, "links", links, "lo")
}

func TestResolvConfIsThePods(t *testing.T) {
	p := onNode(t).runPod(func(config *cri.PodSandboxConfig) {
		config.DnsConfig = &cri.DNSConfig{
			Servers:  []string{"10.9.8.7"},
			Searches: []string{"tests.svc.cluster.local", "cluster.local"},
			Options:  []string{"ndots:5"},
		}
	})
	got := p.idle("main").exec("cat", "/etc/resolv.conf")
	contains(t, "resolv.conf", got, "nameserver 10.9.8.7", "search tests.svc.cluster.local cluster.local", "options ndots:5")
}

func TestResolvConfIsTheHostsWhereThePodNamesNone(t *testing.T) {
	path := "/etc/resolv.conf"
	if strings.Contains(mustRead(t, path), "nameserver 127.0.0.53") {
		path = "/run/systemd/resolve/resolv.conf"
	}
	got := onNode(t).runPod().idle("main").exec("cat", "/etc/resolv.conf")
	for line := range strings.Lines(mustRead(t, path)) {
		if strings.HasPrefix(line, "nameserver") {
			contains(t, "resolv.conf", got, strings.TrimSpace(line))
		}
	}
}

func TestHostnameIsInHosts(t *testing.T) {
	p := onNode(t).runPod()
	hosts := p.idle("main").exec("cat", "/etc/hosts")
	contains(t, "/etc/hosts", hosts, "localhost", p.podIP())
}

// annotated adds an annotation to a pod.
func annotated(key, value string) func(*cri.PodSandboxConfig) {
	return func(config *cri.PodSandboxConfig) { config.Annotations[key] = value }
}
