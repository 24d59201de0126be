package caddymodule

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// TestProvisionCredential: one credential of a config is loaded, whatever else
// the config has.
func TestProvisionCredential(t *testing.T) {
	const (
		crm  = `{"token_url":"https://idp.example.com/token","client_id":"app","grant":{"type":"authorization_code","authorization_url":"https://idp.example.com/authorize"}}`
		with = `{"apps":{"upstream_auth":{"credentials":{"crm":%s}}%s}%s}`
	)
	for name, tc := range map[string]struct {
		config, credential, says string
	}{
		"alone":                 {config: fmt.Sprintf(with, crm, "", "")},
		"an id":                 {config: fmt.Sprintf(with, strings.Replace(crm, "{", `{"@id":"crm",`, 1), `,"@id":"app"`, "")},
		"another app is broken": {config: fmt.Sprintf(with, crm, `,"http":{"servers":{"a":{"listen":["256.0.0.1:x"],"routes":[{"handle":[{"handler":"nonsense"}]}]}}},"nonsense":{}`, "")},
		"logs that cannot be written": {
			config: fmt.Sprintf(with, crm, "", `,"logging":{"logs":{"default":{"writer":{"output":"file","filename":"/nonexistent/caddy.log"}}}}`),
		},
		"an admin API in use":          {config: fmt.Sprintf(with, crm, "", `,"admin":{"listen":"256.0.0.1:x"}`)},
		"another credential is broken": {config: fmt.Sprintf(with, crm+`,"erp":{"token_url":"nonsense"}`, "", "")},
		"broken":                       {config: fmt.Sprintf(with, `{"token_url":"nonsense"}`, "", ""), says: "credential 'crm': "},
		"null":                         {config: fmt.Sprintf(with, "null", "", ""), says: "credential 'crm' is null"},
		"unknown":                      {config: fmt.Sprintf(with, crm+`,"erp":{}`, "", ""), credential: "hr", says: "credential 'hr' is not defined; defined are: crm, erp"},
		"in another's place":           {config: fmt.Sprintf(with, crm, "", ""), credential: "inline-00000000", says: "credential 'inline-00000000' is not defined; defined are: crm"},
		"no credentials":               {config: `{"apps":{"upstream_auth":{}}}`, says: "credential 'crm' is not defined; none is: define it in the global options"},
		"no app":                       {config: `{"apps":{"http":{}}}`, says: "none is"},
		"nothing":                      {config: `{}`, says: "none is"},
		"null config":                  {config: `null`, says: "none is"},
		"a null app":                   {config: `{"apps":{"upstream_auth":null}}`, says: "none is"},
		"no object":                    {config: `[]`, says: "decoding the configuration: "},
		"an unknown option": {
			config: fmt.Sprintf(with, `{"token_uri":"https://idp.example.com/token"}`, "", ""), says: `decoding the configuration: `,
		},
		"an unknown storage": {config: fmt.Sprintf(with, crm, "", `,"storage":{"module":"nonsense"}`), says: "nonsense"},
		"a key that is none": {
			config: `{"apps":{"upstream_auth":{"encryption_keys":["c2hvcnQ="],"credentials":{"crm":` + crm + `}}}}`, says: "encryption_key: key 1 of 1 has 5 bytes",
		},
		"a key that is not there": {
			config: `{"apps":{"upstream_auth":{"encryption_keys":["{env.NO_SUCH_KEY}"],"credentials":{"crm":` + crm + `}}}}`, says: "encryption_key: ",
		},
		"a template": {
			config: fmt.Sprintf(with, strings.Replace(crm, `"client_id"`, `"scopes":["{http.request.header.X-Tenant}"],"client_id"`, 1), "", ""),
			says:   "can hold no placeholder of a request",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.credential == "" {
				tc.credential = "crm"
			}
			c, err := provisionCredential([]byte(tc.config), tc.credential)
			if err == nil {
				c.close()
			}
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("got %v, want an error that says %q", err, tc.says)
			}
			(&parts{t: t}).nothingLeft()
		})
	}
}

// TestLoginConfigs: the config is found, adapted and used as caddy run does it,
// with its environment and its storage.
func TestLoginConfigs(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	dir := t.TempDir()
	storage := filepath.Join(dir, "data", "caddy") // where Caddy's data is, by default
	caddyfile := p.loginConfig()
	caddyfile = strings.NewReplacer("storage file_system "+p.storage, "", "{env."+secretEnv+"}", "{env.TEST_LOGIN_SECRET}",
		"upstream_auth {\n", "upstream_auth {\nencryption_key {env.TEST_LOGIN_KEY}\n").Replace(caddyfile)
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := write("one.env", "# both\nexport TEST_LOGIN_SECRET=\""+oddSecret+"\"\nXDG_DATA_HOME="+filepath.Join(dir, "data")+"\n")
	two := write("two.env", "TEST_LOGIN_KEY='MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=' # 32 bytes\n")
	for name, args := range map[string][]string{
		"a Caddyfile":       {"--config", write("Caddyfile", caddyfile)},
		"another name":      {"--config", write("config.txt", caddyfile), "--adapter", "caddyfile"},
		"JSON":              {"--config", write("caddy.json", string(adapted))},
		"one in the folder": nil,
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.RemoveAll(storage); err != nil {
				t.Fatal(err)
			}
			c := p.prepare(append([]string{"upstream-auth", "login", "crm", "--no-browser", "--envfile", one, "--envfile", two}, args...)...)
			if args == nil {
				c.cmd.Dir = dir
			}
			c.start()
			browse(t, c.address())
			text := c.wait(true)
			if !strings.Contains(text, "stored in the folder "+storage) || p.tellsNothing(text) != nil || strings.Contains(text, "kept unsealed") {
				t.Errorf("got %s", text)
			}
			files, err := filepath.Glob(filepath.Join(storage, "upstream_auth", "crm", "*.json"))
			if err != nil || len(files) != 1 {
				t.Fatalf("stored are %v, %v", files, err)
			}
			content, err := os.ReadFile(files[0])
			if err != nil || strings.Contains(string(content), "rt-") || !strings.Contains(string(content), "sealed") {
				t.Errorf("stored is %s, %v", content, err)
			}
			if _, err := os.Stat(p.log); !os.IsNotExist(err) {
				t.Errorf("the login writes into the log of the config: %v", err)
			}
		})
	}
}

// envFiles are files of environment variables, good ones and bad ones.
var envFiles = []string{
	"A=1\nB=2\n",
	"# comment\n\n  \n  A=1  \n",
	"A=1 # comment\nB=2#3\nC=#\nD= \nE=",
	"export A=1\nexport  B=2\n",
	`A="x y"` + "\n" + `B='x y'` + "\n" + `C="x"y"` + "\n",
	`A="x # y"` + "\nB=2\n",
	`A="one` + "\n" + `two"` + "\nB=2\n",
	`A='one` + "\n\n" + `# two` + "\n" + `three'` + "\nB=2\n",
	`A="a \"b\" c"` + "\n" + `B="a \"b` + "\n" + `c\""` + "\nC=3\n",
	`A="never ends` + "\nB=2",
	`A="` + "\nB=2\n",
	`A=""` + "\n" + `B=''` + "\n",
	"A=1\nA=2\n",
	"A=a=b==\n",
	"A\n",
	"=1\n",
	"A B=1\n",
	"A =1\n",
	"A= 1\n",
	"A=\t1\n",
	"A=1\r\nB=2\r\n",
	"A=ünïcode\n",
}

// TestParseEnvFile: a file gives what it gives to caddy run.
func TestParseEnvFile(t *testing.T) {
	names := []string{"A", "B", "C", "D", "E"}
	for _, name := range names {
		t.Setenv(name, "") // and back at the end
	}
	storage, autosave, stdout := caddy.DefaultStorage, caddy.ConfigAutosavePath, os.Stdout
	nothing, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout = nothing // environ prints all of it
	defer func() {
		caddy.DefaultStorage, caddy.ConfigAutosavePath, os.Stdout = storage, autosave, stdout
		_ = nothing.Close()
	}()
	for _, content := range envFiles {
		for _, name := range names {
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
		cmd := new(cobra.Command)
		caddycmd.Commands()["environ"].CobraFunc(cmd)
		if err := cmd.ParseFlags([]string{"--envfile", writeFile(t, "env", []byte(content))}); err != nil {
			t.Fatal(err)
		}
		caddys := cmd.RunE(cmd, nil)
		values, err := parseEnvFile(strings.NewReader(content))
		if (err == nil) != (caddys == nil) {
			t.Errorf("%q: got %v, Caddy has %v", content, err, caddys)
		}
		for _, name := range names {
			want, wantSet := os.LookupEnv(name)
			if got, set := values[name]; err == nil && (set != wantSet || got != want) {
				t.Errorf("%q: %s is %q, Caddy has %q", content, name, got, want)
			}
		}
	}
}

// TestLoadEnvFile: what the environment has already stays, and no error repeats
// a value.
func TestLoadEnvFile(t *testing.T) {
	storage := caddy.DefaultStorage
	defer func() { caddy.DefaultStorage = storage }()
	data := t.TempDir()
	t.Setenv("TEST_ENV_A", "mine")
	t.Setenv("TEST_ENV_B", "")
	t.Setenv("XDG_DATA_HOME", "")
	for _, name := range []string{"TEST_ENV_B", "XDG_DATA_HOME"} {
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := loadEnvFile(writeFile(t, "env", []byte("TEST_ENV_A=theirs\nTEST_ENV_B=theirs\nXDG_DATA_HOME="+data+"\n"))); err != nil {
		t.Fatal(err)
	}
	if a, b := os.Getenv("TEST_ENV_A"), os.Getenv("TEST_ENV_B"); a != "mine" || b != "theirs" {
		t.Errorf("got %q and %q", a, b)
	}
	if got, want := placeOf(caddy.DefaultStorage), "the folder "+filepath.Join(data, "caddy"); got != want {
		t.Errorf("the storage is %s, want %s", got, want)
	}
	for _, content := range []string{"A=1\nhunter2", "A= hunter2", "hunter2 B=1", "A=1\x00\nhunter2"} {
		path := writeFile(t, "env", []byte(content))
		if err := loadEnvFile(path); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), path+": line ") {
			t.Errorf("got %v", err)
		}
	}
}

// FuzzParseEnvFile: no content is too odd, and no error repeats one.
func FuzzParseEnvFile(f *testing.F) {
	for _, content := range envFiles {
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content string) {
		values, err := parseEnvFile(strings.NewReader(content))
		if err != nil {
			if strings.Contains(content, "hunter2") && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a value is shown: %v", err)
			}
			return
		}
		for name := range values {
			if name == "" || strings.ContainsAny(name, " =\n") {
				t.Errorf("a variable is called %q", name)
			}
		}
	})
}
