package e2e

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestLogHasBothStreamsInOrder(t *testing.T) {
	c := onNode(t).runPod().shell("main", "echo one; echo two; echo three >&2; printf four")
	c.exited()
	stdout, stderr := c.log()
	equal(t, "stdout", strings.TrimSuffix(stdout, "\n"), "one\ntwo\nfour")
	equal(t, "stderr", stderr, "three\n")
	for line := range strings.Lines(mustRead(t, c.logPath())) {
		fields := strings.SplitN(line, " ", 4)
		if _, err := time.Parse(time.RFC3339Nano, fields[0]); err != nil || len(fields) != 4 {
			t.Errorf("not a line of a CRI log: %q", line)
		}
	}
}

func TestLineBeyondSixteenKiBComesWhole(t *testing.T) {
	const length = 40_000
	c := onNode(t).runPod().shell("main", "head -c 40000 /dev/zero | tr '\\0' x; echo; echo next")
	c.exited()
	stdout, _ := c.log()
	if want := strings.Repeat("x", length) + "\nnext\n"; stdout != want {
		t.Errorf("%d bytes were read, %d were written", len(stdout), len(want))
	}
	contains(t, "the log file", mustRead(t, c.logPath()), " stdout P xxx")
}

func TestNoLineIsLostAtTheEnd(t *testing.T) {
	c := onNode(t).runPod().shell("main", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
	stdout := c.succeeds()
	equal(t, "lines", strings.Count(stdout, "\n"), 20000)
	contains(t, "the log's end", stdout[max(0, len(stdout)-20):], "line 19999\n")
}

func TestReopenedLogGoesOnInANewFile(t *testing.T) {
	n := onNode(t)
	c := n.runPod().shell("main", "i=0; while :; do echo line $i; i=$((i+1)); usleep 20000; done")
	c.says("line 3")
	rotated := c.logPath() + ".rotated"
	must(t, os.Rename(c.logPath(), rotated))
	must(t, n.Runtime.ReopenContainerLog(t.Context(), c.id))
	before := mustRead(t, rotated)
	c.until("lines in the new file", func() error {
		text, err := readFile(c.logPath())
		if err == nil && !strings.Contains(text, "line") {
			err = errors.New("it is empty")
		}
		return err
	})
	equal(t, "growth of the old file", len(mustRead(t, rotated)), len(before))
	last := before[strings.LastIndex(strings.TrimSuffix(before, "\n"), "\n")+1:]
	first, _, _ := strings.Cut(mustRead(t, c.logPath()), "\n")
	equal(t, "number after the last of the old file", lineNumber(t, first), lineNumber(t, last)+1)
}

// lineNumber is N of the log line "time stream F line N".
func lineNumber(t *testing.T, line string) int {
	t.Helper()
	fields := strings.Fields(line)
	number, err := strconv.Atoi(fields[len(fields)-1])
	must(t, err)
	return number
}
