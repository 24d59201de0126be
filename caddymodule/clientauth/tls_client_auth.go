package clientauth

import (
	"context"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/guest"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
)

func init() {
	caddy.RegisterModule(TLSClientAuth{})
}

// TLSClientAuth proves the client by the certificate of its TLS connection, which
// is issued by an authority or known to the server itself (RFC 8705 §2). No
// secret travels. Both files are read at each token request.
type TLSClientAuth struct {
	// Cert is the path of the client's certificate in PEM, with its chain after
	// it. It may hold placeholders. Required.
	Cert string `json:"cert,omitempty"`

	// Key is the path of the certificate's private key in PEM, not encrypted. It
	// may hold placeholders. Required.
	Key string `json:"key,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (TLSClientAuth) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  Namespace + ".tls_client_auth",
		New: func() caddy.Module { return new(TLSClientAuth) },
	}
}

// Validate checks the options. It reads no file.
func (m *TLSClientAuth) Validate() error {
	for _, file := range []struct{ option, path, what string }{
		{"cert", m.Cert, "the client's certificate"}, {"key", m.Key, "the certificate's private key"},
	} {
		err := signing.CheckPath(file.path)
		if file.path == "" {
			err = fmt.Errorf("is missing: write the path of %s", file.what)
		}
		if err != nil {
			return fmt.Errorf("tls_client_auth: %w", &guest.Mistake{Option: file.option, Err: err})
		}
	}
	return nil
}

// Parameters implements Method.
func (*TLSClientAuth) Parameters() []string { return []string{"client_id"} }

// RegisteredNames implements Registered: which of the two it is depends on how
// the server knows the certificate.
func (*TLSClientAuth) RegisteredNames() []string {
	return []string{"tls_client_auth", "self_signed_tls_client_auth"}
}

// CertificateFiles implements CertificateHolder.
func (m *TLSClientAuth) CertificateFiles() (cert, key string) { return m.Cert, m.Key }

// Authenticate implements Method. What proves the client is the connection; here
// its certificate is looked at, for a server does not say what is wrong with it.
func (m *TLSClientAuth) Authenticate(_ context.Context, r *Request) error {
	if r.ClientID == "" {
		return fmt.Errorf("tls_client_auth: %w", errNoClientID)
	}
	cert, err := signing.ReadFile(m.Cert, r.Resolve, r.ReadFile)
	if err != nil {
		return fmt.Errorf("tls_client_auth: cert: %w", err)
	}
	key, err := signing.ReadFile(m.Key, r.Resolve, r.ReadFile)
	if err != nil {
		return fmt.Errorf("tls_client_auth: key: %w", err)
	}
	if _, err := signing.Certificate(cert, key, time.Now()); err != nil {
		return fmt.Errorf("tls_client_auth: %w", err)
	}
	r.Params.Set("client_id", r.ClientID)
	return nil
}

// UnmarshalCaddyfile reads:
//
//	client_auth tls_client_auth {
//		cert <path>
//		key <path>
//	}
func (m *TLSClientAuth) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the method's name
	if err := guest.NoArgument(d, "client_auth tls_client_auth"); err != nil {
		return err
	}
	return guest.Block(d, "tls_client_auth", guest.Options{
		"cert": guest.Text(&m.Cert),
		"key":  guest.Text(&m.Key),
	}, m.Validate)
}

// Interface guards
var (
	_ Method                = (*TLSClientAuth)(nil)
	_ CertificateHolder     = (*TLSClientAuth)(nil)
	_ Registered            = (*TLSClientAuth)(nil)
	_ caddy.Validator       = (*TLSClientAuth)(nil)
	_ caddyfile.Unmarshaler = (*TLSClientAuth)(nil)
)
