package browser

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// watch marks the window, so that a reload is seen, and writes down all that
// is announced.
func (b *tab) watch() {
	b.t.Helper()
	eval[bool](b, `
		window.marked = true;
		window.announced = [];
		const announcer = document.getElementById("announcer");
		new MutationObserver(() => announced.push(announcer.textContent)).observe(announcer, {childList: true, characterData: true, subtree: true});
		return true`)
}

// notReloaded checks that the window is the same.
func (b *tab) notReloaded() {
	b.t.Helper()
	if !eval[bool](b, "return window.marked === true") {
		b.t.Error("the page was loaded again")
	}
}

// announced waits for a part of what a screen reader is told.
func (b *tab) announced(part string) {
	b.t.Helper()
	b.until("it is announced: "+part, "window.announced.some(a => a.includes("+quote(part)+"))")
}

// obtained is when the token was asked for that is shown.
const obtained = `document.querySelector("#credential-crm .ends time").dateTime`

// TestLive: what becomes of a token is seen without a reload.
func TestLive(t *testing.T) {
	t.Parallel()
	c := &credential{name: "crm", config: authserver.Config{Lifetime: time.Minute}, lines: []string{"refresh_at 10%"}}
	p := startProxy(t, c)
	p.await("crm", "ok")
	b := open(t, p)
	b.watch()
	icon := eval[string](b, `return document.querySelector("link[rel=icon]").href`)
	first := eval[string](b, "return "+obtained)
	bar := eval[string](b, `return document.querySelector("#credential-crm .now").getAttribute("x")`)
	b.until("the bar moves", `document.querySelector("#credential-crm .now").getAttribute("x") !== `+quote(bar))

	b.until("a renewal", obtained+" > "+quote(first)) // at its time
	second := eval[string](b, "return "+obtained)
	p.refresh("crm", http.StatusOK)
	b.until("a refresh by an operator", obtained+" > "+quote(second))
	if clock := eval[string](b, `return document.querySelector("#credential-crm .ends time").textContent`); len(clock) != len("15:04:05") {
		t.Errorf("the time is %q", clock)
	}

	c.server.SetFault(authserver.Down())
	b.announced("crm: Failing. ")
	b.state("crm", "Failing")
	b.until("the headline", `document.querySelector("h1").textContent.includes("needs attention") && document.title.startsWith("Ready, and crm needs attention") && document.querySelector("link[rel=icon]").href !== `+quote(icon))
	c.server.SetFault(nil)
	b.announced("crm: OK. ")
	b.until("the headline", `document.querySelector("h1").textContent.includes("All is well") && !document.querySelector("[data-part=advice]")`)
	if said := eval[[]string](b, "return announced"); len(said) > 2 {
		t.Errorf("it is announced too often: %q", said)
	}
	b.notReloaded()
	b.sealed()
}

// TestPause: a paused page stands still, and goes on when it is told to.
func TestPause(t *testing.T) {
	t.Parallel()
	p := startProxy(t, &credential{name: "crm"})
	p.await("crm", "ok")
	b := open(t, p)
	b.watch()
	press := func() { eval[bool](b, `document.getElementById("pause").click(); return true`) }
	press()
	b.until("it is paused", `document.getElementById("pulse").textContent === "Paused"`)
	still := b.text()
	p.refresh("crm", http.StatusOK)
	r, err := p.report("crm")
	if err != nil {
		t.Fatal(err)
	}
	b.until("the time of a poll is over", "(window.began ??= performance.now()) + 2500 < performance.now()")
	if now := b.text(); now != still {
		t.Errorf("it has changed from %q to %q", still, now)
	}
	press()
	b.until("the new token", "Math.abs(Date.parse("+obtained+") - "+fmt.Sprint(r.Token.Sent.UnixMilli())+") < 5")
	b.notReloaded()
	b.sealed()
}

// TestPlace: an update leaves alone where the reader is: the focus, the place
// on the page, what is unfolded and what is selected, even if cards change
// their order.
func TestPlace(t *testing.T) {
	t.Parallel()
	var credentials []*credential
	for _, name := range []string{"alpha", "beta", "gamma", "crm", "omega"} {
		credentials = append(credentials, &credential{name: name, config: authserver.Config{Lifetime: time.Hour}})
	}
	p := startProxy(t, credentials...)
	for name := range p.credentials {
		p.await(name, "ok")
	}
	b := open(t, p)
	b.watch()
	type place struct {
		Focus, Open, Selected string
		Top, Scroll           float64
	}
	look := func() place {
		return eval[place](b, `
			const f = document.activeElement;
			return {
				focus: f.closest("article")?.id + " " + f.nodeName, top: Math.round(f.getBoundingClientRect().top), scroll: Math.round(scrollY),
				open: [...document.querySelectorAll("details")].filter(d => d.open).map(d => d.id).join(" "), selected: String(getSelection()),
			}`)
	}
	eval[bool](b, `
		const d = document.querySelector("#credential-crm details");
		d.open = true;
		d.querySelector("summary").focus();
		d.scrollIntoView({block: "center"});
		getSelection().selectAllChildren(document.querySelector("#credential-crm h2"));
		return true`)
	before := look()
	if before.Focus != "credential-crm SUMMARY" || before.Open != "details-crm" || before.Selected != "crm" || before.Scroll == 0 {
		t.Fatalf("it begins with %+v", before)
	}
	sent := eval[string](b, "return "+obtained)
	p.refresh("crm", http.StatusOK)
	b.until("the refresh", obtained+" > "+quote(sent))
	if after := look(); after != before {
		t.Errorf("after an update: %+v, before it: %+v", after, before)
	}

	// another card comes first, and grows
	_ = p.credentials["omega"].listener.Close()
	p.refresh("omega", http.StatusBadGateway)
	b.state("omega", "Failing")
	b.until("it comes first", `document.querySelector("article").id === "credential-omega"`)
	after := look()
	if after.Focus != before.Focus || after.Open != before.Open || after.Selected != before.Selected {
		t.Errorf("after another card has moved: %+v, before it: %+v", after, before)
	}
	if after.Top != before.Top {
		t.Errorf("what was read at %v now is at %v", before.Top, after.Top)
	}

	// the card that is read moves itself
	_ = p.credentials["crm"].listener.Close()
	p.refresh("crm", http.StatusBadGateway)
	b.state("crm", "Failing")
	if after := look(); after.Focus != before.Focus || after.Open != before.Open {
		t.Errorf("after it has moved itself: %+v, before it: %+v", after, before)
	}
	b.notReloaded()
	b.sealed()
}

// TestGone: a proxy that is killed is told of, with the time; and its return,
// with what has changed meanwhile.
func TestGone(t *testing.T) {
	t.Parallel()
	c := &credential{name: "crm"}
	p := startProxy(t, c)
	p.await("crm", "ok")
	b := open(t, p)
	b.watch()
	p.stop(syscall.SIGKILL)
	b.announced("The proxy has not been reached since ")
	b.until("it is seen", `document.getElementById("lost").checkVisibility() && /since \d\d:\d\d:\d\d\./.test(document.getElementById("lost").textContent) && document.getElementById("pulse").textContent === "Not live"`)
	if !strings.Contains(b.text(), "OK") {
		t.Error("what was known is gone")
	}
	for _, wrong := range eval[[]string](b, contrast) {
		t.Errorf("while it is away: %s", wrong)
	}
	_ = c.listener.Close()
	p.start()
	b.announced("The proxy is reached again.")
	b.announced("crm: No token. ")
	b.until("it is live", `!document.getElementById("lost").checkVisibility() && document.getElementById("pulse").textContent === "Live"`)
	b.state("crm", "No token")
	b.notReloaded()
}
