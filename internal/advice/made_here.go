package advice

import (
	"cmp"
	"errors"
	"io/fs"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// madeHere is a request that could not be made: nothing was sent, so the error's
// words are this program's own, and say what is wrong.
func madeHere(f *oauth.Failure, k Facts) (Advice, bool) {
	if f.Err == nil || f.Status != 0 {
		return Advice{}, false
	}
	text := f.Err.Error()
	hangs := strings.Contains(text, "their file system hangs")
	if f.Kind != oauth.Refused && !hangs {
		if _, none := metadataPlace(f); !none || f.Kind != oauth.Malformed {
			return Advice{}, false
		}
	}
	a := Advice{Wrong: text, Topic: files}
	switch {
	case hangs:
		a.Do = "look at the volume or network mount that they are on: ls -l <the path> hangs, too; mount shows which it is"
	case strings.HasPrefix(text, "no metadata found"):
		a.Topic = wrongAnswer
		a.Do = "compare issuer with what the server calls itself: curl -s " + strings.TrimSuffix(cmp.Or(k.Issuer, "<issuer>"), "/") + "/.well-known/openid-configuration; if it has no metadata, " + k.in("") + "token_url <the token endpoint>, in place of issuer"
	case strings.Contains(text, "is not among the methods that the server's metadata has"):
		a.Topic = clientRefused
		a.Do = k.in("") + "client_auth with one of these methods, and what it needs; or have this one allowed at the server; or write token_url in place of issuer, which skips this check"
	case strings.Contains(text, "the certificate ended on"), strings.Contains(text, "the certificate is valid from"), strings.Contains(text, "cert and key do not fit"):
		a.Topic = tlsTopic
		a.Do = "openssl x509 -noout -subject -issuer -dates -in <the file of cert> shows the certificate; what is put in its place, under the same path, is used within a second, without a reload"
	case strings.HasPrefix(text, "issuer"), strings.HasPrefix(text, "token_url"), strings.HasPrefix(text, "token URL"):
		a.Topic = wrongAnswer
		a.Do = "correct " + k.address() + " in the credential, then: caddy reload"
	default:
		a.Do = remedy(f.Err, k)
	}
	return a, true
}

// remedy is what to do about a file or a variable that cannot be read.
func remedy(err error, k Facts) string {
	text := err.Error()
	path := "<the path>"
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		path = e.Path
	}
	const used = "; it is read again within a second of its change, without a reload"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "put the file there, or correct its path in the config; in a container: is the volume mounted, and does the Secret have that key? To look: ls -l " + path + used
	case errors.Is(err, fs.ErrPermission):
		return "let the user that Caddy runs as (ps -o user= -C caddy) read it: chgrp <its group> " + path + " && chmod 0440 " + path + "; on Kubernetes: fsGroup, and defaultMode 0440 of the volume" + used
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "this process has too many open files: raise the limit (systemd: LimitNOFILE=65536) and start Caddy anew"
	}
	if name := variable().FindStringSubmatch(text); name != nil {
		return "set the variable " + name[1] + " in the environment of Caddy (systemd: Environment or EnvironmentFile; a container: env), and start Caddy anew: a reload does not read it again"
	}
	switch {
	case strings.HasSuffix(text, "is empty"):
		return "write the value into it" + used
	case strings.Contains(text, "placeholder"):
		return "correct the placeholder in the config: {env.NAME} for a variable, {file./path} for a file; then: caddy reload"
	}
	return "correct it " + where(k) + ", then: caddy reload; a file that it names is read again within a second of its change, without a reload"
}

// variable finds an environment variable's placeholder in an error.
var variable = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\{env\.([A-Za-z_][A-Za-z0-9_]*)\}`)
})

func where(k Facts) string {
	if k.Credential == "" {
		return "in the credential"
	}
	return "in the credential " + k.Credential
}

// metadataPlace is where an issuer's metadata was looked for, and true if a
// failure is about metadata. The words are those of oauth.Discover.
func metadataPlace(f *oauth.Failure) (string, bool) {
	if f.Err == nil {
		return "", false
	}
	text := f.Err.Error()
	if strings.HasPrefix(text, "no metadata found") {
		return "", true
	}
	rest, ok := strings.CutPrefix(text, "metadata at ")
	place, _, _ := strings.Cut(rest, ": ")
	return bare(place), ok
}

// ofMetadata is an issuer's metadata that was answered and cannot be used, or
// was not to be had.
func ofMetadata(f *oauth.Failure, k Facts) (Advice, bool) {
	place, ok := metadataPlace(f)
	if !ok || place == "" || f.Status == 0 {
		return Advice{}, false
	}
	if f.Status != http.StatusOK || f.Kind != oauth.Refused {
		k.Endpoint = place
		a := ofStatus(f, k)
		a.Wrong = "the server's metadata is not to be had: " + a.Wrong
		return a, true
	}
	text := f.Err.Error()
	a := Advice{Wrong: "the metadata of the server cannot be used: " + strings.TrimPrefix(text, "metadata at "+place+": "), Topic: wrongAnswer}
	switch {
	case strings.Contains(text, "it is for the issuer"):
		a.Do = "the issuer has to be written letter for letter as the server has it, or token_url in place of it; if it names a server that you do not know, something in between answers for it"
	case strings.Contains(text, "write token_url in place of issuer"):
		a.Do = k.in("") + "token_url <the token endpoint>, in place of issuer"
	default:
		a.Do = "have the server's operator correct it; until then, " + k.in("") + "token_url <the token endpoint>, in place of issuer"
	}
	return a, true
}
