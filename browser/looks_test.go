package browser

import (
	"bytes"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
)

// is is an error where two are not the same.
func is(got, want string, err error) error {
	if err == nil && got != want {
		err = fmt.Errorf("got %q, want %q", got, want)
	}
	return err
}

// accessible checks what holds for the page in any state: landmarks, the order
// of headings, a name for all that is drawn, ids that are there once.
func (b *tab) accessible() {
	b.t.Helper()
	tree := b.tree()
	for _, role := range []string{"banner", "main", "contentinfo", "status"} {
		if n := len(tree.all(role)); n != 1 {
			b.t.Errorf("there are %d of the role %s", n, role)
		}
	}
	for _, role := range []string{"image", "graphics-document", "article", "region", "button", "link", "heading"} {
		for _, n := range tree.all(role) {
			if said(n.Name) == "" {
				b.t.Errorf("a %s has no name", role)
			}
		}
	}
	for _, wrong := range eval[[]string](b, `
		const wrong = [];
		let last = 0;
		for (const h of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
			const level = +h.nodeName[1];
			if (level > last + 1) wrong.push("after h" + last + " comes h" + level + " " + h.textContent);
			last = level;
		}
		if (document.querySelectorAll("h1").length !== 1) wrong.push("h1 is not there once");
		for (const svg of document.querySelectorAll("svg")) {
			const outer = svg.parentElement.closest("svg");
			const hidden = svg.closest("[aria-hidden=true]"), named = svg.getAttribute("role") === "img" && svg.getAttribute("aria-label");
			if (!outer && !hidden && !named) wrong.push("neither named nor hidden: " + svg.outerHTML.slice(0, 120));
		}
		const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
		for (const id of ids) if (ids.filter(i => i === id).length > 1) wrong.push("the id " + id + " is there twice");
		for (const e of document.querySelectorAll("[aria-labelledby]")) if (!document.getElementById(e.getAttribute("aria-labelledby"))) wrong.push("labelled by nothing: " + e.id);
		for (const a of document.querySelectorAll(".state")) if (!a.querySelector("svg.icon") || !a.querySelector("strong").textContent) wrong.push("a state without a sign or a word");
		if (document.documentElement.lang !== "en") wrong.push("no language");
		return wrong`) {
		b.t.Error(wrong)
	}
}

// overlap finds text that runs out of the window, out of its box, or into
// other text.
const overlap = `
	const wrong = [], root = document.documentElement, boxes = [];
	if (root.scrollWidth > root.clientWidth) wrong.push("it scrolls sideways: " + root.scrollWidth + " > " + root.clientWidth);
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let n = walker.nextNode(); n; n = walker.nextNode()) {
		const e = n.parentElement;
		if (!n.data.trim() || e.closest(".hidden, script, style, noscript, title") || !e.checkVisibility({visibilityProperty: true})) continue;
		const range = document.createRange();
		range.selectNodeContents(n);
		for (const r of range.getClientRects()) {
			if (r.width < 1) continue;
			if (r.left < -.5 || r.right > root.clientWidth + .5) wrong.push("out of the window: " + n.data);
			boxes.push({n, l: r.left + 1, r: r.right - 1, t: r.top + r.height * .2, b: r.bottom - r.height * .2});
		}
		for (let a = e; a; a = a.parentElement) {
			if (getComputedStyle(a).overflowX !== "visible" && a.scrollWidth > a.clientWidth + 1) wrong.push("cut off: " + n.data);
		}
	}
	boxes.sort((a, b) => a.t - b.t);
	for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length && boxes[j].t < boxes[i].b; j++) {
		const a = boxes[i], b = boxes[j];
		if (a.n !== b.n && a.l < b.r && b.l < a.r) wrong.push("'" + a.n.data.trim() + "' runs into '" + b.n.data.trim() + "'");
	}
	return wrong;`

// fits checks the page at the widths of phones, tablets and desks, and with
// letters of twice the size.
func (b *tab) fits() {
	b.t.Helper()
	check := func(at string) {
		b.t.Helper()
		for _, wrong := range eval[[]string](b, overlap) {
			b.t.Errorf("%s: %s", at, wrong)
		}
	}
	for _, pixels := range []int64{320, 360, 768} {
		b.width(pixels, 1)
		check(fmt.Sprintf("%d pixels", pixels))
	}
	b.width(640, 2) // as 1280 pixels are, to one who zooms
	check("zoomed to 200%")
	b.width(1280, 1)
	check("1280 pixels")
	eval[bool](b, `document.documentElement.style.fontSize = "200%"; return true`)
	check("letters of twice the size")
	b.width(360, 1)
	check("letters of twice the size on a phone")
	b.width(1280, 1)
	eval[bool](b, `document.documentElement.style.fontSize = ""; return true`)
}

// contrast finds text whose contrast is less than 4.5 to 1 (WCAG 2.2 §1.4.3),
// and signs of less than 3 to 1 (§1.4.11).
const contrast = `
	const wrong = [], seen = new Set();
	const rgba = c => {
		const m = c.match(/^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/);
		if (!m) throw new Error("a colour that is not known here: " + c);
		return [+m[1], +m[2], +m[3], m[4] === undefined ? 1 : +m[4]];
	};
	const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
	const ground = e => {
		if (!e) return [255, 255, 255, 1];
		const c = rgba(getComputedStyle(e).backgroundColor);
		return c[3] === 1 ? c : over(c, ground(e.parentElement));
	};
	const light = c => {
		const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
		return .2126 * r + .7152 * g + .0722 * b;
	};
	let least = 21;
	const check = (e, want, what) => {
		const back = ground(e), opacity = (a => { let o = 1; for (; a; a = a.parentElement) o *= getComputedStyle(a).opacity; return o; })(e);
		let ink = rgba(getComputedStyle(e).color);
		ink = over([...ink.slice(0, 3), ink[3] * opacity], back);
		const [a, b] = [light(ink), light(back)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
		least = Math.min(least, ratio);
		if (ratio < want) wrong.push(ratio.toFixed(2) + " to 1: " + what);
	};
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let n = walker.nextNode(); n; n = walker.nextNode()) {
		const e = n.parentElement;
		if (!n.data.trim() || e.closest(".hidden, script, style, noscript, svg") || !e.checkVisibility({visibilityProperty: true})) continue;
		check(e, 4.5, n.data.trim());
	}
	for (const e of document.querySelectorAll("svg.icon")) check(e, 3, "a sign");
	if (least === 21) wrong.push("no text was seen");
	return wrong;`

// contrasts checks that in light and dark text can be read.
func (b *tab) contrasts() {
	b.t.Helper()
	for _, scheme := range []string{"dark", "light"} {
		b.scheme(scheme)
		for _, wrong := range eval[[]string](b, contrast) {
			b.t.Errorf("%s: %s", scheme, wrong)
		}
	}
}

var (
	spaces  = regexp.MustCompile(`\s+`)
	passing = regexp.MustCompile(`\d[\d:.\x{202f}]*( (second|minute)s?)?|(now|is due|in N|N ago)\b`)
	counted = regexp.MustCompile(`(a|N) token requests? (have failed in a row|failed)`)
)

// plain is the page's text, but for what time changes: numbers, and words
// that go with them.
func (b *tab) plain() string {
	b.t.Helper()
	text := eval[string](b, `
		document.querySelectorAll("details").forEach(d => d.open = true);
		const copy = document.body.cloneNode(true);
		copy.querySelectorAll("script, style, noscript, .live, #announcer, #lost, svg").forEach(e => e.remove());
		copy.querySelectorAll("time").forEach(e => e.textContent = "T");
		return copy.textContent`)
	text = passing.ReplaceAllString(text, "N")
	text = strings.ReplaceAll(text, "due in N", "N") // or "is due"
	return spaces.ReplaceAllString(counted.ReplaceAllString(text, "failures"), " ")
}

// readableWithoutScript compares the page with what one sees who runs no script.
func (b *tab) readableWithoutScript() {
	b.t.Helper()
	script := func(on bool) string {
		b.t.Helper()
		call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on})
		b.navigate()
		return b.plain()
	}
	eventually(b.t, "the same text without script", func() error { return is(script(false), script(true), nil) })
	script(false)
	if !eval[bool](b, `
		const live = document.getElementById("live"), note = [...document.querySelectorAll("noscript p")].at(-1);
		return !live.checkVisibility() && note.checkVisibility() && !!document.querySelector("noscript meta[http-equiv=refresh]")`) {
		b.t.Errorf("without script, the page says: %s", b.text())
	}
	for _, wrong := range eval[[]string](b, overlap) {
		b.t.Errorf("without script: %s", wrong)
	}
}

// picture writes the page as it is seen, in light and dark.
func (b *tab) picture(name string) {
	b.t.Helper()
	if *pictures == "" {
		return
	}
	eval[bool](b, `document.querySelectorAll("details").forEach(d => d.open = false); document.activeElement.blur(); return true`)
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		b.capture(name + "-" + scheme)
	}
	b.scheme("light")
}

// pictureOfPhone writes the page as a phone shows it.
func (b *tab) pictureOfPhone() {
	b.t.Helper()
	if *pictures == "" {
		return
	}
	b.width(360, 2)
	b.capture("phone-light")
	b.width(1280, 1)
}

// mostBytes is how large the file of a picture may be.
const mostBytes = 150_000

// capture writes one picture: as wide as the window, as high as the page, with
// few colours, so that it stays small.
func (b *tab) capture(name string) {
	b.t.Helper()
	size := eval[map[string]float64](b, `return {w: innerWidth, h: document.documentElement.getBoundingClientRect().height}`)
	beyond := true
	shot := call(b, page.CaptureScreenshot, page.CaptureScreenshotParams{
		Clip: &page.Viewport{Width: size["w"], Height: math.Ceil(size["h"]), Scale: 1}, CaptureBeyondViewport: &beyond,
	})
	whole, err := png.Decode(bytes.NewReader(shot.Data))
	b.must(err)
	var small bytes.Buffer
	b.must((&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, fewColours(whole)))
	if small.Len() > mostBytes {
		b.t.Errorf("the picture %s has %d bytes", name, small.Len())
	}
	b.must(os.WriteFile(filepath.Join(*pictures, name+".png"), small.Bytes(), 0o644))
}
