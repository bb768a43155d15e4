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

// metric is a number that is measured, and what it should be.
type metric struct {
	name, unit string
	target     target
}

// target is a bound: a number should be at most or at least that. A zero bounds nothing.
type target struct{ most, least float64 }

func atMost(bound float64) target  { return target{most: bound} }
func atLeast(bound float64) target { return target{least: bound} }

func (t target) describe(value float64) string {
	var text string
	var missed bool
	switch {
	case t.most > 0:
		text, missed = fmt.Sprintf("≤ %g", t.most), value > t.most
	case t.least > 0:
		text, missed = fmt.Sprintf("≥ %g", t.least), value < t.least
	}
	if missed {
		text += " missed"
	}
	return text
}

var (
	runpColdRatio = metric{"runp_cold_ratio", "ratio", atMost(1.25)}
	bootMS        = metric{"boot_ms", "ms", atMost(850)}
	runpMS        = metric{"runp_ms", "ms", target{}}
	// A pod's first container also pays for what an emulated processor has not run before.
	createStartFirstMS = metric{"create_start_first_ms", "ms", atMost(120)}
	createStartMS      = metric{"create_start_ms", "ms", atMost(120)}
	execSyncMS         = metric{"exec_sync_ms", "ms", atMost(60)}
	teardownMS         = metric{"teardown_ms", "ms", atMost(250)}
	shimPSSMB          = metric{"shim_pss_mb", "MiB", atMost(5)}
	frontendRSSMB      = metric{"frontend_rss_mb", "MiB", atMost(20)}
	// From the call to the echo of the first byte.
	attachMS        = metric{"attach_ms", "ms", atMost(30)}
	execStreamMS    = metric{"exec_stream_ms", "ms", target{}}
	execStdoutMiBS  = metric{"exec_stdout_mib_s", "MiB/s", target{}}
	portForwardMiBS = metric{"port_forward_mib_s", "MiB/s", target{}}
	// A connection over vsock with nothing else on it, from a program in the pod to the host, and the other way.
	vsockMiBS          = metric{"vsock_mib_s", "MiB/s", target{}}
	vsockInMiBS        = metric{"vsock_in_mib_s", "MiB/s", target{}}
	portForwardVsVsock = metric{"port_forward_vs_vsock", "ratio", atLeast(0.4)}
	// A streamed exec of `true`, and one that writes 256 MiB: how many times as long as on containerd with runc.
	execVsRunc       = metric{"exec_vs_runc", "ratio", atMost(1.5)}
	execStdoutVsRunc = metric{"exec_stdout_256m_vs_runc", "ratio", atMost(2)}

	// A pull of 450 MB, 20,000 files and 8 layers: how long, how many times as long as by containerd, and the frontend's peak.
	pullMS          = metric{"pull_ms", "ms", target{}}
	pullVsOverlayfs = metric{"pull_vs_overlayfs", "ratio", atMost(0.6)}
	pullVsErofs     = metric{"pull_vs_erofs", "ratio", atMost(1.1)}
	pullRSSMB       = metric{"pull_rss_mb", "MiB", atMost(60)}
	// How many times as fast an image's files are as those of a host's directory, in the same container.
	warmReadVsVirtiofs = metric{"warm_read_vs_virtiofs", "ratio", atLeast(20)}
	coldReadVsVirtiofs = metric{"cold_read_vs_virtiofs", "ratio", atLeast(3)}
	// And as those of the same layer on a disk of its own.
	coldReadVsBlock       = metric{"cold_read_vs_block", "ratio", atLeast(0.9)}
	createFilesVsVirtiofs = metric{"create_files_vs_virtiofs", "ratio", atLeast(4)}
	seqReadVsVirtiofs     = metric{"seq_read_vs_virtiofs", "ratio", atLeast(0.8)}
	// What the guest keeps of 256 MiB that it has read.
	seqReadGuestMB = metric{"seq_read_guest_mb", "MiB", target{}}
	layers20Vs1    = metric{"layers20_vs_1", "ratio", atMost(1.3)}
)

var metrics = []metric{runpColdRatio, bootMS, runpMS, createStartFirstMS, createStartMS, execSyncMS, teardownMS, shimPSSMB, frontendRSSMB,
	attachMS, execStreamMS, execStdoutMiBS, portForwardMiBS, vsockMiBS, vsockInMiBS, portForwardVsVsock, execVsRunc, execStdoutVsRunc,
	pullMS, pullVsOverlayfs, pullVsErofs, pullRSSMB,
	warmReadVsVirtiofs, coldReadVsVirtiofs, coldReadVsBlock, createFilesVsVirtiofs, seqReadVsVirtiofs, seqReadGuestMB, layers20Vs1,
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

// measured are the metrics that have values: only some sections may have run.
func (r *results) measured() []metric {
	return slices.DeleteFunc(slices.Clone(metrics), func(m metric) bool { return len(r.values[m]) == 0 })
}

func (r *results) print(to io.Writer) {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\nmetric\tmedian\tmin\tmax\tn\tunit\ttarget\t")
	for _, m := range r.measured() {
		s := summarize(m, r.values[m])
		target := m.target.describe(s.Median)
		fmt.Fprintf(table, "%s\t%.2f\t%.2f\t%.2f\t%d\t%s\t%s\t\n", m.name, s.Median, s.Min, s.Max, s.N, s.Unit, target)
	}
	table.Flush()
}

func (r *results) write(path string) error {
	published := map[string]summary{}
	for _, m := range r.measured() {
		published[m.name] = summarize(m, r.values[m])
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
