package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

// All that plugins may leave in a pod's network namespace: two interfaces with one hardware address too, as ipvlan makes them. %[1]s is the host's address in it, %[2]s the host's on a second one.
const leftByPlugins = `
host=v$(echo "$CNI_CONTAINERID" | cut -c1-10)
ip link add "$host" type veth peer name net1 netns "$CNI_NETNS"
ip addr add %[2]s/30 dev "$host"
ip link set "$host" up
within() { nsenter --net="$CNI_NETNS" "$@"; }
mac=$(within ip -o link show eth0 | sed 's,.*link/ether ,,; s, .*,,')
within ip link set net1 mtu 1380 address "$mac" up
within ip addr add %[3]s/30 dev net1
within ip route add 10.71.0.0/24 dev eth0 scope link
within ip route add 10.72.0.0/24 via 192.0.2.9 dev eth0 onlink
within ip route add 10.73.0.0/24 via %[1]s dev eth0 metric 77 mtu 1300
within ip route add blackhole 10.74.0.0/24
within ip route add 10.75.0.0/24 nexthop via %[1]s dev eth0 nexthop via %[2]s dev net1
within ip route add default via %[2]s dev net1 table 100
within ip rule add from 10.76.0.0/16 table 100 priority 1000
within ip rule add fwmark 0x7 blackhole priority 1001
within ip neigh add 10.71.0.9 lladdr 02:00:00:00:00:77 dev eth0 nud permanent
within sh -c 'echo 2 >/proc/sys/net/ipv4/conf/net1/arp_announce'
`

// A network with more plugins than a bridge's.
func richNetwork(script, record string) func(string) string {
	return func(conflist string) string {
		ours, err := json.Marshal(map[string]any{
			"type": pluginName, "script": script, "record": record,
			"capabilities": map[string]bool{"portMappings": true, "dns": true, "io.kubernetes.cri.pod-annotations": true},
		})
		if err != nil {
			panic(err)
		}
		tuning := `{"type": "tuning", "sysctl": {"net.core.somaxconn": "777", "net.ipv4.conf.IFNAME.arp_ignore": "1"}}`
		bandwidth := `{"type": "bandwidth", "capabilities": {"bandwidth": true}}`
		conflist = strings.Replace(conflist, `{"type": "portmap"`, strings.Join([]string{bandwidth, tuning, string(ours), `{"type": "portmap"`}, ", "), 1)
		return strings.Replace(conflist, `"ipMasq": false,`, `"ipMasq": false, "mtu": 1400, "capabilities": {"ips": true, "mac": true},`, 1)
	}
}

// A pod on a network with chained plugins, two families and two interfaces has all that they left to it.
func TestParityNetwork(t *testing.T) {
	dir := t.TempDir()
	script, record := filepath.Join(dir, "script"), filepath.Join(dir, "told")
	n := ownNode(t, fixture.Options{
		DualStack: true,
		Network:   richNetwork(". "+script, record),
		Config:    fixture.Config{"annotations.allowed": []string{"a3s.box/ips", "a3s.box/mac"}},
	})
	n.installPlugin()
	gateway := n.Gateway().As4()
	// A network of the run's own.
	there := netip.AddrFrom4([4]byte{100, 64 | gateway[1]&63, gateway[2], 1})
	mustWrite(t, script, fmt.Sprintf(leftByPlugins, n.Gateway(), there, there.Next()))
	ports := freePorts(t, 4)
	p := n.runPod(func(config *cri.PodSandboxConfig) {
		config.Hostname = "web-0.web.tests.svc.cluster.local"
		config.DnsConfig = &cri.DNSConfig{Servers: []string{"10.9.8.7"}, Searches: []string{"cluster.local"}, Options: []string{"ndots:5"}}
		config.Annotations["kubernetes.io/ingress-bandwidth"] = "7999k"
		config.Annotations["kubernetes.io/egress-bandwidth"] = "3999k"
		// Says that there will be one more interface.
		config.Annotations["k8s.v1.cni.cncf.io/networks"] = "net1"
		config.PortMappings = []*cri.PortMapping{
			{Protocol: cri.Protocol_TCP, HostPort: ports[0], ContainerPort: 8080},
			{Protocol: cri.Protocol_TCP, HostPort: ports[1], ContainerPort: 8080, HostIp: "127.0.0.1"},
			{Protocol: cri.Protocol_UDP, HostPort: ports[2], ContainerPort: 5353},
			{Protocol: cri.Protocol_SCTP, HostPort: ports[3], ContainerPort: 9},
		}
	})
	p.shell("server", "exec httpd -f -p '[::]:8080' -h /www")
	echo := p.start(fixture.ContainerConfig("echo", images.Files, "files", "echo", "5353"))
	hosts := filepath.Join(dir, "hosts")
	mustWrite(t, hosts, "127.0.0.1 localhost\n10.1.2.3 kubelets-own\n")
	config := fixture.ContainerConfig("main", images.Tools, "sleep", "3600")
	config.Mounts = []*cri.Mount{{HostPath: hosts, ContainerPath: "/etc/hosts"}}
	c := p.start(config)

	t.Run("names", func(t *testing.T) {
		c := c.in(t)
		equal(t, "hostname", c.exec("hostname"), "web-0.web.tests.svc.cluster.local")
		equal(t, "/etc/hostname", c.exec("cat", "/etc/hostname"), "web-0.web.tests.svc.cluster.local")
		equal(t, "HOSTNAME", c.exec("sh", "-c", "echo $HOSTNAME"), "web-0.web.tests.svc.cluster.local")
		contains(t, "resolv.conf", c.exec("cat", "/etc/resolv.conf"), "nameserver 10.9.8.7", "search cluster.local", "options ndots:5")
		equal(t, "hosts", c.exec("cat", "/etc/hosts"), "127.0.0.1 localhost\n10.1.2.3 kubelets-own")
	})
	t.Run("interfaces", func(t *testing.T) {
		c := c.in(t)
		equal(t, "interfaces", c.exec("sh", "-c", "ls /sys/class/net | grep -v -e sit0 -e tunl0 -e ip6tnl0 | xargs echo"), "eth0 lo net1")
		equal(t, "MTU of eth0", c.exec("cat", "/sys/class/net/eth0/mtu"), "1400")
		equal(t, "MTU of net1", c.exec("cat", "/sys/class/net/net1/mtu"), "1380")
		equal(t, "address of net1", c.exec("cat", "/sys/class/net/net1/address"), c.exec("cat", "/sys/class/net/eth0/address"))
		contains(t, "addresses", c.exec("ip", "-o", "addr"), p.podIP()+"/24", there.Next().String()+"/30")
		c.exec("ping", "-c", "1", "-W", "10", there.String())
		c.exec("ping", "-c", "1", "-W", "10", n.Gateway().String())
		seen, err := exec.Command("ip", "neigh", "show", p.podIP()).Output()
		must(t, err)
		contains(t, "the host's neighbour", string(seen), c.exec("cat", "/sys/class/net/eth0/address"))
	})
	t.Run("routes", func(t *testing.T) {
		c := c.in(t)
		contains(t, "routes", words(c.exec("ip", "route")),
			"default via "+n.Gateway().String()+" dev eth0",
			"10.71.0.0/24 dev eth0 scope link",
			"10.72.0.0/24 via 192.0.2.9 dev eth0 onlink",
			"10.73.0.0/24 via "+n.Gateway().String()+" dev eth0 metric 77 mtu 1300",
			"blackhole 10.74.0.0/24",
			"10.75.0.0/24 nexthop via "+n.Gateway().String()+" dev eth0 weight 1 nexthop via "+there.String()+" dev net1 weight 1")
		contains(t, "table 100", words(c.exec("ip", "route", "show", "table", "100")), "default via "+there.String()+" dev net1")
		contains(t, "rules", words(c.exec("ip", "rule")), "1000: from 10.76.0.0/16 lookup 100", "1001: from all fwmark 0x7 blackhole")
		contains(t, "neighbours", words(c.exec("ip", "neigh")), "10.71.0.9 dev eth0 lladdr 02:00:00:00:00:77 PERMANENT")
		contains(t, "IPv6 routes", c.exec("ip", "-6", "route"), "default via", "dev eth0")
	})
	t.Run("sysctls", func(t *testing.T) {
		c := c.in(t)
		for file, value := range map[string]string{"core/somaxconn": "777", "ipv4/conf/eth0/arp_ignore": "1", "ipv4/conf/net1/arp_announce": "2"} {
			equal(t, file, c.exec("cat", "/proc/sys/net/"+file), value)
		}
	})
	t.Run("ports", func(t *testing.T) {
		n := p.in(t).node
		status := p.status().Network
		if len(status.AdditionalIps) != 1 {
			t.Fatalf("additional addresses: %v", status.AdditionalIps)
		}
		port := func(i int) string { return strconv.Itoa(int(ports[i])) }
		for _, address := range []string{
			net.JoinHostPort(status.Ip, "8080"), net.JoinHostPort(status.AdditionalIps[0].Ip, "8080"),
			"127.0.0.1:" + port(0), net.JoinHostPort(n.Gateway().String(), port(0)), "127.0.0.1:" + port(1),
		} {
			equal(t, "page of "+address, n.fetch(address), "hello from a pod\n")
		}
		if connection, err := net.DialTimeout("tcp", net.JoinHostPort(n.Gateway().String(), port(1)), time.Second); err == nil {
			connection.Close()
			t.Error("a port of 127.0.0.1 is there on another address")
		}
		echo.in(t).says("listening")
		for _, address := range []string{"127.0.0.1:" + port(2), net.JoinHostPort(n.Gateway().String(), port(2))} {
			n.echoes(address)
		}
		rules, err := exec.Command("iptables-save", "-t", "nat").Output()
		must(t, err)
		contains(t, "the host's rules", string(rules), "-p sctp -m sctp --dport "+port(3)+" -j DNAT")
	})
	t.Run("told", func(t *testing.T) {
		var told runtimeConfig
		must(t, json.Unmarshal([]byte(mustRead(t, record)), &told))
		equal(t, "ports", fmt.Sprint(told.PortMappings), fmt.Sprintf("[{%d 8080} {%d 8080} {%d 5353} {%d 9}]", ports[0], ports[1], ports[2], ports[3]))
		equal(t, "DNS", fmt.Sprint(told.DNS), "{[10.9.8.7] [cluster.local] [ndots:5]}")
		equal(t, "an annotation", told.Annotations["kubernetes.io/ingress-bandwidth"], "7999k")
		shaped, err := exec.Command("tc", "qdisc", "show").Output()
		must(t, err)
		contains(t, "the host's queues", string(shaped), "rate 7999Kbit", "rate 3999Kbit")
	})
	t.Run("filtered on the host", func(t *testing.T) { c.in(t).isFilteredOnTheHost() })
	t.Run("figures", func(t *testing.T) {
		stats, err := n.Runtime.PodSandboxStats(t.Context(), p.id)
		must(t, err)
		network := stats.Linux.Network
		equal(t, "the pod's own interface", network.DefaultInterface.Name, "eth0")
		// containerd counts no other.
		if n.ServedBy() == fixture.A3sBox {
			equal(t, "others", len(network.Interfaces), 1)
			equal(t, "another", network.Interfaces[0].Name, "net1")
			if network.Interfaces[0].RxBytes.GetValue() == 0 || network.Interfaces[0].TxBytes.GetValue() == 0 {
				t.Errorf("nothing went through it: %v", network.Interfaces[0])
			}
		}
	})
	if n.ServedBy() == fixture.A3sBox {
		n.asksForAddresses(script)
	}
	mustWrite(t, script, "")
	p.followsItsNetwork()
}

// What filters on the host's side of a pod's link, as policies of the network do, tells the pod by its address and hardware address.
func (c *container) isFilteredOnTheHost() {
	t := c.t
	listener, err := net.Listen("tcp", netip.AddrPortFrom(c.Gateway(), 0).String())
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) { fmt.Fprint(answer, "reached") })}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	_, port, err := net.SplitHostPort(listener.Addr().String())
	must(t, err)
	reach := func() string {
		stdout, _, _ := c.tryExec("wget", "-q", "-O-", "http://"+listener.Addr().String()+"/")
		return stdout
	}
	rule := []string{
		"INPUT", "-p", "tcp", "-s", c.podIP(), "--dport", port, "-m", "mac", "--mac-source", c.exec("cat", "/sys/class/net/eth0/address"),
		"-j", "REJECT", "--reject-with", "tcp-reset",
	}
	equal(t, "without a rule", reach(), "reached")
	t.Cleanup(func() { _ = exec.Command("iptables", append([]string{"--wait", "-D"}, rule...)...).Run() })
	run(t, "iptables", append([]string{"--wait", "-I"}, rule...)...)
	forbidden := reach()
	run(t, "iptables", append([]string{"--wait", "-D"}, rule...)...)
	equal(t, "with a rule", forbidden, "")
	equal(t, "without it again", reach(), "reached")
}

// What only a pod of a3s-box can ask for, and what only a MicroVM has to refuse.
func (n *node) asksForAddresses(script string) {
	_, err := n.tryPod("")
	refused(n.t, err, codes.FailedPrecondition, "eth0, net1", "network.spare_interfaces", "k8s.v1.cni.cncf.io/networks")
	mustWrite(n.t, script, "")
	bytes := n.Gateway().As4()
	bytes[3] = 77
	wanted := netip.AddrFrom4(bytes).String()
	p := n.runPod(annotated("a3s.box/ips", wanted), annotated("a3s.box/mac", "0a:58:0a:00:00:4d"))
	equal(n.t, "the pod's address", p.podIP(), wanted)
	c := p.idle("main")
	equal(n.t, "its hardware address", c.exec("cat", "/sys/class/net/eth0/address"), "0a:58:0a:00:00:4d")
	equal(n.t, "interfaces", c.exec("ls", "/sys/class/net"), "eth0\nlo")
	c.exec("ping", "-c", "1", "-W", "10", n.Gateway().String())
	p.remove()
}

// Status says what the configuration in its directory is worth, as it changes, and the next pod is attached to that network.
func (p *pod) followsItsNetwork() {
	n, t, list := p.node, p.t, filepath.Join(p.NetworkDir(), "10-test.conflist")
	ready := func(want bool, words ...string) {
		t.Helper()
		n.until(fmt.Sprintf("NetworkReady %v", want), func() error {
			condition := n.condition("NetworkReady")
			for _, word := range words {
				if !strings.Contains(condition.Message, word) {
					return errors.New(condition.Message)
				}
			}
			if condition.Status != want {
				return errors.New(condition.Message)
			}
			return nil
		})
	}
	good := mustRead(t, list)
	ready(true)
	// containerd asks the plugins of the day, and what the pod has would stay.
	if n.ServedBy() != fixture.A3sBox {
		p.remove()
	}
	must(t, os.Remove(list))
	ready(false)
	p.remove()
	four := regexp.MustCompile(`\[\{"subnet": "[0-9./]+"\}\], |\{"dst": "0.0.0.0/0"\}, `)
	// No pod is left, so the bridge has no carrier, and the host has forgotten whose the addresses were.
	mustWrite(t, list, four.ReplaceAllString(good, ""))
	ready(true)
	n.hasOnlyIPv6()
	plugin := fmt.Sprintf(`"type": %q`, pluginName)
	newer := strings.Replace(good, `"cniVersion": "1.0.0"`, `"cniVersion": "1.1.0"`, 1)
	alone := newer[:strings.Index(newer, `"plugins"`)] + `"plugins": [{` + plugin + `, "refuse": "out of addresses"}]}`
	mustWrite(t, list, alone)
	ready(false, "out of addresses")
	mustWrite(t, list, good)
	ready(true)
}

// hasOnlyIPv6 runs a pod on a network without IPv4.
func (n *node) hasOnlyIPv6() {
	t, p := n.t, n.runPod()
	status := p.status().Network
	address, err := netip.ParseAddr(status.Ip)
	must(t, err)
	equal(t, "the address is IPv6", address.Is6(), true)
	equal(t, "more addresses", len(status.AdditionalIps), 0)
	c := p.shell("server", "exec httpd -f -p '[::]:8080' -h /www")
	equal(t, "IPv4 addresses", c.exec("ip", "-4", "addr", "show", "dev", "eth0"), "")
	equal(t, "page", n.fetch(net.JoinHostPort(status.Ip, "8080")), "hello from a pod\n")
	p.remove()
}

// echoes sends datagrams until one comes back.
func (n *node) echoes(address string) {
	n.t.Helper()
	connection, err := net.Dial("udp", address)
	must(n.t, err)
	defer connection.Close()
	n.until("an echo of "+address, func() error {
		buffer := make([]byte, 16)
		_ = connection.SetDeadline(time.Now().Add(time.Second))
		if _, err := connection.Write([]byte("hello")); err != nil {
			return err
		}
		length, err := connection.Read(buffer)
		if err == nil && string(buffer[:length]) != "hello" {
			err = fmt.Errorf("it is %q", buffer[:length])
		}
		return err
	})
}

// freePorts are of nobody now, for TCP.
func freePorts(t *testing.T, count int) []int32 {
	t.Helper()
	var ports []int32
	for range count {
		listener, err := net.Listen("tcp", ":0")
		must(t, err)
		defer listener.Close()
		ports = append(ports, int32(listener.Addr().(*net.TCPAddr).Port))
	}
	return ports
}
