package images

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	e2eImages     = "registry.k8s.io/e2e-test-images/"
	criToolImages = "gcr.io/k8s-staging-cri-tools/"
	awsBusybox    = "public.ecr.aws/docker/library/busybox:"
)

// critestImage is one of the images that the CRI's conformance tests pull.
type critestImage struct {
	config     v1.Config
	layers     []*layer
	references []string
}

// Critest makes stand-ins for the images of critest. Packages and programs that it needs are kept in a cache directory.
func Critest(cache string) ([]Image, error) {
	program, err := builtBusybox()
	if err != nil {
		return nil, err
	}
	base, err := busybox(program, passwd, group).build()
	if err != nil {
		return nil, err
	}
	described := plain()
	described = append(described, users()...)
	servers, err := webServers(cache)
	if err != nil {
		return nil, err
	}
	described = append(described, servers...)
	privileges, err := noNewPrivileges(cache)
	if err != nil {
		return nil, err
	}
	var made []Image
	for _, description := range append(described, privileges) {
		image, err := assemble(description.config, base, description.layers)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", description.references[0], err)
		}
		made = append(made, Image{description.references, image})
	}
	return made, nil
}

// builtBusybox builds a busybox that has all that critest runs, or finds the one built before.
func builtBusybox() (string, error) {
	build := exec.Command("images/busybox/build")
	build.Stderr = os.Stderr
	output, err := build.Output()
	if err != nil {
		return "", fmt.Errorf("build busybox: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(output)), "busybox"), nil
}

// plain are images that only have to differ.
func plain() []critestImage {
	shell := v1.Config{Cmd: []string{"sh"}}
	made := []critestImage{{shell, nil, []string{e2eImages + "busybox:1.29-2"}}}
	for name, references := range map[string][]string{
		"latest":    {criToolImages + "test-image-latest:latest"},
		"tag":       {criToolImages + "test-image-tag:test"},
		"tag-all":   {criToolImages + "test-image-tag:all"},
		"digest":    {criToolImages + "test-image-digest:test"},
		"1":         {criToolImages + "test-image-1:latest"},
		"2":         {criToolImages + "test-image-2:latest"},
		"3":         {criToolImages + "test-image-3:latest"},
		"tags":      {criToolImages + "test-image-tags:1", criToolImages + "test-image-tags:2", criToolImages + "test-image-tags:3"},
		"benchmark": {awsBusybox + "1.35.0-glibc", awsBusybox + "1-uclibc", awsBusybox + "1", awsBusybox + "1-glibc", awsBusybox + "1-musl"},
	} {
		file := newLayer().file("test-image-"+name, name, 0o644)
		made = append(made, critestImage{shell, []*layer{file}, references})
	}
	pause := v1.Config{Entrypoint: []string{"sleep", "2147483647"}, Labels: map[string]string{"version": "3.9"}}
	return append(made, critestImage{pause, nil, []string{"registry.k8s.io/pause:3.9"}})
}

func users() []critestImage {
	var made []critestImage
	for name, user := range map[string]string{
		"uid": "1002", "username": "www-data", "uid-group": "1003:users", "username-group": "www-data:100",
	} {
		config := v1.Config{Cmd: []string{"sh"}, User: user}
		made = append(made, critestImage{config, nil, []string{criToolImages + "test-image-user-" + name + ":latest"}})
	}
	accounts := newLayer().
		file("etc/passwd", passwd+"default-user:x:1000:1000::/home/default-user:/bin/sh\n", 0o644).
		file("etc/group", group+"default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n", 0o644)
	predefined := v1.Config{Cmd: []string{"sh"}, User: "1000"}
	return append(made, critestImage{predefined, []*layer{accounts}, []string{criToolImages + "test-image-predefined-group:latest"}})
}

func webServers(cache string) ([]critestImage, error) {
	httpd := newLayer().
		file("var/www/index.html", "<html><body><h1>It works!</h1></body></html>\n", 0o644).
		file("start", "#!/bin/sh\necho \"Command line: 'httpd -D FOREGROUND'\"\nexec httpd -f -v -p 80 -h /var/www\n", 0o755)
	root, err := unpackNginx(cache)
	if err != nil {
		return nil, err
	}
	nginx := v1.Config{Entrypoint: []string{"/usr/sbin/nginx"}, StopSignal: "SIGQUIT"}
	return []critestImage{
		{v1.Config{Entrypoint: []string{"/start"}}, []*layer{httpd}, []string{e2eImages + "httpd:2.4.39-4"}},
		{nginx, []*layer{nginxLayer(root, 80)}, []string{e2eImages + "nginx:1.14-2"}},
		{nginx, []*layer{nginxLayer(root, 12003)}, []string{criToolImages + "hostnet-nginx-amd64:latest"}},
	}, nil
}

// unpackNginx fetches Debian's nginx without installing it: the tests look for its process title and pid file.
func unpackNginx(cache string) (string, error) {
	root := filepath.Join(cache, "nginx")
	if _, err := os.Stat(filepath.Join(root, "usr/sbin/nginx")); err == nil {
		return root, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	script := exec.Command("sh", "-ec", "apt-get -qq download nginx && dpkg -x nginx_*.deb . && rm nginx_*.deb")
	script.Dir = root
	if output, err := script.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch nginx: %w: %s", err, output)
	}
	return root, nil
}

const nginxConfig = `user www-data; worker_processes 1; pid /var/run/nginx.pid; daemon off; error_log /dev/stderr;
events { worker_connections 64; }
http { access_log /dev/stdout; default_type text/html; server { listen %d; location / { root /usr/share/nginx/html; index index.html; } } }
`

func nginxLayer(root string, port int) *layer {
	l := newLayer()
	for _, dir := range []string{"var/lib/nginx", "var/log/nginx", "var/run"} {
		l.dir(filepath.Dir(dir), 0o755).dir(dir, 0o755)
	}
	program := filepath.Join(root, "usr/sbin/nginx")
	l.copy("usr/sbin/nginx", program, 0o755)
	for _, file := range libraries(l, []string{program}) {
		l.copy(file[1:], file, 0o755)
	}
	l.file("etc/nginx/nginx.conf", fmt.Sprintf(nginxConfig, port), 0o644)
	return l.file("usr/share/nginx/html/index.html", "<html><body><h1>Welcome to nginx!</h1></body></html>\n", 0o644)
}

const setuid = 0o4755

func noNewPrivileges(cache string) (critestImage, error) {
	program, err := staticProgram("nonewprivs", cache)
	if err != nil {
		return critestImage{}, err
	}
	files := newLayer().copy("nnp", program, setuid)
	return critestImage{v1.Config{Entrypoint: []string{"/nnp"}}, []*layer{files}, []string{e2eImages + "nonewprivs:1.3"}}, nil
}

// staticProgram builds one of the programs below this directory, and says where it is.
func staticProgram(name, cache string) (string, error) {
	program := filepath.Join(cache, name)
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "a3s.box/tests/images/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", name, err, output)
	}
	return program, nil
}
