package browser

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// startMany starts a proxy whose credentials stand differently.
func startMany(t *testing.T) *proxy {
	t.Helper()
	p := startProxy(t,
		&credential{name: "crm", config: authserver.Config{Lifetime: time.Hour}, lines: []string{"scopes read write"}},
		&credential{name: "billing", config: authserver.Config{Lifetime: 3 * time.Second}},
		&credential{name: "search", config: authserver.Config{Lifetime: 30 * time.Minute}},
		&credential{name: "tenants", config: authserver.Config{Lifetime: time.Hour}, lines: []string{"param tenant {header.X-Tenant}", "max_tokens 50"}},
		&credential{name: "reports", fault: authserver.Hang(), lines: []string{"timeout 10m"}, unused: true},
	)
	for _, tenant := range []string{"red", "green", "blue"} {
		p.requests("tenants", 10, "X-Tenant", tenant)
	}
	var all sync.WaitGroup
	for _, name := range []string{"crm", "billing", "search"} {
		p.await(name, "ok")
		all.Go(func() { p.traffic(name, 20) })
	}
	all.Wait()
	_ = p.credentials["search"].listener.Close()
	p.refresh("search", http.StatusBadGateway)
	p.credentials["billing"].server.SetFault(refuse("invalid_client"))
	p.await("billing", "unavailable")
	p.requests("billing", 8)
	return p
}

// TestMany: credentials that stand differently are told apart, by more than
// colours, and the worst comes first.
func TestMany(t *testing.T) {
	t.Parallel()
	p := startMany(t)
	b := open(t, p)
	b.state("billing", "No token")
	b.state("search", "Failing")
	cards := eval[[][]string](b, `return [...document.querySelectorAll("article")].map(a =>
		[a.querySelector("h2").textContent, a.querySelector(".state strong").textContent, a.querySelector(".state .icon").innerHTML])`)
	var order string
	signs := make(map[string]string)
	for _, card := range cards {
		order += card[0] + " "
		if word, ok := signs[card[2]]; ok && word != card[1] {
			t.Errorf("%s and %s have the same sign", word, card[1])
		}
		signs[card[2]] = card[1]
	}
	if order != "billing search reports crm tenants " || len(signs) != 4 {
		t.Errorf("the order is %q, with %d signs", order, len(signs))
	}
	b.accessible()
	b.fits()
	b.contrasts()
	b.sealed()
	b.picture("many")
}

// TestKeyboard: all that can be used can be used without a mouse, in the order
// in which it is seen, and one sees where one is.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	p := startMany(t)
	b := open(t, p)
	b.state("billing", "No token")
	type stop struct {
		Name     string
		Top      float64
		Seen     bool
		Outlined float64
	}
	want := eval[int](b, `return document.querySelectorAll("a[href], button, summary").length`)
	last := stop{Top: -1}
	visited := make(map[string]bool)
	for range want {
		b.do(chromedp.KeyEvent(kb.Tab))
		at := eval[stop](b, `
			const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
			return {
				name: e.nodeName + " " + (e.closest("article")?.id ?? e.id), top: r.top + scrollY,
				seen: r.top >= 0 && r.bottom <= innerHeight, outlined: s.outlineStyle === "none" ? 0 : parseFloat(s.outlineWidth),
			}`)
		if at.Top < last.Top || !at.Seen || at.Outlined < 2 || visited[at.Name] {
			t.Errorf("after %+v comes %+v", last, at)
		}
		visited[at.Name], last = true, at
	}
	if len(visited) != want || want < 1+5+2 {
		t.Errorf("%d of %d can be reached: %v", len(visited), want, visited)
	}
	eval[bool](b, `document.querySelector("#credential-crm summary").focus(); return true`)
	unfolded := `document.querySelector("#credential-crm details").open`
	b.do(chromedp.KeyEvent(kb.Enter))
	b.until("it is unfolded", unfolded+` && document.querySelector("#credential-crm details .facts").checkVisibility()`)
	b.do(chromedp.KeyEvent(" "))
	b.until("it is folded", "!"+unfolded)
	eval[bool](b, `document.getElementById("pause").focus(); return true`)
	b.do(chromedp.KeyEvent(kb.Enter))
	b.until("it is paused", `document.getElementById("pulse").textContent === "Paused"`)
	b.sealed()
}

// TestHostile: what a server says is text, whatever it is, and nothing that
// would come into the page runs there.
func TestHostile(t *testing.T) {
	t.Parallel()
	const words = `<img src=x onerror="window.hurt=1">`
	c := &credential{name: "crm", fault: authserver.Raw(http.StatusBadRequest, "application/json", `{"error":`+quote(words)+`}`)}
	p := startProxy(t, c)
	p.await("crm", "unavailable")
	b := open(t, p)
	check := func(when string) {
		b.until("the words stand there "+when, `document.querySelector("main").innerText.includes(`+quote(words)+`)`)
		if eval[bool](b, `return window.hurt === 1 || document.images.length > 0`) {
			t.Errorf("%s, they are more than text", when)
		}
	}
	check("at once")
	loads := b.loads()
	eventually(t, "an update", func() error {
		if now := b.loads(); now < loads+2 {
			return fmt.Errorf("%d loads", now)
		}
		return nil
	})
	check("after an update")
	b.sealed()

	// what a hole in it would let in
	for name, attack := range map[string]string{
		"a script":            `const s = document.createElement("script"); s.textContent = "window.hurt = 1"; document.body.append(s);`,
		"a script from here":  `const s = document.createElement("script"); s.src = location.href; document.body.append(s);`,
		"an attribute":        `const s = document.createElement("b"); s.setAttribute("onclick", "window.hurt = 1"); document.body.append(s); s.click();`,
		"an image":            `document.body.append(Object.assign(new Image(), {src: "http://127.0.0.1:9/x.png"}));`,
		"a style":             `const s = document.createElement("style"); s.textContent = "* { color: red }"; document.body.append(s);`,
		"a frame":             `const s = document.createElement("iframe"); s.src = location.href; document.body.append(s);`,
		"a request elsewhere": `fetch("http://127.0.0.1:9/").catch(() => {});`,
		"a form":              `const s = document.createElement("form"); s.action = "http://127.0.0.1:9/"; document.body.append(s); s.submit();`,
	} {
		eval[bool](b, `window.violated = 0; document.addEventListener("securitypolicyviolation", () => violated++, {once: true});`+attack+`return true`)
		b.until(name+" is kept out", "window.violated === 1 && window.hurt !== 1")
	}
}

// TestHundred notes what a hundred credentials cost a reader.
func TestHundred(t *testing.T) {
	t.Parallel()
	all := []*credential{{name: "c000", config: authserver.Config{Lifetime: time.Hour}}}
	for n := range 99 {
		all = append(all, &credential{name: fmt.Sprintf("c%03d", n+1), like: all[0]})
	}
	p := startProxy(t, all...)
	p.await("c099", "ok")
	b := open(t, p)
	b.until("all of them are OK", `document.querySelectorAll("article[data-state=ok]").length === 100`)
	type cost struct{ Bytes, Answered, Read, Nodes float64 }
	got := eval[cost](b, `
		const n = performance.getEntriesByType("navigation")[0];
		return {bytes: n.decodedBodySize, answered: n.responseEnd - n.requestStart, read: n.domComplete - n.responseEnd, nodes: document.querySelectorAll("*").length}`)
	t.Logf("100 credentials: a page of %.0f bytes, answered in %.0f ms, read in %.0f ms, with %.0f elements", got.Bytes, got.Answered, got.Read, got.Nodes)
	b.sealed()
}
