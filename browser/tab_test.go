package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// tab is a window with the status page in it.
type tab struct {
	t   *testing.T
	ctx context.Context
	url string

	mu       sync.Mutex
	asked    []string // the addresses of all requests
	complain []string // what stands in the console
}

// newTab opens a window, 1280 wide and light.
func newTab(t *testing.T, url string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx, url: url}
	b.must(chromedp.Listen(ctx, b.hear))
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	call(b, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "UTC"}) // as without script
	call(b, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	b.width(1280, 1)
	b.scheme("light")
	return b
}

// open opens the status page of a proxy.
func open(t *testing.T, p *proxy) *tab {
	t.Helper()
	b := newTab(t, p.url("/status"))
	b.navigate()
	return b
}

func (b *tab) navigate() {
	b.t.Helper()
	b.do(chromedp.Navigate(b.url))
}

// hear is told of each event.
func (b *tab) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.asked = append(b.asked, e.Request.URL)
	case *log.EventEntryAdded:
		// 503 is the page's answer where not all is well
		if e.Entry.Source != log.EntrySourceNetwork || !strings.Contains(e.Entry.Text, "status of 503") {
			b.complain = append(b.complain, fmt.Sprintf("%s: %s", e.Entry.Source, e.Entry.Text))
		}
	case *runtime.EventExceptionThrown:
		b.complain = append(b.complain, "exception: "+e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		b.complain = append(b.complain, "console: "+string(e.Type))
	}
}

// sealed checks that nothing was asked for but the page, and that the browser
// had nothing to complain of.
func (b *tab) sealed() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.asked) == 0 {
		b.t.Error("no request was seen")
	}
	for _, url := range b.asked {
		if url != b.url && !strings.HasPrefix(url, "data:image/svg+xml,") {
			b.t.Errorf("it asked for %s", url)
		}
	}
	if len(b.complain) > 0 {
		b.t.Errorf("the console says: %q", b.complain)
	}
}

// loads is how many documents and scripts' requests there were.
func (b *tab) loads() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(b.asked), func(url string) bool { return url != b.url }))
}

func (b *tab) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.ctx, deadline)
}

// do has the browser do something that takes no longer than the deadline.
func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := b.limited()
	defer cancel()
	b.must(chromedp.Do(ctx, actions...))
}

func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	ctx, cancel := b.limited()
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	if err != nil {
		b.t.Fatalf("%s: %v", command.Method, err)
	}
	return result
}

// width sets how wide the window is, in CSS pixels.
func (b *tab) width(pixels int64, scale float64) {
	b.t.Helper()
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: pixels, Height: 800, DeviceScaleFactor: scale, Mobile: pixels < 500,
	})
}

// scheme is "light" or "dark".
func (b *tab) scheme(name string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name},
		{Name: "prefers-reduced-motion", Value: "reduce"}, // what moves cannot be compared
	}})
}

// eval runs a function's body in the page; the policy of the page does not hold
// for it.
func eval[T any](b *tab, body string) T {
	b.t.Helper()
	result, err := tryEval[T](b, body)
	if err != nil {
		b.t.Fatalf("%v in %s", err, body)
	}
	return result
}

func tryEval[T any](b *tab, body string) (T, error) {
	ctx, cancel := b.limited()
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T]("(() => {"+body+"\n})()"))
}

// until waits for an expression to be true in the page.
func (b *tab) until(what, expression string) {
	b.t.Helper()
	eventually(b.t, what, func() error {
		ok, err := tryEval[bool](b, "return !!("+expression+")")
		if err == nil && !ok {
			err = fmt.Errorf("%s is not true; the page says: %.3000q", expression, b.text())
		}
		return err
	})
}

// text is all that the page shows.
func (b *tab) text() string {
	text, err := tryEval[string](b, "return document.body.innerText")
	if err != nil {
		return err.Error()
	}
	return text
}

// state waits until the page shows a credential in a state, by its word.
func (b *tab) state(name, word string) {
	b.t.Helper()
	b.until(name+" is shown as "+word, fmt.Sprintf(`document.querySelector("#credential-%s .state strong")?.textContent === %s`, name, quote(word)))
}

// quote writes a string for JavaScript.
func quote(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(text)
}
