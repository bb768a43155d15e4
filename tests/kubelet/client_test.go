package kubelet

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"a3s.box/tests/fixture"
)

// until waits for a condition of a pod, and returns the pod as it was then. Kubelet adds the node's name to a static pod's.
func (k *kubelet) until(t *testing.T, name, what string, condition func(*corev1.Pod) error) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	must(t, fixture.Until(t.Context(), patience, what, func() error {
		var pods corev1.PodList
		if err := k.read("/pods", &pods); err != nil {
			return err
		}
		for i := range pods.Items {
			if pods.Items[i].Name == name+"-"+nodeName {
				found = &pods.Items[i]
				return condition(found)
			}
		}
		return fmt.Errorf("no pod %s among %d", name, len(pods.Items))
	}))
	return found
}

// read decodes what kubelet answers.
func (k *kubelet) read(path string, into any) error {
	text, err := get(k.client, k.address+path)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), into)
}

func insecureClient() *http.Client {
	// Kubelet makes a certificate of its own.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	return &http.Client{Timeout: 10 * time.Second, Transport: transport}
}

func get(client *http.Client, url string) (string, error) {
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, response.Status, body)
	}
	return string(body), err
}

func memory(m *stats.MemoryStats) *uint64 {
	if m == nil {
		return nil
	}
	return m.WorkingSetBytes
}

func used(f *stats.FsStats) *uint64 {
	if f == nil {
		return nil
	}
	return f.UsedBytes
}

func processor(c *stats.CPUStats) *uint64 {
	if c == nil {
		return nil
	}
	return c.UsageCoreNanoSeconds
}

func received(n *stats.NetworkStats) *uint64 {
	if n == nil {
		return nil
	}
	return n.RxBytes
}

func processes(p *stats.ProcessStats) *uint64 {
	if p == nil {
		return nil
	}
	return p.ProcessCount
}

func shown(value *uint64) string {
	if value == nil {
		return "missing"
	}
	return fmt.Sprint(*value)
}
