package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// pluginName is what networks call the plugin that this program is.
const pluginName = "a3s-test"

// pluginConfig is what it is told, by the configuration and by the runtime.
type pluginConfig struct {
	// Script runs at ADD, in the pod's network namespace.
	Script string
	// Record is where its runtimeConfig is written to.
	Record string
	// Refuse is why it is not ready, where it is not.
	Refuse        string
	RuntimeConfig runtimeConfig
	PrevResult    json.RawMessage
}

type runtimeConfig struct {
	PortMappings []struct{ HostPort, ContainerPort int }
	DNS          struct{ Servers, Searches, Options []string }
	Annotations  map[string]string `json:"io.kubernetes.cri.pod-annotations"`
}

// cniPlugin makes this program a CNI plugin that changes a pod's network as its configuration says; it answers its exit code.
func cniPlugin(command string) int {
	var config pluginConfig
	if err := json.NewDecoder(os.Stdin).Decode(&config); err != nil {
		return pluginFails(err.Error())
	}
	switch command {
	case "ADD":
		if err := config.add(); err != nil {
			return pluginFails(err.Error())
		}
		fmt.Println(string(config.PrevResult))
	case "STATUS":
		if config.Refuse != "" {
			return pluginFails(config.Refuse)
		}
	}
	return 0
}

func (c *pluginConfig) add() error {
	if c.Record != "" {
		told, err := json.Marshal(c.RuntimeConfig)
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.Record, told, 0o644); err != nil {
			return err
		}
	}
	script := exec.Command("sh", "-euc", c.Script)
	if output, err := script.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	return nil
}

func pluginFails(why string) int {
	message, _ := json.Marshal(map[string]any{"cniVersion": "1.0.0", "code": 50, "msg": why})
	fmt.Println(string(message))
	return 1
}

// installPlugin puts it where the node looks for plugins.
func (n *node) installPlugin() {
	n.t.Helper()
	program, err := os.Executable()
	must(n.t, err)
	must(n.t, os.Symlink(program, filepath.Join(n.PluginDir(), pluginName)))
}
