package images

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Debian's busybox-static.
const busyboxProgram = "/bin/busybox"

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`

const group = `root:x:0:
daemon:x:1:
www-data:x:33:
users:x:100:www-data
nogroup:x:65534:
`

// busybox is a small root file system around that program.
func busybox(program, passwd, group string) *layer {
	l := newLayer()
	for _, dir := range []string{"dev", "etc", "home", "proc", "root", "run", "sys", "usr/bin", "usr/sbin", "var/www"} {
		l.dir(filepath.Dir(dir), 0o755).dir(dir, 0o755)
	}
	l.dir("tmp", 0o1777)
	l.copy("bin/busybox", program, 0o755)
	applets, err := exec.Command(program, "--list").Output()
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("%s: %w", program, err)
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			l.hardLink("bin/"+applet, "bin/busybox")
		}
	}
	l.file("etc/passwd", passwd, 0o644).file("etc/group", group, 0o644)
	return l.file("www/index.html", "hello from a pod\n", 0o644)
}

// The programs of the tools image, and the names that each is called by.
var hostPrograms = []struct{ program, names string }{
	{"/usr/sbin/xtables-nft-multi", "iptables-nft ip6tables-nft"},
	{"/usr/sbin/xtables-legacy-multi", "iptables-legacy ip6tables-legacy"},
	{"/usr/bin/ss", ""},
	{"/usr/bin/ip", ""},
	{"/usr/sbin/setcap", ""},
	{"/usr/sbin/getcap", ""},
}

// tools holds programs of the host with their shared libraries, each at its place.
func tools() *layer {
	l := newLayer()
	plugins, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	if err != nil || len(plugins) == 0 {
		l.err = fmt.Errorf("no iptables extensions below /usr/lib (Debian package iptables): %v", err)
	}
	files := slices.Clone(plugins)
	for _, host := range hostPrograms {
		files = append(files, host.program)
		for name := range strings.FieldsSeq(host.names) {
			l.symlink("usr/sbin/"+name, filepath.Base(host.program))
		}
	}
	files = append(files, libraries(l, files)...)
	slices.Sort(files)
	for _, file := range slices.Compact(files) {
		l.copy(strings.TrimPrefix(file, "/"), file, 0o755)
	}
	return l.capped(strings.TrimPrefix(CappedFile, "/"))
}

var library = regexp.MustCompile(`(/\S+) \(0x`)

// libraries asks the dynamic loader what the programs need.
func libraries(l *layer, programs []string) []string {
	output, err := exec.Command("ldd", programs...).Output()
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("ldd (programs of the Debian packages iptables, iproute2, libcap2-bin): %w", err)
	}
	var found []string
	for _, match := range library.FindAllStringSubmatch(string(output), -1) {
		found = append(found, match[1])
	}
	return found
}
