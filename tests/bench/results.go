package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
)

// metric is a number that is measured, and what it should be at most, or at least if it is among moreIsBetter.
type metric struct {
	name, unit string
	target     float64
}

var (
	runpColdRatio = metric{"runp_cold_ratio", "ratio", 1.25}
	bootMS        = metric{"boot_ms", "ms", 850}
	runpMS        = metric{"runp_ms", "ms", 0}
	// A pod's first container also pays for what an emulated processor has not run before.
	createStartFirstMS = metric{"create_start_first_ms", "ms", 120}
	createStartMS      = metric{"create_start_ms", "ms", 120}
	execSyncMS         = metric{"exec_sync_ms", "ms", 60}
	teardownMS         = metric{"teardown_ms", "ms", 250}
	shimPSSMB          = metric{"shim_pss_mb", "MiB", 5}
	frontendRSSMB      = metric{"frontend_rss_mb", "MiB", 20}
	// From the call to the echo of the first byte.
	attachMS        = metric{"attach_ms", "ms", 30}
	execStreamMS    = metric{"exec_stream_ms", "ms", 0}
	execStdoutMiBS  = metric{"exec_stdout_mib_s", "MiB/s", 0}
	portForwardMiBS = metric{"port_forward_mib_s", "MiB/s", 0}
	// A connection over vsock with nothing else on it, from a program in the pod to the host, and the other way.
	vsockMiBS          = metric{"vsock_mib_s", "MiB/s", 0}
	vsockInMiBS        = metric{"vsock_in_mib_s", "MiB/s", 0}
	portForwardVsVsock = metric{"port_forward_vs_vsock", "ratio", 0.4}
	// A streamed exec of `true`, and one that writes 256 MiB: how many times as long as on containerd with runc.
	execVsRunc       = metric{"exec_vs_runc", "ratio", 1.5}
	execStdoutVsRunc = metric{"exec_stdout_256m_vs_runc", "ratio", 2}
)

var moreIsBetter = map[metric]bool{portForwardVsVsock: true}

var metrics = []metric{runpColdRatio, bootMS, runpMS, createStartFirstMS, createStartMS, execSyncMS, teardownMS, shimPSSMB, frontendRSSMB,
	attachMS, execStreamMS, execStdoutMiBS, portForwardMiBS, vsockMiBS, vsockInMiBS, portForwardVsVsock, execVsRunc, execStdoutVsRunc,
}

// results are the values of each metric.
type results struct{ values map[metric][]float64 }

func newResults() *results { return &results{map[metric][]float64{}} }

func (r *results) add(m metric, value float64) { r.values[m] = append(r.values[m], value) }

// summary is how a metric is published.
type summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
	Unit   string  `json:"unit"`
}

func summarize(m metric, values []float64) summary {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return summary{(sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1], n, m.unit}
}

func (r *results) print(to io.Writer) {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\nmetric\tmedian\tmin\tmax\tn\tunit\ttarget\t")
	for _, m := range metrics {
		if len(r.values[m]) == 0 {
			continue
		}
		s := summarize(m, r.values[m])
		fmt.Fprintf(table, "%s\t%.2f\t%.2f\t%.2f\t%d\t%s\t%s\t\n", m.name, s.Median, s.Min, s.Max, s.N, s.Unit, verdict(m, s.Median))
	}
	table.Flush()
}

func verdict(m metric, value float64) string {
	sign, missed := "≤", value > m.target
	if moreIsBetter[m] {
		sign, missed = "≥", value < m.target
	}
	switch target := fmt.Sprintf("%s %g", sign, m.target); {
	case m.target == 0:
		return ""
	case missed:
		return target + " missed"
	default:
		return target
	}
}

func (r *results) write(path string) error {
	published := map[string]summary{}
	for _, m := range metrics {
		if len(r.values[m]) > 0 {
			published[m.name] = summarize(m, r.values[m])
		}
	}
	text, err := json.MarshalIndent(published, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
