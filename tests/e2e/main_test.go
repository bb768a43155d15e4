// Package e2e sees what a user sees: pods run through Kubernetes' own client code.
package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"

	"a3s.box/tests/fixture"
)

// The node that most tests share. Tests that need a broken one make their own.
var shared *fixture.Node

func TestMain(m *testing.M) {
	if command := os.Getenv("CNI_COMMAND"); command != "" {
		os.Exit(cniPlugin(command))
	}
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	var err error
	if shared, err = fixture.Start(context.Background(), fixture.Options{}); err != nil {
		fmt.Fprintln(os.Stderr, "no node to test:", err)
		return 1
	}
	code := m.Run()
	if err := shared.Close(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "after all tests:", err)
		return 1
	}
	return code
}
