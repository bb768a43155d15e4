package e2e

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What is not served says so, and pretends nothing.
func TestOtherCallsAreUnimplemented(t *testing.T) {
	n := onNode(t)
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"CheckpointContainer": func() error {
			return n.Runtime.CheckpointContainer(ctx, &cri.CheckpointContainerRequest{ContainerId: "x"})
		},
	} {
		t.Run(name, func(t *testing.T) { refused(t, call(), codes.Unimplemented) })
	}
	config, err := n.Runtime.RuntimeConfig(ctx)
	must(t, err)
	equal(t, "cgroup driver", config.Linux.GetCgroupDriver(), cri.CgroupDriver_CGROUPFS)
	must(t, n.Runtime.UpdateRuntimeConfig(context.Background(), &cri.RuntimeConfig{NetworkConfig: &cri.NetworkConfig{PodCidr: "10.0.0.0/24"}}))
}
