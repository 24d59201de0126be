package browser

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// shown is a state, how it comes about, and what the page says of it.
type shown struct {
	name       string // of its pictures
	credential credential
	cause      func(p *proxy, c *credential)
	state      string
	word       string
	level      string
	headline   string
	says       []string // among much else
}

// refuse is an answer as RFC 6749 §5.2 has it for a client that is refused.
func refuse(code string) authserver.Fault {
	return authserver.Raw(http.StatusUnauthorized, "application/json", `{"error":`+quote(code)+`,"error_description":"not told to others"}`)
}

// allStates are caused one by one, each in a Caddy of its own.
func allStates() []shown {
	return []shown{
		{
			name:       "starting",
			credential: credential{fault: authserver.Hang(), lines: []string{"timeout 5m"}},
			state:      "starting", word: "Starting", level: "wait", headline: "Starting",
			says: []string{"The credential holds no valid token", "its answer is still awaited", "under way", "none yet", "never"},
		}, {
			name:       "ok",
			credential: credential{config: authserver.Config{Lifetime: time.Hour}, lines: []string{"scopes read write"}},
			cause: func(p *proxy, c *credential) {
				p.await(c.name, "ok")
				p.traffic(c.name, 40)
			},
			state: "ok", word: "OK", level: "good", headline: "All is well",
			says: []string{"The credential holds a valid token", "The token is valid for", "requests, none turned away", "token request, none failed", "token obtained", "obtained", "renewed at", "used until"},
		}, {
			name:       "failing",
			credential: credential{config: authserver.Config{Lifetime: 2 * time.Minute}, lines: []string{"refresh_at 10%"}},
			cause: func(p *proxy, c *credential) {
				p.await(c.name, "ok")
				p.traffic(c.name, 40)
				_ = c.listener.Close()
				p.refresh(c.name, http.StatusBadGateway)
			},
			state: "failing", word: "Failing", level: "warn", headline: "Ready, and crm needs attention",
			says: []string{"the token held serves for another", "What is wrong", "What to do", "refused", "Failures in a row", "requests, none turned away"},
		}, {
			name:       "unavailable",
			credential: credential{config: authserver.Config{Lifetime: 3 * time.Second}},
			cause: func(p *proxy, c *credential) {
				p.await(c.name, "ok")
				p.traffic(c.name, 40)
				c.server.SetFault(refuse("invalid_client"))
				p.await(c.name, "unavailable")
				p.requests(c.name, 15)
			},
			state: "unavailable", word: "No token", level: "bad", headline: "Not ready: crm has no valid token",
			says: []string{"requests are turned away", "invalid_client", "What is wrong", "What to do", "15 turned away", "ended at"},
		}, {
			name:       "expired",
			credential: credential{config: authserver.Config{Lifetime: 3 * time.Second}, lines: []string{"timeout 5m"}},
			cause: func(p *proxy, c *credential) {
				p.await(c.name, "ok")
				p.traffic(c.name, 40)
				c.server.SetFault(authserver.Hang())
				p.await(c.name, "expired")
			},
			state: "expired", word: "Expired", level: "bad", headline: "Not ready: crm has no valid token",
			says: []string{"The token has expired, and another one is being asked for", "ended at", "under way"},
		}, {
			name: "rejected",
			// at a server that hands out the running token, so that it stays refused
			credential: credential{config: authserver.Config{Lifetime: time.Hour, RunningToken: true}},
			cause: func(p *proxy, c *credential) {
				p.await(c.name, "ok")
				p.traffic(c.name, 30)
				c.api.SetFault(authserver.Status(http.StatusUnauthorized, "WWW-Authenticate", "Bearer"))
				p.requests(c.name, 10)
			},
			state: "rejected", word: "Refused upstream", level: "warn", headline: "Ready, and crm needs attention",
			says: []string{"An upstream refuses the token", "by an upstream"},
		}, {
			name:       "login_required",
			credential: credential{config: authserver.Config{RefreshTokens: true}, lines: []string{"grant authorization_code {", "redirect_uri http://127.0.0.1:8400/callback", "authorization_url http://127.0.0.1:9001/authorize", "}"}},
			state:      "login_required", word: "Login required", level: "bad", headline: "Not ready: crm has no valid token",
			says: []string{"caddy upstream-auth login crm", "What to do", "none that the server takes"},
		}, {
			name:       "storage_unavailable",
			credential: credential{config: authserver.Config{RefreshTokens: true, Rotate: authserver.RotateAlways, Lifetime: time.Hour}, lines: []string{"grant refresh_token {file.$DIR/refresh-token}"}},
			cause: func(p *proxy, c *credential) {
				storage := filepath.Join(p.dir, "storage")
				p.await(c.name, "ok")
				p.traffic(c.name, 40)
				if err := os.Rename(storage, storage+".away"); err != nil {
					p.t.Fatal(err)
				}
				if err := os.WriteFile(storage, nil, 0o600); err != nil { // so that not even root can write there
					p.t.Fatal(err)
				}
				p.refresh(c.name, http.StatusBadGateway)
			},
			state: "storage_unavailable", word: "Storage unavailable", level: "warn", headline: "Ready, and crm needs attention",
			says: []string{"the token held serves for another", "storage", "What to do"},
		}, {
			name:       "template",
			credential: credential{config: authserver.Config{Lifetime: time.Hour}, lines: []string{"param tenant {header.X-Tenant}", "max_tokens 50"}},
			cause: func(p *proxy, c *credential) {
				p.traffic(c.name, 28, "X-Tenant", "red")
				p.requests(c.name, 1, "X-Tenant", "green")
				p.requests(c.name, 1, "X-Tenant", "blue")
			},
			state: "ok", word: "OK", level: "good", headline: "All is well",
			says: []string{"No credential has to hold a token", "3 held, of 50 at most", "does not count", "requests, none turned away"},
		}, {
			name:       "unused",
			credential: credential{config: authserver.Config{Lifetime: time.Hour}, unused: true},
			state:      "ok", word: "OK", level: "good", headline: "All is well",
			says: []string{"does not count", "no requests"},
		},
	}
}

// TestStates: each state is seen by its words and by its role, is readable in
// light and dark, at each width, without script, and loads nothing.
func TestStates(t *testing.T) {
	t.Parallel()
	for _, s := range allStates() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c := s.credential
			c.name = "crm"
			p := startProxy(t, &c)
			if s.cause != nil {
				s.cause(p, &c)
			}
			p.await(c.name, s.state)
			b := open(t, p)
			b.state(c.name, s.word)
			s.check(b)
			b.accessible()
			b.fits()
			b.contrasts()
			b.picture(s.name)
			if s.name == "failing" {
				b.pictureOfPhone()
			}
			b.readableWithoutScript()
			b.sealed()
		})
	}
}

// check looks for what the page says.
func (s *shown) check(b *tab) {
	b.t.Helper()
	eval[bool](b, `document.querySelectorAll("details").forEach(d => d.open = true); return true`)
	text := strings.Join(strings.Fields(b.text()), " ")
	for _, want := range append([]string{s.headline, s.word}, s.says...) {
		if !strings.Contains(text, want) {
			b.t.Errorf("%q does not stand in %q", want, text)
		}
	}
	if title := eval[string](b, "return document.title"); !strings.HasPrefix(title, s.headline) {
		b.t.Errorf("the title is %q", title)
	}
	if strings.Contains(text, secret) || strings.Contains(text, "not told to others") {
		b.t.Errorf("it tells too much: %q", text)
	}
	if level := eval[string](b, `return document.querySelector("article").className`); level != "card "+s.level {
		b.t.Errorf("it is taken as %q", level)
	}

	tree := b.tree()
	card := tree.one(b.t, "article", "crm")
	if heading := tree.below(card, "heading", "crm"); heading == nil {
		b.t.Error("the card has no heading")
	}
	if word := tree.below(card, "StaticText", s.word); word == nil {
		b.t.Errorf("a screen reader does not hear %q", s.word)
	}
	tree.one(b.t, "heading", s.headline)
	advised := eval[bool](b, `return !!document.querySelector("[data-part=advice]")`)
	if spoken := tree.below(card, "region", "Advice for crm") != nil; spoken != advised {
		b.t.Errorf("advice is shown: %v, and spoken: %v", advised, spoken)
	}
}

// TestPictures: the documentation shows each state, in light and dark, and each
// picture there is one of these.
func TestPictures(t *testing.T) {
	t.Parallel()
	const docs = "../docs"
	text, err := os.ReadFile(filepath.Join(docs, "status.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"status/phone-light.png", "status/many-light.png", "status/many-dark.png"}
	for _, s := range allStates() {
		want = append(want, "status/"+s.name+"-light.png", "status/"+s.name+"-dark.png")
	}
	for _, picture := range want {
		if !strings.Contains(string(text), picture) {
			t.Errorf("status.md does not show %s", picture)
		}
		if *pictures != "" {
			continue // they are being made
		}
		if info, err := os.Stat(filepath.Join(docs, picture)); err != nil || info.Size() > mostBytes {
			t.Errorf("%s: %v, %d bytes at most", picture, err, mostBytes)
		}
	}
	found, err := filepath.Glob(filepath.Join(docs, "status", "*"))
	if err != nil || *pictures == "" && len(found) != len(want) {
		t.Errorf("%d pictures are expected, not: %q, %v", len(want), found, err)
	}
}

// tree is what a screen reader is told.
type tree []*accessibility.Node

func (b *tab) tree() tree {
	b.t.Helper()
	return call(b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes
}

func said(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	return strings.Trim(string(v.Value), `"`)
}

func (tr tree) all(role string) []*accessibility.Node {
	var found []*accessibility.Node
	for _, n := range tr {
		if !n.Ignored && said(n.Role) == role {
			found = append(found, n)
		}
	}
	return found
}

// one is the only node with a role and a name.
func (tr tree) one(t *testing.T, role, name string) *accessibility.Node {
	t.Helper()
	var found *accessibility.Node
	for _, n := range tr.all(role) {
		if said(n.Name) != name {
			continue
		}
		if found != nil {
			t.Errorf("there are two of %s %q", role, name)
		}
		found = n
	}
	if found == nil {
		var names []string
		for _, n := range tr.all(role) {
			names = append(names, said(n.Name))
		}
		t.Fatalf("there is no %s %q, but %q", role, name, names)
	}
	return found
}

// below is a node somewhere in another, or nil.
func (tr tree) below(top *accessibility.Node, role, name string) *accessibility.Node {
	parents := make(map[accessibility.NodeID]accessibility.NodeID, len(tr))
	for _, n := range tr {
		parents[n.NodeID] = n.ParentID
	}
	for _, n := range tr.all(role) {
		if said(n.Name) != name {
			continue
		}
		for at := n.NodeID; at != ""; at = parents[at] {
			if at == top.NodeID {
				return n
			}
		}
	}
	return nil
}
