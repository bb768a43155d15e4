package registry

import (
	"fmt"
	"os"
	"path/filepath"
)

// Guard is what a registry has against strangers.
type Guard struct {
	// Certificate, if there is one, makes it speak TLS.
	Certificate *Certificate
	// Clients, if there is one, signs the certificates that clients must have.
	Clients *Authority
	// Passwords are lines of an htpasswd file, with bcrypt.
	Passwords string
}

// write puts the files below dir, and returns what the configuration says of them: inside http, and beside it.
func (g Guard) write(dir string) (http, rest string, err error) {
	if g.Certificate != nil {
		certificate, key, err := g.Certificate.Write(dir, "server")
		if err != nil {
			return "", "", err
		}
		clients := ""
		if g.Clients != nil {
			path := filepath.Join(dir, "clients.crt")
			if err := os.WriteFile(path, g.Clients.PEM, 0o600); err != nil {
				return "", "", err
			}
			clients = fmt.Sprintf(", clientcas: [%s]", path)
		}
		http = fmt.Sprintf(", tls: {certificate: %s, key: %s%s}", certificate, key, clients)
	}
	if g.Passwords != "" {
		path := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(path, []byte(g.Passwords), 0o600); err != nil {
			return "", "", err
		}
		rest = fmt.Sprintf("auth: {htpasswd: {realm: tests, path: %s}}\n", path)
	}
	return http, rest, nil
}
