package main

import (
	"maps"
	"strings"
	"testing"
)

// callgrindText is as callgrind writes it: names are given once, what calls took
// stands on a line of its own, and recursion has its levels numbered.
const callgrindText = `# callgrind format
version: 1
creator: callgrind-3.19.0
positions: line
events: Ir
summary: 1150

ob=(1) caddy
fl=(1) ???
fn=(7) runtime.mallocgc
0 100
cfn=(8) net/http.Header.Set
calls=2 0
0 5000
+3 40

fn=(8)
0 10

fn=(9) main.walk'2
* 500

fn=(10) main.walk
-1 500

totals: 1150
`

func TestReadCallgrind(t *testing.T) {
	got, err := readCallgrind(strings.NewReader(callgrindText))
	if err != nil {
		t.Fatal(err)
	}
	want := profile{"runtime.mallocgc": 140, "net/http.Header.Set": 10, "main.walk": 1000}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestReadCallgrindRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":           "",
		"no end":            strings.TrimSuffix(callgrindText, "totals: 1150\n"),
		"another sum":       strings.Replace(callgrindText, "totals: 1150", "totals: 1151", 1),
		"a name never said": "fn=(3)\n0 1\ntotals: 1\n",
		"no function":       "0 1\ntotals: 1\n",
		"two events":        "fn=(3) f\n0 1 2\ntotals: 1\n",
		"no number":         "fn=(3) f\n0 x\ntotals: 1\n",
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := readCallgrind(strings.NewReader(text)); err == nil {
				t.Errorf("read %v", p)
			}
		})
	}
}

// FuzzReadCallgrind: whatever the file, what is read of it is in it.
func FuzzReadCallgrind(f *testing.F) {
	f.Add(callgrindText)
	f.Add("fn=(3) f\n+1 18446744073709551615\ntotals: 18446744073709551615\n")
	f.Add("fn=(3)\ncfn=(3) g'1\ncalls=\n* 1\ntotals: 0")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := readCallgrind(strings.NewReader(text))
		if err != nil {
			return
		}
		for name, cost := range p {
			if cost < 0 || !strings.Contains(text, name) {
				t.Errorf("%q took %v", name, cost)
			}
		}
	})
}

func TestOwnerOf(t *testing.T) {
	for name, want := range map[string]owner{
		"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule.(*injector).apply":                 oursOwner,
		"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token.(*held).load":                   oursOwner,
		"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/peers/onecaddy/main.(*static).ServeHTTP": otherOwner,
		"github.com/caddyserver/caddy/v2.(*Replacer).Set":                                                  caddyOwner,
		"net/http.validateHeaders":                         httpOwner,
		"bufio.(*Writer).Flush":                            httpOwner,
		"runtime.mallocgcSmallScanNoHeader":                memoryOwner,
		"runtime.(*mspan).writeHeapBitsSmall":              memoryOwner,
		"runtime.lock2":                                    schedulerOwner,
		"runtime.(*pageAlloc).find":                        schedulerOwner,
		"runtime.(*mheap).alloc":                           schedulerOwner,
		"runtime.castogscanstatus":                         schedulerOwner,
		"runtime.mapassign_faststr":                        runtimeOwner,
		"runtime.memmove":                                  runtimeOwner,
		"internal/runtime/maps.(*Map).putSlotSmallFastStr": runtimeOwner,
		"aeshashbody":                                      runtimeOwner,
		"strings.(*byteReplacer).Replace":                  otherOwner,
	} {
		if got := ownerOf(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestMiddle: what only one batch has is not the program's.
func TestMiddle(t *testing.T) {
	got := middle([]profile{{"a": 10, "now and then": 300}, {"a": 11}, {"a": 90}})
	if want := (profile{"a": 11, "now and then": 0}); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
