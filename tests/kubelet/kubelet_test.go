// Package kubelet runs a static pod through a real kubelet.
package kubelet

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
)

const patience = 2 * time.Minute

const manifest = `apiVersion: v1
kind: Pod
metadata:
  name: static
  namespace: default
  labels: {app: static}
spec:
  enableServiceLinks: false
  terminationGracePeriodSeconds: 1
  # A RuntimeClass would set it: what QEMU and the guest need besides the containers, an emulator's code buffer included.
  overhead: {cpu: 100m, memory: 320Mi}
  containers:
  - name: main
    image: %s
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo hello from $(uname -r); cat /config/greeting; exec httpd -f -p 8080 -h /www']
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
    livenessProbe: {exec: {command: ["true"]}, periodSeconds: 1}
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: "1", memory: 64Mi}}
    volumeMounts: [{name: config, mountPath: /config}]
  volumes: [{name: config, hostPath: {path: %s}}]
`

func TestStaticPodRunsThroughKubelet(t *testing.T) {
	node, err := fixture.Start(t.Context(), fixture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the frontend's log:\n%s", node.Log(0))
		}
		if err := node.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	k := startKubelet(t, node)
	config := node.Path("config")
	must(t, os.Mkdir(config, 0o755))
	must(t, os.WriteFile(filepath.Join(config, "greeting"), []byte("a file of the host\n"), 0o644))
	static := filepath.Join(k.manifests, "static.yaml")
	must(t, os.WriteFile(static, fmt.Appendf(nil, manifest, images.Busybox, config), 0o644))

	pod := k.readyPod(t)
	page, err := get(&http.Client{Timeout: 5 * time.Second}, "http://"+net.JoinHostPort(pod.Status.PodIP, "8080")+"/")
	must(t, err)
	if page != "hello from a pod\n" {
		t.Errorf("the pod's page is %q", page)
	}
	log, err := get(k.client, fmt.Sprintf("%s/containerLogs/default/%s/main", k.address, pod.Name))
	must(t, err)
	var release string
	if _, err := fmt.Sscanf(log, "hello from %s\na file of the host\n", &release); err != nil {
		t.Errorf("the log is %q: %v", log, err)
	}

	must(t, os.Remove(static))
	must(t, fixture.Until(t.Context(), patience, "kubelet to remove the pod", func() error {
		pods, err := node.Runtime.ListPodSandbox(t.Context(), nil)
		for _, one := range pods {
			// What kubelet keeps of a dead pod it collects minutes later.
			if one.State == 0 {
				return errors.New("it is ready")
			}
		}
		return err
	}))
}

// readyPod waits until kubelet reports its one pod as running and ready.
func (k *kubelet) readyPod(t *testing.T) corev1.Pod {
	t.Helper()
	var pods corev1.PodList
	must(t, fixture.Until(t.Context(), patience, "kubelet to report a ready pod", func() error {
		text, err := get(k.client, k.address+"/pods")
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(text), &pods); err != nil {
			return err
		}
		if len(pods.Items) != 1 {
			return fmt.Errorf("%d pods", len(pods.Items))
		}
		status := pods.Items[0].Status
		if status.Phase != corev1.PodRunning || len(status.ContainerStatuses) != 1 || !status.ContainerStatuses[0].Ready {
			return fmt.Errorf("%s: %v", status.Phase, status.ContainerStatuses)
		}
		return nil
	}))
	return pods.Items[0]
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
