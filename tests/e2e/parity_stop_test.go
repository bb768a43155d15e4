package e2e

import (
	"context"
	"testing"
)

func TestParityRepeatedStopSendsNoSecondSignalAndItsGraceCounts(t *testing.T) {
	n := onNode(t)
	c := n.runPod().shell("main", "trap 'echo caught' TERM; echo ready; while :; do sleep 3600 & wait $!; done")
	c.says("ready")
	first := make(chan error, 1)
	go func() { first <- n.Runtime.StopContainer(context.Background(), c.id, 60) }()
	c.says("caught")
	must(t, n.Runtime.StopContainer(t.Context(), c.id, 1))
	must(t, <-first)
	equal(t, "exit code", c.status().ExitCode, 137)
	stdout, _ := c.log()
	equal(t, "log", stdout, "ready\ncaught\n")
}
