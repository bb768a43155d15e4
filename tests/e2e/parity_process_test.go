package e2e

import (
	"slices"
	"strings"
	"testing"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

// What a process sees of its container, and of what it has inherited. /dev/core is there where the kernel shows its memory.
const looksAround = `
echo devices $(ls /dev | grep -vx core)
echo links $(for link in fd ptmx stdin stdout stderr; do readlink /dev/$link; done)
echo environment $(env | grep -v -e ^PWD= -e ^SHLVL= | sort)
echo umask $(umask), directory $(pwd), descriptors $(ls /proc/self/fd)
echo status $(grep -E '^(Sig(Blk|Ign|Cgt)|NoNewPrivs|Seccomp):' /proc/self/status)
read -r stat </proc/$$/stat; set -- ${stat#*) }
echo process group $(($3-$$)), session $(($4-$$)), terminal $5, nice ${17}, oom_score_adj $(cat /proc/$$/oom_score_adj)
while read -r _ path kind options _; do
	case $path in /proc | /dev | /dev/pts | /dev/mqueue | /dev/shm | /sys) echo $path $kind $options ;; esac
done </proc/mounts`

// A container that asks for nothing has what programs are used to, and so has an exec.
func TestParityProcessFindsWhatItExpects(t *testing.T) {
	p := onNode(t).runPod()
	// How a kernel numbers files is its own matter, and in what order things are mounted the runtime's.
	seen := func(text string) string {
		return strings.Join(slices.Sorted(strings.Lines(strings.ReplaceAll(text, ",inode64", ""))), "")
	}
	want := seen(`devices fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero
links /proc/self/fd pts/ptmx /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2
environment HOME=/root HOSTNAME=` + p.config.Hostname + ` PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 0022, directory /, descriptors 0 1 2 3
status SigBlk: 0000000000000000 SigIgn: 0000000000000000 SigCgt: 0000000000000000 NoNewPrivs: 0 Seccomp: 0
process group 0, session 0, terminal 0, nice 0, oom_score_adj 0
/proc proc rw,nosuid,nodev,noexec,relatime
/dev tmpfs rw,nosuid,size=65536k,mode=755
/dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666
/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime
/sys sysfs ro,nosuid,nodev,noexec,relatime
/dev/shm tmpfs rw,relatime,size=65536k
`)
	c := p.start(fixture.ContainerConfig("main", images.Busybox, "sh", "-c", looksAround+"\necho ready; exec sleep 3600"))
	c.says("ready")
	log, _ := c.log()
	equal(t, "the container's process", seen(strings.TrimSuffix(log, "ready\n")), want)
	equal(t, "an exec", seen(c.exec("sh", "-c", looksAround)+"\n"), want)
}
