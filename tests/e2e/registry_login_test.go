package e2e

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"a3s.box/tests/fixture"
	"a3s.box/tests/images"
	"a3s.box/tests/registry"
)

const (
	user, secret = "alice", "open sesame"
	// bcrypt of the secret.
	passwords = user + ":$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"
	guarded   = "a3s-box/guarded:1"
)

// guardedRegistry runs Debian's registry with TLS and passwords, and an image in it.
func guardedRegistry(t *testing.T, guard registry.Guard) *registry.Registry {
	t.Helper()
	dir := t.TempDir()
	image, err := images.Sized(1, 1000)
	must(t, err)
	open, err := registry.Start(t.Context(), dir)
	must(t, err)
	must(t, open.Push(t.Context(), "host/"+guarded, image))
	must(t, open.Stop())
	closed, err := registry.StartGuarded(t.Context(), dir, guard)
	must(t, err)
	t.Cleanup(func() { must(t, closed.Stop()) })
	return closed
}

// reach says how the frontend reaches a registry.
func (n *node) reach(address, keys string) {
	n.t.Helper()
	dir := filepath.Join(n.CertsDir(), address)
	must(n.t, os.MkdirAll(dir, 0o755))
	n.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	mustWrite(n.t, filepath.Join(dir, "hosts.toml"), fmt.Sprintf("server = 'https://%s'\n%s\n", address, keys))
}

func TestRegistryWithCertificateAndPasswords(t *testing.T) {
	n := onNode(t)
	authority, err := registry.NewAuthority("tests")
	must(t, err)
	certificate, err := authority.Sign("registry")
	must(t, err)
	r := guardedRegistry(t, registry.Guard{Certificate: certificate, Passwords: passwords})
	dir := t.TempDir()
	mustWrite(t, dir+"/ca.crt", string(authority.PEM))
	trusted := fmt.Sprintf("ca = '%s/ca.crt'", dir)
	reference := r.Address + "/" + guarded
	spec := &cri.ImageSpec{Image: reference}
	byName := &cri.AuthConfig{Username: user, Password: secret}
	pull := func(auth *cri.AuthConfig) error {
		_, err := n.Images.PullImage(t.Context(), spec, auth, nil)
		return err
	}
	start := n.LogPosition()

	n.reach(r.Address, "")
	refused(t, pull(byName), codes.Unavailable, r.Address, "certificate")
	n.reach(r.Address, trusted)
	refused(t, pull(nil), codes.Unauthenticated, r.Address)
	err = pull(&cri.AuthConfig{Username: user, Password: secret + "!"})
	refused(t, err, codes.Unauthenticated, r.Address)
	if strings.Contains(err.Error(), secret) {
		t.Errorf("the error tells the password: %v", err)
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(user + ":" + secret))
	for name, c := range map[string]struct {
		keys string
		auth *cri.AuthConfig
	}{
		"user and password": {trusted, byName},
		"auth":              {trusted, &cri.AuthConfig{Auth: encoded}},
		"server's address":  {trusted, &cri.AuthConfig{Username: user, Password: secret, ServerAddress: "https://" + r.Address}},
		"skip_verify":       {"skip_verify = true", byName},
		"header":            {trusted + "\n[header]\nAuthorization = 'Basic " + encoded + "'", nil},
	} {
		n.reach(r.Address, c.keys)
		if err := pull(c.auth); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		must(t, n.Images.RemoveImage(t.Context(), spec))
	}
	n.reach(r.Address, trusted)
	elsewhere := &cri.AuthConfig{Username: user, Password: secret, ServerAddress: "registry.example"}
	refused(t, pull(elsewhere), codes.Unauthenticated, r.Address)
	n.keepsToItself(start, secret, encoded)
}

// keepsToItself checks that words are neither in the frontend's log since a position, nor in its files.
func (n *node) keepsToItself(start int64, words ...string) {
	n.t.Helper()
	for _, word := range words {
		if strings.Contains(n.Log(start), word) {
			n.t.Errorf("the frontend's log has %q", word)
		}
		for _, file := range n.filesWith(word) {
			n.t.Errorf("%s has %q", file, word)
		}
	}
}

// A registry that sends its clients to a token server, which knows one refresh token.
func TestTokensAreToldNobody(t *testing.T) {
	const refresh, bearer = "refresh-5d1f", "bearer-a27c"
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: shared.Registry()})
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token" && r.PostFormValue("refresh_token") == refresh:
			fmt.Fprintf(w, `{"access_token": %q}`, bearer)
		case r.URL.Path == "/token":
			http.Error(w, "no such token: "+r.PostFormValue("refresh_token"), http.StatusUnauthorized)
		case r.Header.Get("Authorization") == "Bearer "+bearer:
			behind.ServeHTTP(w, r)
		default:
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="tests"`, server.URL))
			http.Error(w, "not with "+r.Header.Get("Authorization"), http.StatusUnauthorized)
		}
	}))
	t.Cleanup(server.Close)
	n := onNode(t)
	spec := &cri.ImageSpec{Image: strings.TrimPrefix(server.URL, "http://") + strings.TrimPrefix(images.User, images.Host)}
	start := n.LogPosition()
	for _, good := range []*cri.AuthConfig{{IdentityToken: refresh}, {RegistryToken: bearer}} {
		must(t, firstError(n.Images.PullImage(t.Context(), spec, good, nil)))
		must(t, n.Images.RemoveImage(t.Context(), spec))
	}
	for _, bad := range []*cri.AuthConfig{{IdentityToken: "wrong-" + refresh}, {RegistryToken: "wrong-" + bearer}} {
		_, err := n.Images.PullImage(t.Context(), spec, bad, nil)
		refused(t, err, codes.Unauthenticated, spec.Image)
		if text := err.Error(); strings.Contains(text, refresh) || strings.Contains(text, bearer) {
			t.Errorf("the error tells the token: %v", err)
		}
	}
	n.keepsToItself(start, refresh, bearer)
}

// filesWith names the files that the frontend keeps and that hold a word.
func (n *node) filesWith(word string) (found []string) {
	n.t.Helper()
	must(n.t, filepath.WalkDir(n.RootDir(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || filepath.Ext(path) == ".erofs" {
			return err
		}
		// Nor are the empty disks of pods what the frontend writes.
		if info, err := entry.Info(); err != nil || info.Size() > 16<<20 {
			return err
		}
		if strings.Contains(mustRead(n.t, path), word) {
			found = append(found, path)
		}
		return nil
	}))
	return found
}

// A registry that is not on the machine is reached by the proxy that the environment names.
func TestRegistryIsReachedByTheProxyOfTheEnvironment(t *testing.T) {
	asked := make(chan string, 100)
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: shared.Registry()})
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Host
		behind.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	t.Setenv("HTTP_PROXY", proxy.URL)
	const far = "registry.example"
	n := ownNode(t, fixture.Options{Config: fixture.Config{"images.insecure_registries": []string{far}}})
	n.pull(far + strings.TrimPrefix(images.User, images.Host))
	close(asked)
	for host := range asked {
		equal(t, "the host that the proxy was asked for", host, far)
	}
	n.pull(shared.Registry() + strings.TrimPrefix(images.User, images.Host))
}

func TestRegistryThatWantsACertificateOfItsClients(t *testing.T) {
	n := onNode(t)
	authority, err := registry.NewAuthority("tests")
	must(t, err)
	certificate, err := authority.Sign("registry")
	must(t, err)
	r := guardedRegistry(t, registry.Guard{Certificate: certificate, Clients: authority})
	dir := t.TempDir()
	mustWrite(t, dir+"/ca.crt", string(authority.PEM))
	own, err := authority.Sign("node")
	must(t, err)
	file, key, err := own.Write(dir, "client")
	must(t, err)
	spec := &cri.ImageSpec{Image: r.Address + "/" + guarded}
	n.reach(r.Address, fmt.Sprintf("ca = '%s/ca.crt'", dir))
	_, err = n.Images.PullImage(t.Context(), spec, nil, nil)
	refused(t, err, codes.Unavailable, r.Address)
	n.reach(r.Address, fmt.Sprintf("ca = '%s/ca.crt'\nclient = [['%s', '%s']]", dir, file, key))
	_, err = n.Images.PullImage(t.Context(), spec, nil, nil)
	must(t, err)
	must(t, n.Images.RemoveImage(t.Context(), spec))
}

func TestCredentialsOfTheAuthFileAreUsed(t *testing.T) {
	r := guardedRegistry(t, registry.Guard{Passwords: passwords})
	file := filepath.Join(t.TempDir(), "config.json")
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + secret))
	mustWrite(t, file, fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, r.Address, auth))
	n := ownNode(t, fixture.Options{Config: fixture.Config{"images.auth_file": file}})
	n.pull(r.Address + "/" + guarded)
}
