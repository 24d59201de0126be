package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

var update = flag.Bool("update", false, "draw the plots in testdata anew")

// cases are drawn into testdata, where one can look at them.
var cases = []result.Plot{
	{
		Name: "bars", Bars: true, Title: "Processor time of a request", Y: "µs of the proxy's processor time, with 95% intervals; shorter is better",
		Series: []result.Series{{Points: []result.Point{
			{Label: "reverse_proxy alone", Y: 148.2, Low: 146, High: 151},
			{Label: "static header_up", Y: 156, Low: 154.5, High: 158},
			{Label: "x/oauth2 handler", Y: 157, Low: 155, High: 159},
			{Label: "upstream_auth, handler", Ours: true, Y: 154.1, Low: 152, High: 157},
			{Label: "upstream_auth, sidecar", Ours: true, Y: 118.4, Low: 117, High: 121},
			{Label: "httputil, oauth2.Transport", Y: 96, Low: 95, High: 97.5},
			{Label: "nginx, static header", Y: 31.5, Low: 31, High: 33},
		}}},
	},
	{
		Name: "bars-log", Bars: true, LogY: true, Title: "Requests over 100 ms while tokens are renewed", Y: "of 20,000 requests",
		Series: []result.Series{{Points: []result.Point{
			{Label: "upstream_auth, handler", Ours: true, Y: 0},
			{Label: "plain proxy", Y: 3, Low: 0, High: 12},
			{Label: "x/oauth2 handler", Y: 4756, Low: 3023, High: 7900},
		}}},
	},
	{
		Name: "bars-negative", Bars: true, Title: "Change by a profile-guided build", Y: "%",
		Series: []result.Series{{Points: []result.Point{
			{Label: "CPU", Y: -1.5, Low: -2.1, High: -0.9},
			{Label: "program", Y: 3.25, Low: 3.25, High: 3.25},
			{Label: "memory", Y: 0},
		}}},
	},
	{
		Name: "bars-odd", Bars: true, Title: `A title with <markup> & "quotes" that is by far too long for a line of the plot, so that it goes on in the next one, and there it ends`, Y: "ratio",
		Series: []result.Series{{Points: []result.Point{
			{Label: "a label <b>that</b> is & stays far too long for the column that it stands in, whatever the font, and is cut", Y: 0.0421},
			{Label: "Averyveryverylongwordwithoutasingleblankinit_and_so_on_and_on", Y: 0.0421},
			{Label: "", Y: 0.0421},
			{Label: "令牌 und Schlüssel\x00", Y: 0.00001},
		}}},
	},
	{
		Name: "lines-log", Title: "Memory of credentials, at rest", X: "credentials", Y: "MiB of resident memory", LogX: true, LogY: true,
		Series: []result.Series{
			{Name: "upstream_auth", Points: []result.Point{{X: 1, Y: 41, Ours: true}, {X: 10, Y: 41.2}, {X: 100, Y: 42}, {X: 1000, Y: 49}, {X: 10000, Y: 120, Low: 112, High: 131}, {X: 100000, Y: 830, Low: 800, High: 880}}},
			{Name: "tokens alone", Points: []result.Point{{X: 1, Y: 0.0011}, {X: 10, Y: 0.011}, {X: 100, Y: 0.11}, {X: 1000, Y: 1.1}, {X: 10000, Y: 11.2}, {X: 100000, Y: 112}}},
			{Name: "a goroutine each, and a timer", Points: []result.Point{{X: 1, Y: 41}, {X: 10, Y: 41.3}, {X: 100, Y: 43}, {X: 1000, Y: 60}, {X: 10000, Y: 310}, {X: 100000, Y: 2100}}},
		},
	},
	{
		Name: "lines-near", Title: "Cost over the number of header fields", X: "fields of a request", Y: "instructions",
		Series: []result.Series{
			{Name: "reverse_proxy alone", Points: grow(217000, 1900)},
			{Name: "static header_up", Points: grow(247000, 1905)},
			{Name: "x/oauth2 handler", Points: grow(241000, 1910)},
			{Name: "upstream_auth, handler", Points: own(grow(239000, 1903))},
			{Name: "upstream_auth, transport", Points: own(grow(238500, 1902))},
			{Name: "nginx, static header", Points: grow(41000, 200)},
			{Name: "HAProxy", Points: grow(39000, 180)},
			{Name: "Dapr's middleware", Points: grow(119000, 700)},
		},
	},
	{
		Name: "lines-zero", Title: "Bodies with and without replay", X: "bytes", Y: "ms", LogX: true, LogY: true,
		Series: []result.Series{
			{Name: "replay", Points: []result.Point{{X: 0, Y: 0.2, Ours: true}, {X: 1024, Y: 0.21}, {X: 65536, Y: 0.4}, {X: 10485760, Y: 31, Low: 28, High: 40}}},
			{Name: "without", Points: []result.Point{{X: 0, Y: 0}, {X: 1024, Y: 0.2, Low: 0, High: 0.3}, {X: 65536, Y: 0.39}, {X: 10485760, Y: 24}}},
		},
	},
	{Name: "lines-one-point", Title: "One point", X: "cores", Y: "requests/s", Series: []result.Series{{Name: "alone", Points: []result.Point{{X: 2, Y: 14000, Low: 13500, High: 14200}}}}},
	{Name: "lines-one-point-log", Title: "One point", X: "cores", Y: "requests/s", LogX: true, LogY: true, Series: []result.Series{{Name: "alone", Points: []result.Point{{X: 1, Y: 1}}}}},
	{Name: "lines-all-zero", Title: "Nothing at all", Y: "failures", LogX: true, LogY: true, Series: []result.Series{{Name: "none", Points: []result.Point{{X: 0, Y: 0}, {X: 0, Y: 0}}}}},
	{
		Name: "lines-equal", Title: "Equal values", X: "routes", Y: "allocations", LogX: true,
		Series: []result.Series{
			{Name: "handler", Points: []result.Point{{X: 1000, Y: 5}, {X: 1, Y: 5}, {X: 10, Y: 5}, {X: 100, Y: 5}}},
			{Name: "transport", Points: []result.Point{{X: 1, Y: 5}, {X: 10, Y: 5}, {X: 100, Y: 5}, {X: 1000, Y: 5}}},
		},
	},
	{
		Name: "lines-negative", Title: "Below zero", X: "°C", Y: "drift, ms",
		Series: []result.Series{{Name: "clock", Points: []result.Point{{X: -40, Y: -3.2}, {X: -5.5, Y: 0.1}, {X: 71.3, Y: 7.7, Low: 7, High: 9}}}},
	},
	{Name: "lines-many", Title: "Latency by rate, many points", X: "requests/s", Y: "ms, p99", LogY: true, Series: []result.Series{{Name: "upstream_auth, sidecar", Points: wave(120, 1)}, {Name: "x/oauth2 handler", Points: wave(120, 3)}}},
}

func grow(from, by float64) (out []result.Point) {
	for _, x := range []float64{2, 5, 10, 20, 40} {
		out = append(out, result.Point{X: x, Y: from + by*x})
	}
	return out
}

func wave(n int, by float64) (out []result.Point) {
	for i := range n {
		y := by * float64(1+i%7+i*i/400)
		out = append(out, result.Point{X: float64(100 * i), Y: y, Low: y * 0.9, High: y * 1.2})
	}
	return out
}

func own(points []result.Point) []result.Point {
	for i := range points {
		points[i].Ours = true
	}
	return points
}

func TestDraw(t *testing.T) {
	for _, p := range cases {
		t.Run(p.Name, func(t *testing.T) {
			got, err := Draw(&p)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Draw(&p)
			if err != nil || !bytes.Equal(got, again) {
				t.Errorf("the second drawing differs: %v", err)
			}
			inside(t, got)
			file := filepath.Join("testdata", p.Name+".svg")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("not as in %s; look at it after go test ./bench/plot -update", file)
			}
		})
	}
}

var tooSmall = regexp.MustCompile(`font(-size)?: ?([0-9.]+)px`)

// inside looks for what no drawing may do: be no XML, leave the picture, say NaN,
// write too small.
func inside(t *testing.T, svg []byte) {
	t.Helper()
	if bytes.Contains(svg, []byte("NaN")) || bytes.Contains(svg, []byte("Inf")) || bytes.Contains(svg, []byte("%!")) {
		t.Error("it holds what is no figure")
	}
	for _, m := range tooSmall.FindAllSubmatch(svg, -1) {
		if size, _ := strconv.ParseFloat(string(m[2]), 64); size < 11 {
			t.Errorf("text of %s px", m[2])
		}
	}
	height := 0.0
	found := make(map[string]bool)
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		found[e.Name.Local] = true
		for _, a := range e.Attr {
			v, err := strconv.ParseFloat(a.Value, 64)
			switch {
			case a.Name.Local == "height":
				height = v
			case a.Name.Local == "x" && (err != nil || v < 0 || v > width), a.Name.Local == "y" && (err != nil || v < 0 || v > height):
				t.Errorf("a text at %s=%s is outside", a.Name.Local, a.Value)
			case a.Name.Local == "d" && a.Value != "d":
				var x, y float64
				x, rest := number(t, strings.TrimPrefix(a.Value, "M"))
				y, _ = number(t, strings.TrimPrefix(rest, " "))
				if x < 0 || x > width || y < 0 || y > height {
					t.Errorf("a path begins outside: %s", a.Value)
				}
			}
		}
	}
	for _, name := range []string{"svg", "title", "desc", "style", "text"} {
		if !found[name] {
			t.Errorf("there is no <%s>", name)
		}
	}
}

func number(t *testing.T, s string) (float64, string) {
	t.Helper()
	end := strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune("-.0123456789", r) })
	if end < 0 {
		end = len(s)
	}
	v, err := strconv.ParseFloat(s[:end], 64)
	if err != nil {
		t.Error(err)
	}
	return v, s[end:]
}

func TestRefused(t *testing.T) {
	with := func(pts ...result.Point) []result.Series { return []result.Series{{Name: "s", Points: pts}} }
	for name, p := range map[string]result.Plot{
		"no title":            {Series: with(result.Point{Y: 1})},
		"no series":           {Title: "t"},
		"no points":           {Title: "t", Series: with()},
		"no number":           {Title: "t", Series: with(result.Point{Y: math.NaN()})},
		"no number, range":    {Title: "t", Series: with(result.Point{Y: 1, Low: 1, High: math.Inf(1)})},
		"no number, X":        {Title: "t", Series: with(result.Point{X: math.Inf(-1), Y: 1})},
		"range upside down":   {Title: "t", Series: with(result.Point{Y: 1, Low: 2, High: 1})},
		"negative, Y":         {Title: "t", LogY: true, Series: with(result.Point{X: 1, Y: -1})},
		"negative, X":         {Title: "t", LogX: true, Series: with(result.Point{X: -1, Y: 1})},
		"bars of two series":  {Title: "t", Bars: true, Series: append(with(result.Point{Y: 1}), with(result.Point{Y: 1})...)},
		"one of two is empty": {Title: "t", Series: append(with(result.Point{Y: 1}), with()...)},
	} {
		if _, err := Draw(&p); err == nil {
			t.Errorf("%s: drawn", name)
		}
	}
}

func TestFigures(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.5: "0.5", 10: "10", 1000: "1k", 2500: "2.5k", 1e6: "1M", -40: "−40", 0.1 + 0.2: "0.3", 0.001: "0.001", 2e9: "2G"} {
		if got := tickText(v); got != want {
			t.Errorf("tick at %g: %q, not %q", v, got, want)
		}
	}
	for _, c := range []struct {
		v    float64
		of   []float64
		want string
	}{
		{1, []float64{1, 0.754}, "1.00"}, {0.754, []float64{1, 0.754}, "0.75"}, {4756, []float64{4756, 3}, "4,756"},
		{1234567, []float64{1234567}, "1,234,567"}, {31.53, []float64{31.53}, "31.5"}, {0.0421, []float64{0.0421}, "0.0421"},
		{0.0001, []float64{0.0001, 12.5}, "0.00010"}, {-1.5, []float64{-1.5, 3.25}, "−1.50"}, {0, []float64{0}, "0"}, {148.2, []float64{148.2}, "148"},
	} {
		if got := figureText(c.v, decimals(c.of)); got != c.want {
			t.Errorf("%g beside %v: %q, not %q", c.v, c.of, got, c.want)
		}
	}
}

func TestNamesDoNotTouch(t *testing.T) {
	names := [][]string{{"a"}, {"b", "b"}, {"c"}, {"d"}, {"e"}}
	ends := []float64{100, 101, 101, 400, 105}
	places := spread(ends, names, 50, 350)
	for i := range names {
		for j := range i {
			far := math.Abs(places[i] - places[j])
			if need := lineHeight * float64(len(names[i])+len(names[j])) / 2; far < need {
				t.Errorf("%v and %v are %g apart, not %g", names[i], names[j], far, need)
			}
		}
		if places[i] < 50-lineHeight || places[i] > 350+lineHeight {
			t.Errorf("%v is outside: %g", names[i], places[i])
		}
	}
}
