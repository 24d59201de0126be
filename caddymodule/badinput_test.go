package caddymodule

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/clientauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/grants"
)

// What is wrong in a configuration is told with file, line, word and what is
// expected. In the Caddyfiles of this file the comment "# here"
// marks the line that the message has to name.

const (
	mark = "# here"
	// testSecret stands in the configs and never in a message.
	testSecret = "s3cr3t-hunter2"
)

// badConfig is what is wrong, and words that its message holds.
type badConfig struct {
	name, text string
	want       []string
}

// credentialPlaces are where a credential's options may stand. Each makes a
// whole Caddyfile of them, and marks the line where they begin if no other is
// marked.
var credentialPlaces = []struct {
	name   string
	config func(options string) string
}{
	{"global", func(options string) string {
		return "{\n\tupstream_auth {\n\t\tcredential crm {" + headMark(options) + "\n" + options + "\n}\n}\n}\n" +
			"http://127.0.0.1:8080 {\nupstream_auth crm\n}\n"
	}},
	{"handler", func(options string) string {
		return "http://127.0.0.1:8080 {\nupstream_auth {" + headMark(options) + "\n" + options + "\n}\n}\n"
	}},
	{"transport", func(options string) string {
		return "http://127.0.0.1:8080 {\nreverse_proxy 127.0.0.1:9000 {\ntransport upstream_auth {" + headMark(options) + "\n" + options + "\n}\n}\n}\n"
	}},
}

// routePlaces are where a route says which credential it uses.
var routePlaces = []struct {
	name   string
	config func(arguments, options string) string
}{
	{"handler", func(arguments, options string) string {
		return definesCRM + "http://127.0.0.1:8080 {\nupstream_auth " + arguments + " {" + headMark(options) + "\n" + options + "\n}\n}\n"
	}},
	{"transport", func(arguments, options string) string {
		return definesCRM + "http://127.0.0.1:8080 {\nreverse_proxy 127.0.0.1:9000 {\ntransport upstream_auth " + arguments + " {" + headMark(options) + "\n" + options + "\n}\n}\n}\n"
	}},
}

func headMark(options string) string {
	if strings.Contains(options, mark) {
		return ""
	}
	return " " + mark
}

const (
	tokenURL   = "token_url https://idp.example.com/token\n"
	clientID   = "client_id app\n"
	clientAuth = "client_auth client_secret_basic " + testSecret + "\n"
	// good is a whole credential, to which a row adds what is wrong.
	good       = tokenURL + clientID + clientAuth
	definesCRM = "{\nupstream_auth {\ncredential crm {\n" + good + "}\n}\n}\n"
)

var reportedLine = regexp.MustCompile(regexp.QuoteMeta(configName) + `:(\d+)`)

// adaptFails adapts a Caddyfile and checks the message.
func adaptFails(t *testing.T, config string, want ...string) {
	t.Helper()
	adapted, _, err := adaptText(config)
	if err == nil {
		t.Fatalf("no error from\n%s\nadapted to\n%s", numbered(config), adapted)
	}
	checkMessage(t, err, want...)
	line := 0
	for i, text := range strings.Split(config, "\n") {
		if strings.Contains(text, mark) {
			line = i + 1
		}
	}
	reported := reportedLine.FindStringSubmatch(err.Error())
	if reported == nil {
		t.Errorf("the message names no file and line: %v", err)
	} else if reported[1] != strconv.Itoa(line) {
		t.Errorf("the message names line %s, the mistake is in line %d: %v\n%s", reported[1], line, err, numbered(config))
	}
	if t.Failed() {
		t.Logf("message: %v", err)
	}
}

// checkMessage checks what holds for every message, and the given words; one
// in quotes has to stand for itself, in quotes or not.
func checkMessage(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, word := range want {
		found := strings.Contains(err.Error(), word)
		if bare := strings.Trim(word, "'"); bare != word {
			found = regexp.MustCompile(`(^|[^\w-])` + regexp.QuoteMeta(bare) + `($|[^\w-])`).MatchString(err.Error())
		}
		if !found {
			t.Errorf("the message lacks %q: %v", word, err)
		}
	}
	if strings.Contains(err.Error(), testSecret) {
		t.Errorf("the message holds the secret: %v", err)
	}
	for _, slip := range []string{"%!", "'' is unknown", "<nil>", "interface {}"} {
		if strings.Contains(err.Error(), slip) {
			t.Errorf("the message holds %q, which tells a reader nothing: %v", slip, err)
		}
	}
}

func numbered(text string) string {
	var b strings.Builder
	for i, line := range strings.Split(text, "\n") {
		fmt.Fprintf(&b, "%3d  %s\n", i+1, line)
	}
	return b.String()
}

// runCredentialRows runs each row in each place where a credential may stand.
func runCredentialRows(t *testing.T, rows []badConfig) {
	t.Helper()
	for _, row := range rows {
		for _, place := range credentialPlaces {
			t.Run(row.name+"/"+place.name, func(t *testing.T) { adaptFails(t, place.config(row.text), row.want...) })
		}
	}
}

// sampleOptions has a right form of every option of a credential.
var sampleOptions = map[string]string{
	"issuer":             "issuer https://idp.example.com",
	"token_url":          "token_url https://idp.example.com/token",
	"client_id":          "client_id app",
	"audience":           "audience https://api.example.com",
	"proxy":              "proxy http://proxy.example.com:3128",
	"scopes":             "scopes read write",
	"resource":           "resource https://api.example.com/",
	"param":              "param tenant 42",
	"refresh_scopes":     "refresh_scopes",
	"refresh_at":         "refresh_at 50%",
	"expiry_margin":      "expiry_margin 5s",
	"default_lifetime":   "default_lifetime 1m",
	"timeout":            "timeout 5s",
	"insecure_token_url": "insecure_token_url",
	"rejected_on":        "rejected_on 401 403",
	"dpop":               "dpop {\nkey_file /run/secrets/key.pem\n}",
	"share":              "share {\non_storage_failure hold\n}",
	"max_tokens":         "max_tokens 100",
	"max_new":            "max_new 5/s",
	"idle_timeout":       "idle_timeout 5m",
	"grant":              "grant client_credentials",
	"client_auth":        "client_auth client_secret_post " + testSecret,
	"request":            "request {\nmethod GET\n}",
	"response":           "response {\nexpires_unit ms\n}",
	"token_file":         "token_file /run/app/token",
	"tls":                "tls {\nca /etc/ssl/idp.pem\n}",
}

// TestEveryOptionHasASample keeps the rows below complete as options are added.
func TestEveryOptionHasASample(t *testing.T) {
	if got, want := sorted(sampleOptions), sorted(credentialOptions); !slices.Equal(got, want) {
		t.Errorf("options with a sample: %v\noptions:               %v", got, want)
	}
}

func TestBadCredentialForm(t *testing.T) {
	rows := []badConfig{
		{"unknown option", good + "bogus 1 " + mark, []string{"'bogus'", "known", "token_url", "client_auth"}},
		{"unknown option with a block", good + "bogus { " + mark + "\na b\n}", []string{"'bogus'"}},
		{"option in the wrong case", "Token_URL https://idp.example.com/token " + mark, []string{"'Token_URL'", "token_url"}},
		{"client_secret as an option", good + "client_secret " + testSecret + " " + mark, []string{"'client_secret'", "client_auth"}},
	}
	repeatable := []string{"resource", "param"}
	for _, option := range sorted(sampleOptions) {
		sample := sampleOptions[option]
		if !slices.Contains(repeatable, option) {
			first, rest, _ := strings.Cut(sample, "\n")
			rows = append(rows, badConfig{"repeated " + option, sample + "\n" + first + " " + mark + "\n" + rest, []string{"'" + option + "'", "twice"}})
		}
		isBlock := strings.Contains(sample, "{")
		if !isBlock && option != "insecure_token_url" && option != "refresh_scopes" {
			rows = append(rows, badConfig{"no argument to " + option, option + " " + mark, []string{"'" + option + "'", "argument"}})
		}
		many := slices.Contains([]string{"scopes", "resource", "rejected_on"}, option)
		switch {
		case isBlock:
			rows = append(rows, badConfig{"argument to the block " + option, option + " surplus { " + mark + "\n}", []string{"'" + option + "'", "no argument", "block"}})
		case option == "grant" || option == "client_auth": // below
		case !many:
			rows = append(rows, badConfig{"surplus argument to " + option, sample + " surplus " + mark, []string{"'" + option + "'", "argument"}})
		}
		if !isBlock && option != "grant" && option != "client_auth" && option != "token_file" {
			rows = append(rows, badConfig{"block after " + option, sample + " {\ninner " + mark + "\n}", []string{"'" + option + "'", "no block", "inner"}})
		}
	}
	rows = append(rows,
		badConfig{"param with a name alone", good + "param tenant " + mark, []string{"'param'", "two arguments"}},
		badConfig{"param with a value in two words", good + "param tenant forty two " + mark, []string{"'param'", "two arguments", "quote"}},

		badConfig{"unknown option in request", good + "request {\nbogus 1 " + mark + "\n}", []string{"'bogus'", "request", "grant_type", "rename"}},
		badConfig{"unknown option in response", good + "response {\nbogus 1 " + mark + "\n}", []string{"'bogus'", "response", "access_token", "expires_unit"}},
		badConfig{"unknown option in tls", good + "tls {\nbogus 1 " + mark + "\n}", []string{"'bogus'", "tls", "server_name"}},
		badConfig{"unknown option in dpop", good + "dpop {\nbogus 1 " + mark + "\n}", []string{"'bogus'", "dpop", "key_file"}},
		badConfig{"repeated option in dpop", good + "dpop {\nkey_file a\nkey_file b " + mark + "\n}", []string{"'key_file'", "twice"}},
		badConfig{"no argument in dpop", good + "dpop {\nkey_file " + mark + "\n}", []string{"'key_file'", "argument"}},
		badConfig{"no block of dpop", good + "dpop " + mark, []string{"'dpop'", "needs a block", "key_file"}},
		badConfig{"empty block of dpop", good + "dpop {\n} " + mark, []string{"'dpop'", "needs a block", "key_file"}},
		badConfig{"repeated option in request", good + "request {\nbody form\nbody json " + mark + "\n}", []string{"'body'", "twice"}},
		badConfig{"repeated option in response", good + "response {\nerror a\nerror b " + mark + "\n}", []string{"'error'", "twice"}},
		badConfig{"repeated option in tls", good + "tls {\nca a\nca b " + mark + "\n}", []string{"'ca'", "twice"}},
		badConfig{"no argument in request", good + "request {\nmethod " + mark + "\n}", []string{"'method'", "argument"}},
		badConfig{"no argument in response", good + "response {\naccess_token " + mark + "\n}", []string{"'access_token'", "argument"}},
		badConfig{"no argument in tls", good + "tls {\nserver_name " + mark + "\n}", []string{"'server_name'", "argument"}},
		badConfig{"argument to a flag in tls", good + "tls {\ninsecure_skip_verify yes " + mark + "\n}", []string{"'insecure_skip_verify'", "argument"}},
		badConfig{"block in request", good + "request {\nmethod GET {\ninner " + mark + "\n}\n}", []string{"'method'", "no block", "inner"}},
		badConfig{"rename with one name", good + "request {\nrename client_id " + mark + "\n}", []string{"'rename'", "two"}},
		badConfig{"rename with three", good + "request {\nrename client_id to appid " + mark + "\n}", []string{"'rename'", "two"}},
		badConfig{"rename of one twice", good + "request {\nrename client_id a\nrename client_id b " + mark + "\n}", []string{"rename", "'client_id'", "twice"}},
		badConfig{"header with a name alone", good + "request {\nheader X-A " + mark + "\n}", []string{"'header'", "two"}},
		badConfig{"header of one name twice", good + "request {\nheader X-A 1\nheader X-A 2 " + mark + "\n}", []string{"header", "'X-A'", "twice"}},
		badConfig{"header of one name in two cases", good + "request {\nheader X-A 1\nheader x-a 2 " + mark + "\n}", []string{"header", "'x-a'", "twice"}},
	)
	runCredentialRows(t, rows)
}

func TestBadTokenURL(t *testing.T) {
	rows := []badConfig{
		{"none", clientID + clientAuth, []string{"token_url", "missing", "https://", "issuer"}},
		{"empty", "token_url \"\"\n" + clientID + clientAuth, nil},
	}
	// the empty one is told where it stands, as every empty argument is
	rows[1].text = "token_url \"\" " + mark + "\n" + clientID + clientAuth
	rows[1].want = []string{"token_url"}
	for url, want := range map[string][]string{
		"idp.example.com/token":                             {"https://"},
		"localhost:8080/token":                              {"https://"},
		"/token":                                            {"https://"},
		"ftp://idp.example.com/token":                       {"https://"},
		"https://":                                          {"https://"},
		"https:///token":                                    {"https://"},
		"https://:8443/token":                               {"https://"},
		"https://idp.example.com:port/token":                {"URL"},
		"https://idp.example.com/%zz":                       {"URL"},
		"http://idp.example.com/token":                      {"http", "idp.example.com", "https", "insecure_token_url"},
		"http://10.0.0.1/token":                             {"loopback", "https", "insecure_token_url"},
		"http://0.0.0.0/token":                              {"loopback", "insecure_token_url"},
		"http://localhost.example.com/token":                {"loopback", "insecure_token_url"},
		"http://127.0.0.1.example.com/token":                {"loopback", "insecure_token_url"},
		"http://notlocalhost/token":                         {"loopback", "insecure_token_url"},
		"http://[::2]/token":                                {"loopback", "insecure_token_url"},
		"https://app:" + testSecret + "@idp.example.com/":   {"user", "client_id", "client_auth"},
		"http://app:" + testSecret + "@127.0.0.1/":          {"user", "client_id", "client_auth"},
		"ftp://app:" + testSecret + "@idp.example.com/":     {"https://"},
		"app:" + testSecret + "@idp.example.com/token":      {"https://"},
		"idp.example.com/token?client_secret=" + testSecret: {"https://"},
		"http://idp.example.com/token?secret=" + testSecret: {"insecure_token_url"},
		"https://idp.example.com/token#fragment":            {"fragment"},
		"https://idp.example.com/token#" + testSecret:       {"fragment"},
	} {
		rows = append(rows, badConfig{strings.ReplaceAll(url, "/", "|"), "token_url " + url + " " + mark + "\n" + clientID + clientAuth, append(want, "token_url")})
	}
	rows = append(rows, badConfig{
		"loopback through a proxy", "token_url http://127.0.0.1/token " + mark + "\nproxy http://proxy.example.com:3128\n" + clientID + clientAuth,
		[]string{"token_url", "proxy", "insecure_token_url"},
	})
	runCredentialRows(t, rows)
}

func TestBadClient(t *testing.T) {
	methods := []string{"client_secret_basic", "client_secret_jwt", "client_secret_post", "jwt_file", "none", "private_key_jwt", "tls_client_auth"}
	known := []string{"authorization_code", "client_credentials", "jwt_bearer", "refresh_token", "token_exchange"}
	rows := []badConfig{
		{"no client_id", tokenURL + clientAuth, []string{"client_id", "missing"}},
		{"empty client_id", tokenURL + "client_id \"\" " + mark + "\n" + clientAuth, []string{"client_id"}},
		{"no client_auth", tokenURL + clientID, append(methods, "client_auth", "missing", "client_credentials")},
		{"client_auth without a method", tokenURL + clientID + "client_auth " + mark, append(methods, "client_auth")},
		{"unknown method", tokenURL + clientID + "client_auth bogus " + testSecret + " " + mark, append(methods, "client_auth", "'bogus'", "known")},
		{"method with its namespace", tokenURL + clientID + "client_auth upstream_auth.client_auth.none " + mark, append(methods, "client_auth", "known")},
		{"basic without a secret", tokenURL + clientID + "client_auth client_secret_basic " + mark, []string{"client_secret_basic", "secret", "{file."}},
		{"basic with a block for a secret", tokenURL + clientID + "client_auth client_secret_basic { " + mark + "\nsecret " + testSecret + "\n}", []string{"client_secret_basic", "secret", "{file."}},
		{"basic with two secrets", tokenURL + clientID + "client_auth client_secret_basic " + testSecret + " " + testSecret + " " + mark, []string{"client_secret_basic", "one argument"}},
		{"basic with an empty secret", tokenURL + clientID + "client_auth client_secret_basic \"\" " + mark, []string{"client_secret_basic", "secret", "{file."}},
		{"post without a secret", tokenURL + clientID + "client_auth client_secret_post " + mark, []string{"client_secret_post", "secret", "{file."}},
		{"post with two secrets", tokenURL + clientID + "client_auth client_secret_post " + testSecret + " " + testSecret + " " + mark, []string{"client_secret_post", "one argument"}},
		{"post with an empty secret", tokenURL + clientID + "client_auth client_secret_post \"\" " + mark, []string{"client_secret_post", "secret", "{file."}},
		{"post with a block", tokenURL + clientID + "client_auth client_secret_post " + testSecret + " {\nencoding raw " + mark + "\n}", []string{"client_secret_post", "no options", "'encoding'"}},
		{"none with a secret", tokenURL + clientID + "client_auth none " + testSecret + " " + mark, []string{"client_auth none", "no secret"}},
		{"none with a block", tokenURL + clientID + "client_auth none {\nencoding raw " + mark + "\n}", []string{"client_auth none", "no options", "'encoding'"}},
		{"unknown option of basic", tokenURL + clientID + "client_auth client_secret_basic " + testSecret + " {\nbogus 1 " + mark + "\n}", []string{"client_secret_basic", "'bogus'", "encoding"}},
		{"unknown encoding", tokenURL + clientID + "client_auth client_secret_basic " + testSecret + " {\nencoding utf8 " + mark + "\n}", []string{"encoding", "'utf8'", "form", "raw"}},
		{"no encoding", tokenURL + clientID + "client_auth client_secret_basic " + testSecret + " {\nencoding " + mark + "\n}", []string{"encoding", "form", "raw"}},
		{"two encodings", tokenURL + clientID + "client_auth client_secret_basic " + testSecret + " {\nencoding form raw " + mark + "\n}", []string{"encoding", "one argument"}},
		{"encoding twice", tokenURL + clientID + "client_auth client_secret_basic " + testSecret + " {\nencoding form\nencoding raw " + mark + "\n}", []string{"encoding", "twice"}},
		{"grant without a name", good + "grant " + mark, append(known, "grant")},
		{"a secret for a method", tokenURL + clientID + "client_auth " + testSecret + " " + mark, append(methods, "client_auth", "unknown")},
		{"unknown grant", good + "grant bogus " + mark, append(known, "grant", "'bogus'", "unknown")},
		{"grant with an argument", good + "grant client_credentials surplus " + mark, []string{"grant client_credentials", "no argument", "'surplus'"}},
		{"grant with a block", good + "grant client_credentials {\ninner " + mark + "\n}", []string{"grant client_credentials", "no options", "'inner'"}},
	}
	runCredentialRows(t, rows)
}

func TestBadSchedule(t *testing.T) {
	rows := []badConfig{}
	for _, value := range []string{"9%", "9", "9.99%", "96%", "95.01%", "0", "0%", "-1", "-50%", "1000%", "NaN", "Inf"} {
		rows = append(rows, badConfig{"refresh_at " + value, good + "refresh_at " + value + " " + mark, []string{"refresh_at", strings.TrimSuffix(value, "%"), "10%", "95%"}})
	}
	for _, value := range []string{"abc", "%", "75%%", "75s", "3/4"} {
		rows = append(rows, badConfig{"refresh_at " + strings.ReplaceAll(value, "/", "|"), good + "refresh_at " + value + " " + mark, []string{"refresh_at", "'" + value + "'", "75%"}})
	}
	rows = append(rows, badConfig{"empty refresh_at", good + "refresh_at \"\" " + mark, []string{"refresh_at"}})
	ranges := map[string][2]string{
		"expiry_margin":    {"1ms", "1h"},
		"default_lifetime": {"1s", "24h"},
		"timeout":          {"100ms", "10m"},
		"idle_timeout":     {"1s", "24h"},
	}
	outside := map[string][]string{
		"expiry_margin":    {"0", "0s", "-1s", "999us", "61m"},
		"default_lifetime": {"0", "-1h", "999ms", "25h", "2d"},
		"timeout":          {"0", "-1s", "99ms", "601s"},
		"idle_timeout":     {"0", "-1m", "999ms", "25h"},
	}
	for _, option := range sorted(ranges) {
		for _, value := range outside[option] {
			rows = append(rows, badConfig{option + " " + value, good + option + " " + value + " " + mark, []string{option, "out of range", ranges[option][0], ranges[option][1]}})
		}
		for _, value := range []string{"10", "soon", "5 s", "10sec", "1h2", "9999999h", ""} {
			rows = append(rows, badConfig{option + " " + strconv.Quote(value), good + option + " " + strconv.Quote(value) + " " + mark, []string{option}})
		}
		rows = append(rows, badConfig{option + " from a placeholder", good + option + " {env.DURATION} " + mark, []string{option, "duration", "10s"}})
	}
	const template = good + "audience {host}\n"
	for _, value := range []string{"0", "-1", "1e3", "1.5", "many", "99999999999999999999", "{env.N}"} {
		rows = append(rows, badConfig{"max_tokens " + value, template + "max_tokens " + value + " " + mark, []string{"max_tokens", "'" + value + "'", "whole number"}})
	}
	for _, value := range []string{"0", "-1", "NaN", "fast", "10/m", "/s", "{env.N}"} {
		rows = append(rows, badConfig{"max_new " + strings.ReplaceAll(value, "/", "|"), template + "max_new " + value + " " + mark, []string{"max_new", "'" + value + "'", "10/s"}})
	}
	rows = append(rows,
		badConfig{"max_tokens too large", template + "max_tokens 1000001 " + mark, []string{"max_tokens", "1000001", "out of range", "1 to 1000000"}},
		badConfig{"max_new too large", template + "max_new 1001 " + mark, []string{"max_new", "1001", "out of range", "0.1 to 1000"}},
		badConfig{"max_new too small", template + "max_new 0.09/s " + mark, []string{"max_new", "0.09", "out of range", "0.1 to 1000"}},
		badConfig{"max_new without end", template + "max_new Inf " + mark, []string{"max_new", "Inf", "out of range"}},
	)
	for _, option := range []string{"max_tokens", "max_new", "idle_timeout"} {
		rows = append(rows, badConfig{option + " of what is no template", good + "audience {env.AUDIENCE}\n" + sampleOptions[option] + " " + mark, []string{option, "placeholders of a request", "single token"}})
	}
	runCredentialRows(t, rows)
}

func TestBadParameters(t *testing.T) {
	rows := []badConfig{
		{"param without a name", good + "param \"\" x " + mark, []string{"param", "name"}},
		{"scopes in quotes", good + "scopes \"read write\" " + mark, []string{"scopes", "'read write'"}},
		{"scope with a quote", good + "scopes re`ad\" " + mark, []string{"scopes", "re`ad"}},
		{"scope with a backslash", good + "scopes re\\ad " + mark, []string{"scopes", `re\ad`}},
		{"scope beyond ASCII", good + "scopes lesé " + mark, []string{"scopes", "lesé"}},
		{"empty scope", good + "scopes read \"\" " + mark, []string{"scopes"}},
		{"relative resource", good + "resource api.example.com/x " + mark, []string{"resource", "'api.example.com/x'", "absolute", "8707"}},
		{"resource with a fragment", good + "resource https://api.example.com/#x " + mark, []string{"resource", "fragment"}},
		{"resource that is no URI", good + "resource https://api.example.com:x/ " + mark, []string{"resource"}},
		{"the second of two resources", good + "resource https://api.example.com/\nresource nowhere " + mark, []string{"resource", "'nowhere'"}},
		{"the first of two resources", good + "resource nowhere " + mark + "\nresource https://api.example.com/", []string{"resource", "'nowhere'"}},
	}
	for name, setBy := range map[string]string{
		"grant_type": "grant_type", "scope": "scopes", "audience": "audience", "resource": "resource",
		"client_id": "client_id", "client_secret": "client_auth",
	} {
		rows = append(rows,
			badConfig{"param " + name, good + "param " + name + " " + testSecret + " " + mark, []string{"param", "'" + name + "'", "set by", setBy}},
			badConfig{"param " + name + " before another", good + "param " + name + " x " + mark + "\nparam tenant 42", []string{"param", "'" + name + "'", "set by", setBy}})
	}
	rows = append(rows, badConfig{"param client_id beside none", tokenURL + clientID + "client_auth none\nparam client_id x " + mark, []string{"param", "'client_id'", "set by"}})
	runCredentialRows(t, rows)
}

func TestBadShape(t *testing.T) {
	rows := []badConfig{}
	inRequest := func(name, option string, want ...string) {
		rows = append(rows, badConfig{"request " + name, good + "request {\ngrant_type x\n" + option + " " + mark + "\n}", append(want, "request")})
	}
	inRequest("method in small letters", "method get", "method", "'get'", "GET", "POST")
	inRequest("method PUT", "method PUT", "method", "'PUT'", "GET", "POST")
	inRequest("body xml", "body xml", "body", "'xml'", "form", "json", "query")
	inRequest("body form with GET", "method GET\nbody form", "GET", "body", "query", "form")
	inRequest("body json with GET", "method GET\nbody json", "GET", "body", "query", "json")
	inRequest("header that the method sets", "header authorization x", "header authorization", "client_auth")
	inRequest("two renamed to one", "rename a c\nrename b c", "rename")
	for _, option := range []string{"request", "response", "tls", "request {\n}", "tls {\n}"} {
		rows = append(rows, badConfig{"no options in " + option, good + option + " " + mark, []string{strings.Fields(option)[0], "needs a block"}})
	}
	rows = append(rows,
		badConfig{"empty block", good + "timeout 5s {\n} " + mark, []string{"'timeout'", "no block"}},
		badConfig{"flag with an argument", good + "insecure_token_url true " + mark, []string{"'insecure_token_url'", "no argument"}},
		badConfig{"scopes in quotes", good + `scopes "read write" ` + mark, []string{"scopes", "without quotes"}},
		badConfig{"empty resource", good + `resource "" ` + mark, []string{"'resource'", "empty"}})
	inRequest("rename of nothing", `rename "" x`, "rename")
	inRequest("rename to nothing", `rename x ""`, "rename")
	inRequest("no header name", `header "" x`, "header")
	inRequest("header that is no name", `header "X A" x`, "header", "'X A'")
	inRequest("header with a colon", `header X-A: x`, "header", "'X-A:'")
	inRequest("header with a control character", "header X-A \"a\x01b\"", "header", "X-A")
	for _, name := range []string{
		"Connection", "connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
		"TE", "Trailer", "Transfer-Encoding", "Upgrade", "Host", "host", "Content-Length",
	} {
		inRequest("header "+name, "header "+name+" x", "header", "'"+name+"'", "connection")
	}

	inResponse := func(name, option string, want ...string) {
		rows = append(rows, badConfig{"response " + name, good + "response {\nerror x\n" + option + " " + mark + "\n}", append(want, "response")})
	}
	inResponse("expires_unit", "expires_unit m", "expires_unit", "'m'", "s", "ms")
	inResponse("expires_unit in words", "expires_unit seconds", "expires_unit", "'seconds'")

	rows = append(rows,
		badConfig{"tls cert alone", good + "tls {\nca x\ncert /etc/ssl/client.pem " + mark + "\n}", []string{"tls", "cert", "key"}},
		badConfig{"tls key alone", good + "tls {\nca x\nkey /etc/ssl/client.pem " + mark + "\n}", []string{"tls", "cert", "key"}})

	for _, url := range []string{"proxy.example.com:3128", "proxy.example.com", "ftp://proxy.example.com", "socks4://proxy.example.com", "http://", "http://:3128", "http://proxy.example.com:port", "app:" + testSecret + "@proxy.example.com"} {
		rows = append(rows, badConfig{"proxy " + strings.ReplaceAll(url, "/", "|"), good + "proxy " + url + " " + mark, []string{"proxy", "http", "https", "socks5"}})
	}
	runCredentialRows(t, rows)
}

// requestPlaceholders are what a request fills, and words of what is said where
// that is not allowed.
var requestPlaceholders = map[string][]string{
	"{host}":                              {"{http.request.host}", "request placeholder"},
	"{header.X-Tenant}":                   {"{http.request.header.X-Tenant}", "request placeholder"},
	"{http.request.uri}":                  {"{http.request.uri}", "request placeholder"},
	"{http.vars.x}":                       {"{http.vars.x}", "request placeholder"},
	"{http.auth.user.id}":                 {"{http.auth.user.id}", "request placeholder"},
	"{env.A}{http.request.header.Cookie}": {"{http.request.header.Cookie}", "request placeholder"},
}

// badPlaceholders are those that are allowed nowhere.
var badPlaceholders = map[string][]string{
	"{file.name}":                           {"{file.name}", "slash", "{file./path/to/name}"},
	"{foo}":                                 {"{foo}", "unknown placeholder", "{env.*}"},
	"{http.reverse_proxy.upstream.address}": {"{http.reverse_proxy.upstream.address}", "not allowed"},
	"{rp.header.X-A}":                       {"{http.reverse_proxy.header.X-A}", "not allowed"},
	"{resp.header.X-A}":                     {"{http.intercept.header.X-A}", "not allowed"},
	"{http.request.host}{http.error.message}": {"{http.error.message}", "not allowed"},
}

// TestBadPlaceholders: a client must not choose where a secret goes, or which
// file is read; and what nobody resolves is never sent as it stands.
func TestBadPlaceholders(t *testing.T) {
	var rows []badConfig
	add := func(option, placeholder string, want []string) {
		head := strings.Join(strings.Fields(option), " ")
		text := ""
		for line := range strings.SplitSeq(fmt.Sprintf(option, placeholder), "\n") {
			text += line
			if strings.Contains(line, placeholder) {
				text += " " + mark
			}
			text += "\n"
		}
		for _, part := range []string{tokenURL, clientID, clientAuth} {
			name, _, _ := strings.Cut(part, " ")
			if strings.HasPrefix(option, name) || name == "token_url" && strings.HasPrefix(option, "issuer") {
				continue
			}
			text = part + text
		}
		word, _, _ := strings.Cut(option, " ")
		rows = append(rows, badConfig{fmt.Sprintf(strings.ReplaceAll(head, "/", "|"), placeholder), text, append([]string{word}, want...)})
	}
	// a value that is sent may depend on the request, and on nothing that comes
	// to be after it
	for _, option := range []string{
		"scopes read %s",
		"audience https://%s",
		"resource https://%s/",
		"resource https://a.example.com/\nresource https://%s/",
		"param tenant %s",
		"param other x\nparam tenant %s",
	} {
		for _, placeholder := range sorted(badPlaceholders) {
			add(option, placeholder, badPlaceholders[placeholder])
		}
	}
	for _, option := range []string{
		"issuer https://%s",
		"token_url https://%s/token",
		"client_id %s",
		"client_auth client_secret_basic %s",
		"client_auth client_secret_post a%sz",
		"proxy http://%s:3128",
		"request {\nbody form\ngrant_type %s\n}",
		"request {\nbody form\nheader X-A %s\n}",
		"tls {\ninsecure_skip_verify\nca %s\n}",
		"tls {\ninsecure_skip_verify\nserver_name %s\n}",
		"tls {\nkey /x\ncert %s\n}",
		"tls {\ncert /x\nkey %s\n}",
		"dpop {\nkey_file %s\n}",
		// names are literal, so that no placeholder is allowed in them
		"param %s x",
		"request {\nbody form\nrename %s x\n}",
		"request {\nbody form\nrename x %s\n}",
		"response {\nexpires_unit s\naccess_token %s\n}",
		"response {\nexpires_unit s\nerror_description a.%s\n}",
	} {
		for _, placeholders := range []map[string][]string{requestPlaceholders, badPlaceholders} {
			for _, placeholder := range sorted(placeholders) {
				want := placeholders[placeholder]
				switch {
				case strings.Contains(option, "rename") || strings.Contains(option, "response") || strings.HasPrefix(option, "param %s"):
					want = []string{"placeholder"}
				case strings.Contains(placeholder, "}{http.error"): // the first of the two is told
					want = []string{"{http.request.host}", "not allowed"}
				case strings.HasPrefix(option, "client_auth") && placeholder == "{foo}":
					want = want[1:] // it may be a part of a literal secret
				}
				add(option, placeholder, want)
			}
		}
	}
	// with a block after the secret, too, the line is the secret's
	rows = append(rows, badConfig{
		"client_auth with a block", tokenURL + clientID + "client_auth client_secret_basic {host} { " + mark + "\nencoding raw\n}",
		[]string{"client_auth", "secret", "{http.request.host}"},
	})
	// of a literal secret with braces in it nothing is shown
	rows = append(rows, badConfig{
		"braces in a literal secret", tokenURL + clientID + "client_auth client_secret_basic a{" + testSecret + "}z " + mark,
		[]string{"client_auth", "secret", "placeholder"},
	})
	runCredentialRows(t, rows)
}

// TestTemplatePlaceholders: what a request fills is allowed in what is sent, and
// makes the credential a template: max_tokens is refused elsewhere.
func TestTemplatePlaceholders(t *testing.T) {
	for _, option := range []string{
		"scopes read %s", "audience https://%s", "resource https://%s/", "resource urn:a\nresource https://%s/", "param tenant %s",
		"grant jwt_bearer {\nkey_file /run/secrets/key.pem\nclaim tenant %s\n}",
		"grant jwt_bearer {\nkey_file /run/secrets/key.pem\nclaim a b\nclaim tenant x%sx\n}",
		"grant token_exchange {\nsubject_token %s\n}",
	} {
		for _, placeholder := range append(sorted(requestPlaceholders), "{cookie.session}", "{client_ip}", "{tls_client_subject}", "{labels.1}", "{query.tenant}", "{file}") {
			name := fmt.Sprintf(strings.ReplaceAll(strings.Join(strings.Fields(option), " "), "/", "|"), placeholder)
			for _, place := range credentialPlaces {
				t.Run(name+"/"+place.name, func(t *testing.T) {
					loads(t, place.config(good+fmt.Sprintf(option, placeholder)+"\nmax_tokens 5\nmax_new 0.5\nidle_timeout 1m"))
				})
			}
		}
	}
	for _, place := range credentialPlaces {
		t.Run("subject_token request/"+place.name, func(t *testing.T) {
			loads(t, place.config(good+"grant token_exchange {\nsubject_token request\nsubject_audience api\n}\nmax_tokens 1000000\nmax_new 1000/s\nidle_timeout 24h"))
		})
	}
}

func TestBadGlobalOption(t *testing.T) {
	block := func(options string) string { return "{\nupstream_auth {\n" + options + "\n}\n}\n" }
	named := func(name string) string { return "credential " + name + " { " + mark + "\n" + good + "}" }
	tooLong := strings.Repeat("a", 65)
	for _, row := range []badConfig{
		{"unknown option", block("bogus x " + mark), []string{"'bogus'", "upstream_auth", "credential"}},
		{"argument", "{\nupstream_auth crm { " + mark + "\n}\n}\n", []string{"upstream_auth", "no argument", "'crm'"}},
		{"credential without a name", block("credential { " + mark + "\n" + good + "}"), []string{"'credential'", "one argument", "name"}},
		{"credential without anything", block("credential " + mark), []string{"'credential'", "one argument", "name"}},
		{"credential with two names", block("credential crm erp { " + mark + "\n" + good + "}"), []string{"'credential'", "one argument", "name"}},
		{"credential without a block", block("credential crm " + mark), []string{"token_url", "missing"}},
		{"credential with an empty block", block("credential crm { " + mark + "\n}"), []string{"token_url", "missing"}},
		{"name too long", block(named(tooLong)), []string{tooLong, "64"}},
		{"name that begins with a dot", block(named(".crm")), []string{"'.crm'", "letter or digit first"}},
		{"name that begins with a hyphen", block(named("-crm")), []string{"'-crm'", "letter or digit first"}},
		{"name with a slash", block(named("crm/1")), []string{"'crm/1'", "letters"}},
		{"name with a blank", block(named(`"crm 1"`)), []string{"'crm 1'", "letters"}},
		{"name with a tab", block(named("\"crm\t\"")), []string{"letters"}},
		{"name with an umlaut", block(named("größe")), []string{"'größe'", "letters"}},
		{"name from a placeholder", block(named("{env.NAME}")), []string{"'{env.NAME}'", "letters"}},
		{"empty name", block(named(`""`)), []string{"name", "letters"}},
		{"name kept for credentials in place", block(named("inline-0123abcd")), []string{"'inline-0123abcd'", "inline-", "kept"}},
		{"named twice", block("credential crm {\n" + good + "}\n" + named("crm")), []string{"'crm'", "twice"}},
		{"named twice over two blocks", "{\nupstream_auth {\ncredential crm {\n" + good + "}\n}\nupstream_auth {\n" + named("crm") + "\n}\n}\n", []string{"'crm'", "twice"}},
		{"mistake in a second block", "{\nupstream_auth {\ncredential crm {\n" + good + "}\n}\nupstream_auth {\nbogus " + mark + "\n}\n}\n", []string{"'bogus'"}},
		{"mistake in a second credential", block("credential crm {\n" + good + "}\ncredential erp {\n" + good + "timeout soon " + mark + "\n}"), []string{"timeout", "'soon'"}},
		{"mistake in a snippet", "(auth) {\n" + good + "timeout soon " + mark + "\n}\n" + block("credential crm {\nimport auth\n}"), []string{"timeout", "'soon'", "import chain"}},
		{"missing in a snippet", "(auth) {\n" + tokenURL + "}\n" + block("credential crm { "+mark+"\nimport auth\n}"), []string{"client_id", "missing"}},
	} {
		t.Run(row.name, func(t *testing.T) { adaptFails(t, row.text, row.want...) })
	}
}

// TestBadRouteOptions is what handler and transport have in common.
func TestBadRouteOptions(t *testing.T) {
	for _, row := range []badConfig{
		{"unknown option", "bogus 1 " + mark, []string{"'bogus'", "known", "client_authorization", "wait"}},
		{"an option of the credential", "timeout 5s " + mark, []string{"'timeout'", "'crm'"}},
		{"client_auth of the credential", "client_auth client_secret_post " + testSecret + " " + mark, []string{"'client_auth'", "'crm'"}},
		{"header without a name", "header " + mark, []string{"'header'", "one or two arguments"}},
		{"header with three arguments", "header Authorization Bearer x " + mark, []string{"'header'", "one or two arguments"}},
		{"header with a block", "header Authorization {\ninner " + mark + "\n}", []string{"'header'", "no block", "inner"}},
		{"header that is no name", `header "X Token" ` + mark, []string{"header", "'X Token'"}},
		{"empty header", `header "" ` + mark, []string{"header"}},
		{"header from a placeholder", "header {env.NAME} " + mark, []string{"header", "{env.NAME}"}},
		{"header Host", "header Host " + mark, []string{"header", "'Host'"}},
		{"header Content-Length", "header content-length " + mark, []string{"header", "'content-length'"}},
		{"header Connection", "header Connection " + mark, []string{"header", "'Connection'"}},
		{"header Transfer-Encoding", "header Transfer-Encoding " + mark, []string{"header", "'Transfer-Encoding'"}},
		{"header Upgrade", "header Upgrade " + mark, []string{"header", "'Upgrade'"}},
		{"header TE", "header TE " + mark, []string{"header", "'TE'"}},
		{"header Trailer", "header Trailer " + mark, []string{"header", "'Trailer'"}},
		{"header Keep-Alive", "header Keep-Alive " + mark, []string{"header", "'Keep-Alive'"}},
		{"header Proxy-Authorization", "header Proxy-Authorization " + mark, []string{"header", "'Proxy-Authorization'"}},
		{"scheme with a blank", `header Authorization "Bearer " ` + mark, []string{"header", "'Bearer '", "scheme"}},
		{"scheme with a tab", "header Authorization \"a\tb\" " + mark, []string{"header", "scheme"}},
		{"scheme from a placeholder", "header Authorization {env.SCHEME} " + mark, []string{"header", "{env.SCHEME}", "scheme"}},
		{"client_authorization drop", "client_authorization drop " + mark, []string{"client_authorization", "'drop'", "replace", "keep", "reject"}},
		{"client_authorization Keep", "client_authorization Keep " + mark, []string{"client_authorization", "'Keep'", "keep"}},
		{"client_authorization without a word", "client_authorization " + mark, []string{"'client_authorization'", "argument"}},
		{"client_authorization with nothing in quotes", `client_authorization "" ` + mark, []string{"client_authorization"}},
		{"client_authorization with two", "client_authorization keep reject " + mark, []string{"'client_authorization'", "argument"}},
		{"unavailable wait", "unavailable wait " + mark, []string{"unavailable", "'wait'", "reject", "pass"}},
		{"unavailable without a word", "unavailable " + mark, []string{"'unavailable'", "argument"}},
		{"unavailable with two", "unavailable reject pass " + mark, []string{"'unavailable'", "argument"}},
		{"wait without a duration", "wait " + mark, []string{"'wait'", "argument"}},
		{"wait for ever", "wait forever " + mark, []string{"wait", "'forever'", "duration"}},
		{"wait without a unit", "wait 5 " + mark, []string{"wait", "'5'", "duration"}},
		{"wait below zero", "wait -1s " + mark, []string{"wait", "-1s", "out of range", "10m"}},
		{"wait too long", "wait 601s " + mark, []string{"wait", "out of range", "10m"}},
		{"header twice", "header X-A\nheader X-B " + mark, []string{"'header'", "twice"}},
		{"client_authorization twice", "client_authorization keep\nclient_authorization keep " + mark, []string{"'client_authorization'", "twice"}},
		{"unavailable twice", "unavailable pass\nunavailable pass " + mark, []string{"'unavailable'", "twice"}},
		{"wait twice", "wait 1s\nwait 1s " + mark, []string{"'wait'", "twice"}},
	} {
		for _, place := range routePlaces {
			t.Run(row.name+"/"+place.name, func(t *testing.T) { adaptFails(t, place.config("crm", row.text), row.want...) })
		}
	}
	tooLong := strings.Repeat("a", 65)
	for _, row := range []struct {
		name, arguments, options string
		want                     []string
	}{
		{"neither name nor options", "", "", []string{"credential", "missing"}},
		{"options of the route alone", "", "wait 1s", []string{"credential", "missing"}},
		{"options without a token_url", "", clientID + clientAuth, []string{"token_url", "missing"}},
		{"two names", "crm erp", "", []string{"one argument", "'erp'"}},
		{"invalid name", "-crm", "", []string{"'-crm'", "letter or digit first"}},
		{"empty name", `""`, "", []string{"name", "letters"}},
		{"name too long", tooLong, "", []string{tooLong, "64"}},
		{"name from a placeholder", "{env.NAME}", "", []string{"{env.NAME}", "letters"}},
		{"name of one written in place", "inline-0123abcd", "", []string{"'inline-0123abcd'", "inline-"}},
		{"an unknown option lists the credential's too", "", "bogus 1 " + mark, []string{"'bogus'", "wait", "token_url"}},
	} {
		for _, place := range routePlaces {
			t.Run(row.name+"/"+place.name, func(t *testing.T) { adaptFails(t, place.config(row.arguments, row.options), row.want...) })
		}
	}
}

func TestBadTransportOptions(t *testing.T) {
	transport := routePlaces[1].config
	rows := []badConfig{
		{"unknown option", "bogus 1 " + mark, []string{"'bogus'", "http", "upstreams", "insecure_upstream", "health_checks"}},
		{"upstreams without a host", "upstreams " + mark, []string{"'upstreams'", "argument"}},
		{"upstreams with a block", "upstreams crm.example.com {\ninner " + mark + "\n}", []string{"'upstreams'", "no block"}},
		{"upstreams twice", "upstreams a.example.com\nupstreams b.example.com " + mark, []string{"'upstreams'", "twice"}},
		{"insecure_upstream yes", "insecure_upstream yes " + mark, []string{"'insecure_upstream'", "argument"}},
		{"insecure_upstream twice", "insecure_upstream\ninsecure_upstream " + mark, []string{"'insecure_upstream'", "twice"}},
		{"health_checks without a word", "health_checks " + mark, []string{"'health_checks'", "argument"}},
		{"health_checks yes", "health_checks yes " + mark, []string{"health_checks", "'yes'", "on", "off"}},
		{"health_checks with nothing in quotes", `health_checks "" ` + mark, []string{"health_checks"}},
		{"health_checks twice", "health_checks on\nhealth_checks on " + mark, []string{"'health_checks'", "twice"}},
		{"http with an argument", "http tls { " + mark + "\n}", []string{"'http'", "no argument"}},
		{"http twice", "http {\ntls\n}\nhttp { " + mark + "\ntls\n}", []string{"'http'", "twice"}},
		{"unknown option of http", "http {\nbogus " + mark + "\n}", []string{"bogus"}},
		{"bad option of http", "http {\ndial_timeout soon " + mark + "\n}", []string{"soon"}},
	}
	for _, host := range []string{
		"https://crm.example.com", "http://127.0.0.1:9000", "crm.example.com/v1", "{env.HOST}", "{host}", `"a b"`,
		"*", "*example.com", "api.*.example.com", "*.", "crm.example.com:https:1", "crm.example.com:", ":443", "[::1", "crm.example.com:port",
	} {
		rows = append(rows, badConfig{"upstreams " + strings.ReplaceAll(host, "/", "|"), "upstreams ok.example.com " + host + " " + mark, []string{"upstreams", "host"}})
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { adaptFails(t, transport("crm", row.text), row.want...) })
	}
	for _, options := range []string{"upstreams crm.example.com", "insecure_upstream", "health_checks off"} {
		t.Run("only in the transport/"+options, func(t *testing.T) {
			word, _, _ := strings.Cut(options, " ")
			adaptFails(t, routePlaces[0].config("crm", options+" "+mark), "'"+word+"'", "upstream_auth", "wait")
		})
	}
}

// TestUnknownCredential: the parser sees a handler's reference and the
// definitions both, so the mistake has a line.
func TestUnknownCredential(t *testing.T) {
	site := "http://127.0.0.1:8080 {\nupstream_auth erp " + mark + "\n}\n"
	t.Run("beside others", func(t *testing.T) { adaptFails(t, definesCRM+site, "'erp'", "not defined", "crm") })
	t.Run("without any", func(t *testing.T) { adaptFails(t, site, "'erp'", "not defined", "credential erp") })
	t.Run("in a named route", func(t *testing.T) {
		adaptFails(t, definesCRM+"&(name) {\nupstream_auth erp "+mark+"\n}\nhttp://127.0.0.1:8080 {\ninvoke name\n}\n", "'erp'", "not defined", "crm")
	})
	t.Run("in a handle", func(t *testing.T) {
		adaptFails(t, definesCRM+"http://127.0.0.1:8080 {\nhandle {\nupstream_auth erp "+mark+"\n}\n}\n", "'erp'", "not defined", "crm")
	})
}

// TestBadAtLoad is what only loading can see: it names the credential, the
// option and what is expected.
func TestBadAtLoad(t *testing.T) {
	proxy := func(upstreams, options string) string {
		return definesCRM + "http://127.0.0.1:8080 {\nreverse_proxy " + upstreams + " {\ntransport upstream_auth crm {\n" + options + "\n}\n}\n}\n"
	}
	for _, row := range []badConfig{
		{"transport names an unknown credential", definesCRM + "http://127.0.0.1:8080 {\nreverse_proxy 127.0.0.1:9000 {\ntransport upstream_auth erp\n}\n}\n", []string{"'erp'", "not defined", "crm"}},
		{"transport names a credential where none is", "http://127.0.0.1:8080 {\nreverse_proxy 127.0.0.1:9000 {\ntransport upstream_auth erp\n}\n}\n", []string{"'erp'", "not defined", "credential erp"}},
		{"http upstream", proxy("http://api.example.com", ""), []string{"crm", "api.example.com", "https://api.example.com", "insecure_upstream"}},
		{"upstream without a scheme", proxy("api.example.com:8443", ""), []string{"crm", "api.example.com:8443", "https://api.example.com:8443", "insecure_upstream"}},
		{"http upstream beside a loopback one", proxy("127.0.0.1:9000 10.0.0.1:9000", ""), []string{"crm", "10.0.0.1:9000", "insecure_upstream"}},
		{"http upstream in upstreams", proxy("http://api.example.com", "upstreams api.example.com"), []string{"crm", "api.example.com", "insecure_upstream"}},
		{"h2c upstream", proxy("h2c://api.example.com", ""), []string{"crm", "api.example.com", "insecure_upstream"}},
		{"unspecified address of another machine", proxy("192.0.2.1:9000", ""), []string{"crm", "192.0.2.1:9000", "insecure_upstream"}},
		{"name that only looks like loopback", proxy("localhost.example.com:9000", ""), []string{"crm", "localhost.example.com:9000", "insecure_upstream"}},
		{"upstream's port without TLS", proxy("https://api.example.com:8443", "http {\ntls\ntls_except_ports 8443\n}"), []string{"crm", "api.example.com:8443", "insecure_upstream"}},
		{"certificate that is not verified", proxy("https://api.example.com", "http {\ntls_insecure_skip_verify\n}"), []string{"crm", "tls_insecure_skip_verify", "insecure_upstream"}},
		{"upstream from a placeholder", proxy("{env.UPSTREAM}", "http {\ntls\n}"), []string{"crm", "upstreams", "{env.UPSTREAM}", "placeholder"}},
		{"port from a placeholder", proxy("api.example.com:{env.PORT}", "http {\ntls\n}"), []string{"crm", "upstreams", "{env.PORT}", "placeholder"}},
		{"upstream from a request", proxy("{header.X-Upstream}:443", "insecure_upstream"), []string{"crm", "upstreams", "placeholder"}},
		{"dynamic upstreams", proxy("", "http {\ntls\n}\n}\ndynamic a api.example.com 443 {\n"), []string{"crm", "upstreams", "dynamic"}},
		{"plaintext through a proxy", proxy("127.0.0.1:9000", "http {\nnetwork_proxy url http://127.0.0.1:3128\n}"), []string{"crm", "proxy", "insecure_upstream"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			adapted, _, err := adaptText(row.text)
			if err != nil {
				t.Fatalf("it does not even adapt: %v\n%s", err, numbered(row.text))
			}
			log, refused := validateJSON(t, adapted)
			if refused == nil {
				t.Fatalf("it loads:\n%s", numbered(row.text))
			}
			checkMessage(t, refused, row.want...)
			checkLog(t, log)
		})
	}
}

// checkLog checks that no secret stands in what was logged. The one line that
// is left out is Caddy's own: at debug level it logs the http app as it was
// written, literal secrets included.
func checkLog(t *testing.T, log string) {
	t.Helper()
	for line := range strings.Lines(log) {
		if strings.Contains(line, testSecret) && !strings.Contains(line, `"logger":"http.auto_https","msg":"adjusted config"`) {
			t.Errorf("the log holds the secret:\n%s", line)
		}
	}
}

const goodJSON = `"token_url": "https://idp.example.com/token", "client_id": "app", "client_auth": {"method": "client_secret_basic", "secret": "` + testSecret + `"}`

// jsonPlaces are where a credential may stand in JSON.
var jsonPlaces = []struct {
	name, credential string
	config           func(credential string) string
}{
	{"app", "crm", func(c string) string {
		return `{"apps": {"upstream_auth": {"credentials": {"crm": ` + c + `}}}}`
	}},
	{"handler", "inline-", func(c string) string {
		return jsonRoute(`{"handler": "upstream_auth", "inline": ` + c + `}`)
	}},
	{"transport", "inline-", func(c string) string {
		return jsonRoute(`{"handler": "reverse_proxy", "upstreams": [{"dial": "127.0.0.1:9000"}], "transport": {"protocol": "upstream_auth", "inline": ` + c + `}}`)
	}},
}

func jsonRoute(handler string) string {
	return `{"apps": {
		"http": {"servers": {"test": {"listen": ["127.0.0.1:8080"], "routes": [{"handle": [` + handler + `]}]}}},
		"upstream_auth": {"credentials": {"crm": {` + goodJSON + `}}}
	}}`
}

func TestBadCredentialJSON(t *testing.T) {
	with := func(options string) string { return "{" + goodJSON + ", " + options + "}" }
	without := func(client, method string) string {
		return `{"token_url": "https://idp.example.com/token"` + client + method + `}`
	}
	app, basic := `, "client_id": "app"`, `, "client_auth": {"method": "client_secret_basic", "secret": "`+testSecret+`"}`
	for _, row := range []badConfig{
		{"nothing", `{}`, []string{"token_url", "missing"}},
		{"no token_url", `{"client_id": "app", "client_auth": {"method": "none"}}`, []string{"token_url", "missing", "https"}},
		{"http token_url", `{"token_url": "http://idp.example.com/", "client_id": "app", "client_auth": {"method": "none"}}`, []string{"token_url", "idp.example.com", "https", "insecure_token_url"}},
		{"user in token_url", `{"token_url": "https://app:` + testSecret + `@idp.example.com/", "client_id": "app", "client_auth": {"method": "none"}}`, []string{"token_url", "user", "client_id"}},
		{"no client_id", without("", basic), []string{"client_id", "missing"}},
		{"no client_auth", without(app, ""), []string{"client_auth", "missing", "client_secret_basic", "client_secret_post", "none"}},
		{"null client_auth", without(app, `, "client_auth": null`), []string{"client_auth", "client_secret_basic", "client_secret_post", "none"}},
		{"client_auth without a method", without(app, `, "client_auth": {"secret": "`+testSecret+`"}`), []string{"client_auth", "method", "client_secret_basic", "none"}},
		{"unknown method", without(app, `, "client_auth": {"method": "bogus", "secret": "`+testSecret+`"}`), []string{"client_auth", "'bogus'", "client_secret_basic", "client_secret_post", "none"}},
		{"client_auth that is a word", without(app, `, "client_auth": "none"`), []string{"client_auth", "method"}},
		{"client_auth that is a list", without(app, `, "client_auth": [{"method": "none"}]`), []string{"client_auth", "method"}},
		{"method without a secret", without(app, `, "client_auth": {"method": "client_secret_basic"}`), []string{"client_auth", "client_secret_basic", "secret", "{file."}},
		{"post without a secret", without(app, `, "client_auth": {"method": "client_secret_post"}`), []string{"client_auth", "client_secret_post", "secret", "{file."}},
		{"secret with none", without(app, `, "client_auth": {"method": "none", "secret": "`+testSecret+`"}`), []string{"client_auth", "none", `"secret"`}},
		{"encoding", without(app, `, "client_auth": {"method": "client_secret_basic", "secret": "`+testSecret+`", "encoding": "utf8"}`), []string{"client_auth", "encoding", "'utf8'", "form", "raw"}},
		{"secret from the request", without(app, `, "client_auth": {"method": "client_secret_post", "secret": "{http.request.header.X}"}`), []string{"client_auth", "secret", "{http.request.header.X}"}},
		{"unknown grant", with(`"grant": {"type": "bogus"}`), []string{"grant", "'bogus'", "client_credentials"}},
		{"null grant", with(`"grant": null`), []string{"grant", "client_credentials"}},
		{"grant without a type", with(`"grant": {}`), []string{"grant", "type", "client_credentials"}},
		{"grant with an option", with(`"grant": {"type": "client_credentials", "bogus": 1}`), []string{"grant", "client_credentials", "bogus"}},
		{"refresh_at 0", with(`"refresh_at": 0`), []string{"refresh_at", "0%", "10%", "95%"}},
		{"refresh_at 5", with(`"refresh_at": 5`), []string{"refresh_at", "5%", "10%", "95%"}},
		{"refresh_at 96", with(`"refresh_at": 96`), []string{"refresh_at", "96%", "10%", "95%"}},
		{"refresh_at -1", with(`"refresh_at": -1`), []string{"refresh_at", "-1%", "10%", "95%"}},
		{"refresh_at as a share", with(`"refresh_at": 0.75`), []string{"refresh_at", "0.75%", "10%", "95%"}},
		{"refresh_at as text", with(`"refresh_at": "75%"`), []string{"refresh_at"}},
		{"timeout below the range", with(`"timeout": "1ms"`), []string{"timeout", "1ms", "100ms", "10m"}},
		{"timeout below zero", with(`"timeout": -1`), []string{"timeout", "100ms", "10m"}},
		{"timeout above the range", with(`"timeout": "1h"`), []string{"timeout", "1h", "100ms", "10m"}},
		{"timeout that is none", with(`"timeout": "soon"`), []string{"soon"}},
		{"expiry_margin above the range", with(`"expiry_margin": "2h"`), []string{"expiry_margin", "2h", "1ms", "1h"}},
		{"default_lifetime below the range", with(`"default_lifetime": "10ms"`), []string{"default_lifetime", "10ms", "1s", "24h"}},
		{"reserved param", with(`"param": {"grant_type": ["x"]}`), []string{"param", "'grant_type'", "request"}},
		{"param of the method", with(`"param": {"client_secret": ["` + testSecret + `"]}`), []string{"param", "'client_secret'", "client_auth"}},
		{"param without a name", with(`"param": {"": ["x"]}`), []string{"param", "name"}},
		{"scope", with(`"scopes": ["read write"]`), []string{"scopes", "'read write'"}},
		{"resource", with(`"resource": ["nowhere"]`), []string{"resource", "'nowhere'"}},
		{"request method", with(`"request": {"method": "PUT"}`), []string{"request", "method", "'PUT'", "GET", "POST"}},
		{"request body", with(`"request": {"body": "xml"}`), []string{"request", "body", "'xml'", "form"}},
		{"request header", with(`"request": {"header": {"Host": "x"}}`), []string{"request", "header", "'Host'"}},
		{"response unit", with(`"response": {"expires_unit": "h"}`), []string{"response", "expires_unit", "'h'", "ms"}},
		{"tls cert without a key", with(`"tls": {"cert": "/x"}`), []string{"tls", "cert", "key"}},
		{"proxy", with(`"proxy": "proxy.example.com:3128"`), []string{"proxy", "http", "socks5"}},
		{"request placeholder", `{"token_url": "https://idp.example.com/token", "client_id": "{http.request.host}", "client_auth": {"method": "none"}}`, []string{"client_id", "{http.request.host}"}},
		{"placeholder of a later time", with(`"audience": "{http.reverse_proxy.upstream.host}"`), []string{"audience", "{http.reverse_proxy.upstream.host}", "not allowed"}},
		{"unknown placeholder", with(`"audience": "{foo}"`), []string{"audience", "{foo}", "{env.*}"}},
		{"unknown field", with(`"bogus": 1`), []string{"bogus", "unknown field"}},
		{"unknown field of request", with(`"request": {"bogus": 1}`), []string{"bogus", "unknown field"}},
	} {
		for _, place := range jsonPlaces {
			t.Run(row.name+"/"+place.name, func(t *testing.T) {
				want := row.want
				if !slices.Contains(want, "unknown field") && !strings.Contains(row.name, "as text") && !strings.Contains(row.name, "that is none") {
					want = append(slices.Clone(want), "credential '"+place.credential) // what cannot be decoded has none yet
				}
				loadFails(t, place.config(row.text), want...)
			})
		}
	}
}

func loadFails(t *testing.T, config string, want ...string) {
	t.Helper()
	log, refused := validateJSON(t, []byte(config))
	if refused == nil {
		t.Fatalf("it loads:\n%s", config)
	}
	checkMessage(t, refused, want...)
	checkLog(t, log)
}

func TestBadAppJSON(t *testing.T) {
	for _, row := range []badConfig{
		{"null credential", `{"apps": {"upstream_auth": {"credentials": {"crm": null}}}}`, []string{"'crm'", "null"}},
		{"invalid name", `{"apps": {"upstream_auth": {"credentials": {"crm/1": {` + goodJSON + `}}}}}`, []string{"'crm/1'", "letters"}},
		{"empty name", `{"apps": {"upstream_auth": {"credentials": {"": {` + goodJSON + `}}}}}`, []string{"name", "letters"}},
		{"name of one written in place", `{"apps": {"upstream_auth": {"credentials": {"inline-1": {` + goodJSON + `}}}}}`, []string{"'inline-1'", "inline-"}},
		{"unknown field", `{"apps": {"upstream_auth": {"bogus": 1}}}`, []string{"bogus", "unknown field"}},
		{"one good and one bad", `{"apps": {"upstream_auth": {"credentials": {"a": {` + goodJSON + `}, "crm": {}}}}}`, []string{"'crm'", "token_url"}},
	} {
		t.Run(row.name, func(t *testing.T) { loadFails(t, row.text, row.want...) })
	}
}

func TestBadRouteJSON(t *testing.T) {
	for _, row := range []badConfig{
		{"named and in place", `"credential": "crm", "inline": {` + goodJSON + `}`, []string{"credential", "'crm'", "one of the two"}},
		{"neither", `"wait": "1s"`, []string{"credential", "missing"}},
		{"null in place", `"inline": null`, []string{"credential", "missing"}},
		{"unknown credential", `"credential": "erp"`, []string{"'erp'", "not defined", "crm"}},
		{"credential written in place elsewhere", `"credential": "inline-0123abcd"`, []string{"inline-0123abcd"}},
		{"header", `"credential": "crm", "header": "Host"`, []string{"crm", "header", "'Host'"}},
		{"scheme", `"credential": "crm", "scheme": "a b"`, []string{"crm", "'a b'", "scheme"}},
		{"client_authorization", `"credential": "crm", "client_authorization": "drop"`, []string{"crm", "client_authorization", "'drop'", "replace", "keep", "reject"}},
		{"unavailable", `"credential": "crm", "unavailable": "wait"`, []string{"crm", "unavailable", "'wait'", "reject", "pass"}},
		{"wait below zero", `"credential": "crm", "wait": -1`, []string{"crm", "wait", "out of range"}},
		{"wait too long", `"credential": "crm", "wait": "11m"`, []string{"crm", "wait", "11m", "10m"}},
		{"unknown field", `"credential": "crm", "bogus": 1`, []string{"bogus", "unknown field"}},
		{"credential's option outside", `"credential": "crm", "token_url": "https://idp.example.com/"`, []string{"token_url", "unknown field"}},
	} {
		t.Run(row.name+"/handler", func(t *testing.T) {
			loadFails(t, jsonRoute(`{"handler": "upstream_auth", `+row.text+`}`), row.want...)
		})
		t.Run(row.name+"/transport", func(t *testing.T) {
			loadFails(t, jsonTransport(`"127.0.0.1:9000"`, row.text), row.want...)
		})
	}
	t.Run("unknown credential without an app", func(t *testing.T) {
		handler := `{"handler": "upstream_auth", "credential": "erp"}`
		loadFails(t, `{"apps": {"http": {"servers": {"test": {"listen": ["127.0.0.1:8080"], "routes": [{"handle": [`+handler+`]}]}}}}}`, "'erp'", "not defined", "none is")
	})
	for _, row := range []struct {
		name, dial, text string
		want             []string
	}{
		{"http upstream", `"api.example.com:80"`, `"credential": "crm"`, []string{"crm", "api.example.com", "insecure_upstream"}},
		{"dynamic upstreams", "", `"credential": "crm", "http": {"tls": {}}`, []string{"crm", "upstreams", "dynamic"}},
		{"placeholder", `"{http.request.host}:443"`, `"credential": "crm", "http": {"tls": {}}`, []string{"crm", "upstreams", "{http.request.host}"}},
		{"certificate that is not verified", `"127.0.0.1:443"`, `"credential": "crm", "http": {"tls": {"insecure_skip_verify": true}}`, []string{"crm", "tls_insecure_skip_verify", "insecure_upstream"}},
		{"plaintext through a proxy", `"127.0.0.1:80"`, `"credential": "crm", "http": {"network_proxy": {"from": "url", "url": "http://127.0.0.1:3128"}}`, []string{"crm", "proxy", "insecure_upstream"}},
		{"plaintext through a forward proxy", `"127.0.0.1:80"`, `"credential": "crm", "http": {"forward_proxy_url": "http://127.0.0.1:3128"}`, []string{"crm", "proxy", "insecure_upstream"}},
		{"upstreams", `"127.0.0.1:80"`, `"credential": "crm", "upstreams": ["https://api.example.com"]`, []string{"crm", "upstreams", "'https://api.example.com'", "host"}},
		{"health_checks", `"127.0.0.1:80"`, `"credential": "crm", "health_checks": "yes"`, []string{"crm", "health_checks", "'yes'", "on", "off"}},
		{"Caddy's options not under http", `"127.0.0.1:443"`, `"credential": "crm", "tls": {}`, []string{"tls", "unknown field"}},
	} {
		t.Run(row.name, func(t *testing.T) { loadFails(t, jsonTransport(row.dial, row.text), row.want...) })
	}
}

// TestInlineNameIsNoReference: what a credential written in place is called is
// for logs and metrics; a route that names it would load or not by the order.
func TestInlineNameIsNoReference(t *testing.T) {
	const options = `{"token_url": "https://idp.example.com/", "client_id": "app", "client_auth": {"method": "none"}}`
	credential := new(Credential)
	if err := caddy.StrictUnmarshalJSON([]byte(options), credential); err != nil {
		t.Fatal(err)
	}
	hash, err := fingerprint(credential)
	if err != nil {
		t.Fatal(err)
	}
	name := inlinePrefix + hash[:8]
	inPlace := `{"handler": "upstream_auth", "inline": ` + options + `}`
	named := `{"handler": "upstream_auth", "credential": "` + name + `"}`
	for order, routes := range map[string]string{"before": named + "," + inPlace, "after": inPlace + "," + named} {
		t.Run(order, func(t *testing.T) { loadFails(t, jsonRoute(routes), "'"+name+"'") })
	}
}

// jsonTransport is a config with a reverse proxy, to dynamic upstreams if no
// address is given.
func jsonTransport(dial, options string) string {
	upstreams := `"upstreams": [{"dial": ` + dial + `}]`
	if dial == "" {
		upstreams = `"dynamic_upstreams": {"source": "a", "name": "api.example.com", "port": "443"}`
	}
	return jsonRoute(`{"handler": "reverse_proxy", ` + upstreams + `, "transport": {"protocol": "upstream_auth", ` + options + `}}`)
}

// TestGoodNeighbours are the last values that are right, next to those above
// that are wrong: they adapt everywhere, and load.
func TestGoodNeighbours(t *testing.T) {
	tooLongButOne := strings.Repeat("a", 64)
	for _, options := range []string{
		"", "refresh_at 10%", "refresh_at 10", "refresh_at 95%", "refresh_at 95", "refresh_at 75.5%",
		"expiry_margin 1ms", "expiry_margin 1h", "default_lifetime 1s", "default_lifetime 24h", "default_lifetime 1d",
		"timeout 100ms", "timeout 10m", "timeout 0.5s",
		"scopes a", `scopes !#[]~ https://api.example.com/.default {env.SCOPE}`,
		"resource urn:a", "resource https://a.example.com/?q=1 {env.R}", "resource a:b\nresource c:d",
		`param a ""`, "param a 1\nparam a 2", "param client_assertion x", "param Scope x", "param tenant {env.T}",
		"request {\nmethod GET\n}", "request {\nmethod GET\nbody query\n}", "request {\nmethod POST\nbody query\n}", "request {\nbody json\n}",
		"request {\nheader X-A 1\nheader X-B 2\nrename a b\nrename c d\ngrant_type {env.G}\n}",
		"response {\nexpires_unit s\n}", "response {\naccess_token a.b.c\n}",
		"tls {\ncert /x\nkey /y\n}", "tls {\ninsecure_skip_verify\n}",
		"proxy http://proxy:3128", "proxy https://proxy", "proxy socks5://[::1]:1080", "proxy socks5h://u:" + testSecret + "@proxy:1080", "proxy {env.PROXY}",
		"grant client_credentials", "insecure_token_url",
	} {
		for _, place := range credentialPlaces {
			t.Run(strings.ReplaceAll(strings.Join(strings.Fields(options), " "), "/", "|")+"/"+place.name, func(t *testing.T) {
				loads(t, place.config(good+options))
			})
		}
	}
	for _, credential := range []string{
		"token_url https://idp.example.com\n" + clientID + clientAuth,
		"token_url HTTPS://IDP.example.com:8443/token?a=b\n" + clientID + clientAuth,
		"token_url http://127.0.0.1/\n" + clientID + clientAuth,
		"token_url http://127.255.0.1:8080/\n" + clientID + clientAuth,
		"token_url http://[::1]/\n" + clientID + clientAuth,
		"token_url http://[::ffff:127.0.0.1]/\n" + clientID + clientAuth,
		"token_url http://localhost/\n" + clientID + clientAuth,
		"token_url http://LOCALHOST.:80/\n" + clientID + clientAuth,
		"token_url {env.URL}\n" + clientID + clientAuth,
		"token_url http://{env.HOST}/\n" + clientID + clientAuth,
		"token_url http://idp.example.com/\ninsecure_token_url\n" + clientID + clientAuth,
		"token_url http://127.0.0.1/\nproxy http://127.0.0.1:3128\ninsecure_token_url\n" + clientID + clientAuth,
		tokenURL + "client_id {env.ID}\n" + clientAuth,
		tokenURL + clientID + "client_auth none",
		tokenURL + clientID + "client_auth client_secret_post {env.S}",
		tokenURL + clientID + "client_auth client_secret_post {file./run/secrets/s}",
		tokenURL + clientID + "client_auth client_secret_basic \"p+a%s/w=d &!~:x\" {\nencoding raw\n}",
		tokenURL + clientID + `client_auth client_secret_basic a\{b\}c`,
		tokenURL + clientID + "client_auth client_secret_basic {$NOT_SET:" + testSecret + "}",
		tokenURL + clientID + "client_auth none\nparam client_secret x",
	} {
		for _, place := range credentialPlaces {
			t.Run(strings.ReplaceAll(strings.Join(strings.Fields(credential), " "), "/", "|")+"/"+place.name, func(t *testing.T) { loads(t, place.config(credential)) })
		}
	}
	for _, options := range []string{
		"header X-Token", "header x-token Token", `header Authorization ""`, "header Authorization DPoP", "header Cookie",
		"client_authorization replace", "client_authorization keep", "client_authorization reject", "unavailable reject", "unavailable pass",
		"wait 0", "wait 0s", "wait 10m",
	} {
		for _, place := range routePlaces {
			t.Run(options+"/"+place.name, func(t *testing.T) { loads(t, place.config("crm", options)) })
		}
	}
	for _, name := range []string{"a", "0", "A.b_c-d", tooLongButOne, "inline", "credential", "inlined-1"} {
		t.Run("name "+name, func(t *testing.T) {
			loads(t, "{\nupstream_auth {\ncredential "+name+" {\n"+good+"}\n}\n}\nhttp://127.0.0.1:8080 {\nupstream_auth "+name+"\n}\n")
		})
	}
	proxy := func(upstreams, options string) string {
		return definesCRM + "http://127.0.0.1:8080 {\nreverse_proxy " + upstreams + " {\ntransport upstream_auth crm {\n" + options + "\n}\n}\n}\n"
	}
	for _, config := range []string{
		proxy(":9000", ""), proxy("tcp4/127.0.0.1:9000", ""), // both are dialled on the loopback interface
		proxy("127.0.0.1:9000", ""), proxy("[::1]:9000", ""), proxy("localhost:9000", ""), proxy("unix//run/api.sock", ""),
		proxy("https://api.example.com", ""), proxy("http://127.0.0.1:9000", ""),
		proxy("http://api.example.com", "insecure_upstream"), proxy("h2c://127.0.0.1:9000", ""),
		proxy("https://api.example.com", "http {\ntls_insecure_skip_verify\n}\ninsecure_upstream"),
		proxy("{env.UPSTREAM}", "upstreams *.example.com\nhttp {\ntls\n}"),
		proxy("", "upstreams api.example.com\nhttp {\ntls\n}\n}\ndynamic a api.example.com 443 {\n"),
		proxy("https://api.example.com", "http {\nnetwork_proxy url http://127.0.0.1:3128\n}"),
		proxy("127.0.0.1:9000", "insecure_upstream\nhttp {\nnetwork_proxy url http://127.0.0.1:3128\n}"),
		proxy("127.0.0.1:9000", "upstreams crm.example.com *.example.com 127.0.0.1 127.0.0.1:9000 [::1]:443 ::1 CRM.example.com. crm"),
	} {
		name := strings.Join(strings.Fields(strings.TrimPrefix(config, definesCRM)), " ")
		t.Run(strings.ReplaceAll(name, "/", "|"), func(t *testing.T) { loads(t, config) })
	}
}

// loads adapts and loads a Caddyfile, and takes it through its JSON.
func loads(t *testing.T, config string) {
	t.Helper()
	adapted, _, err := adaptText(config)
	if err != nil {
		t.Fatalf("%v\n%s", err, numbered(config))
	}
	if _, err := roundTrip(adapted); err != nil {
		t.Error(err)
	}
	log, refused := validateJSON(t, adapted)
	if refused != nil {
		t.Errorf("%v\n%s", refused, numbered(config))
	}
	checkLog(t, log)
}

// TestLiteralSecretIsWarnedAbout: accepted, with a warning that names the
// credential and what to write instead, and not the secret.
func TestLiteralSecretIsWarnedAbout(t *testing.T) {
	for _, row := range []struct {
		secret string
		warned bool
	}{{testSecret, true}, {"{env.SECRET}", false}, {"{file./run/secrets/crm}", false}} {
		for _, method := range []string{"client_secret_basic", "client_secret_post"} {
			adapted, _, err := adaptText("{\nupstream_auth {\ncredential crm {\n" + tokenURL + clientID + "client_auth " + method + " " + row.secret + "\n}\n}\n}\n")
			if err != nil {
				t.Fatal(err)
			}
			log, refused := validateJSON(t, adapted)
			if refused != nil {
				t.Error(refused)
			}
			checkLog(t, log)
			warned := false
			for line := range strings.Lines(log) {
				warned = warned || strings.Contains(line, `"warn"`) && strings.Contains(line, `"credential":"crm"`) && strings.Contains(line, "{file./") && strings.Contains(line, "{env.")
			}
			if warned != row.warned {
				t.Errorf("%s %s: warned is %v, expected %v:\n%s", method, row.secret, warned, row.warned, log)
			}
		}
	}
}

// TestThirdParty: others add a grant and a method by the interfaces alone, and
// what those set is protected as what our own set.
func TestThirdParty(t *testing.T) {
	for _, place := range credentialPlaces {
		t.Run("good/"+place.name, func(t *testing.T) {
			loads(t, place.config(tokenURL+clientID+"grant test_grant\nclient_auth test_method"))
		})
		t.Run("no client_auth is none/"+place.name, func(t *testing.T) { loads(t, place.config(tokenURL+clientID+"grant test_grant")) })
		t.Run("param of the grant/"+place.name, func(t *testing.T) {
			adaptFails(t, place.config(good+"grant test_grant\nparam of_grant x "+mark), "param", "'of_grant'", "set by", "test_grant")
		})
		t.Run("param of the method/"+place.name, func(t *testing.T) {
			adaptFails(t, place.config(tokenURL+clientID+"client_auth test_method\nparam of_method x "+mark), "param", "'of_method'", "set by", "client_auth")
		})
		t.Run("param of none, which is implied/"+place.name, func(t *testing.T) {
			adaptFails(t, place.config(tokenURL+clientID+"grant test_grant\nparam client_id x "+mark), "param", "'client_id'", "set by")
		})
		t.Run("no grant/"+place.name, func(t *testing.T) {
			adaptFails(t, place.config(good+"grant test_no_grant "+mark), "grant", "not a grants.Grant")
		})
		t.Run("no method/"+place.name, func(t *testing.T) {
			adaptFails(t, place.config(tokenURL+clientID+"client_auth test_no_method "+mark), "client_auth", "not a clientauth.Method")
		})
	}
	for _, place := range jsonPlaces {
		t.Run("no grant in JSON/"+place.name, func(t *testing.T) {
			loadFails(t, place.config("{"+goodJSON+`, "grant": {"type": "test_no_grant"}}`), "grant", "not a grants.Grant", "credential '"+place.credential)
		})
		t.Run("no method in JSON/"+place.name, func(t *testing.T) {
			loadFails(t, place.config(`{"token_url": "https://idp.example.com/", "client_id": "app", "client_auth": {"method": "test_no_method"}}`), "client_auth", "not a clientauth.Method", "credential '"+place.credential)
		})
	}
}

func init() {
	caddy.RegisterModule(testGrant{})
	caddy.RegisterModule(testMethod{})
	caddy.RegisterModule(testNoGrant{})
	caddy.RegisterModule(testNoMethod{})
}

// testGrant is a third party's grant.
type testGrant struct{}

func (testGrant) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "upstream_auth.grants.test_grant", New: func() caddy.Module { return new(testGrant) }}
}

func (testGrant) GrantType() string                              { return "urn:example:test" }
func (testGrant) Parameters() []string                           { return []string{"of_grant"} }
func (testGrant) Prepare(context.Context, *grants.Request) error { return nil }

func (testGrant) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

// testMethod is a third party's client authentication.
type testMethod struct{}

func (testMethod) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "upstream_auth.client_auth.test_method", New: func() caddy.Module { return new(testMethod) }}
}

func (testMethod) Parameters() []string                                    { return []string{"of_method"} }
func (testMethod) Authenticate(context.Context, *clientauth.Request) error { return nil }

func (testMethod) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

// testNoGrant stands among the grants and is none.
type testNoGrant struct{}

func (testNoGrant) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "upstream_auth.grants.test_no_grant", New: func() caddy.Module { return new(testNoGrant) }}
}

func (testNoGrant) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

// testNoMethod stands among the methods and is none.
type testNoMethod struct{}

func (testNoMethod) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "upstream_auth.client_auth.test_no_method", New: func() caddy.Module { return new(testNoMethod) }}
}

func (testNoMethod) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}
