// Command application is the application in the tests of package pod. It knows
// no OAuth: it sends plain HTTP to its own host, again and again, and tells what
// came of each request in a line of JSON. It goes on until it is told to end,
// and then for two seconds more, as one that finishes its work.
//
// Its arguments are those of the examples: migrate sends one request, import a
// hundred, and both end well if all were answered well; the address may stand
// behind. looks tells what there is to be seen from inside.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const drain = 2 * time.Second

// answer is a line of what it tells.
type answer struct {
	At       time.Time `json:"at"` // when the request was sent
	Took     float64   `json:"took_ms"`
	Status   int       `json:"status,omitempty"`
	Error    string    `json:"error,omitempty"`
	Draining bool      `json:"draining,omitempty"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "application:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	url := cmp.Or(os.Getenv("API_URL"), "http://127.0.0.1:8080")
	if i := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "http:") }); i >= 0 {
		url = args[i]
	}
	requests := 0 // no end
	switch {
	case len(args) == 0:
	case args[0] == "migrate":
		requests = 1
	case args[0] == "import":
		requests = 100
	case args[0] == "looks":
		return look(args[1:])
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	var drained <-chan time.Time
	var failed int
	pace := time.NewTicker(10 * time.Millisecond)
	out := json.NewEncoder(os.Stdout)
	for n := 1; ; n++ {
		a := ask(url)
		a.Draining = drained != nil
		if a.Status != http.StatusOK {
			failed++
		}
		if err := out.Encode(a); err != nil {
			return err
		}
		if n == requests {
			if failed > 0 {
				return fmt.Errorf("%d of %d requests failed", failed, n)
			}
			return nil
		}
		select {
		case <-pace.C:
		case <-told:
			drained = time.After(drain)
		case <-drained:
			return nil
		}
	}
}

var client = &http.Client{Timeout: 10 * time.Second}

func ask(url string) (a answer) {
	a.At = time.Now()
	defer func() { a.Took = float64(time.Since(a.At).Microseconds()) / 1000 }()
	response, err := client.Get(url) //nolint:gosec // the address is what it is told
	if err != nil {
		a.Error = err.Error()
		return a
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		a.Error = err.Error()
		return a
	}
	a.Status = response.StatusCode
	return a
}

// sight is what there is to be seen from inside a container.
type sight struct {
	Processes []int    `json:"processes"`
	There     []string `json:"there"`   // of the paths that were asked for
	Sockets   []string `json:"sockets"` // of those, and of the addresses, that are answered on
}

// look tells which of the paths there are, and which of them, and of the
// addresses, somebody listens on.
func look(places []string) error {
	var s sight
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			s.Processes = append(s.Processes, pid)
		}
	}
	for _, place := range places {
		kind := "tcp"
		if strings.HasPrefix(place, "/") {
			kind = "unix"
			if _, err := os.Stat(place); err == nil { //nolint:gosec // likewise
				s.There = append(s.There, place)
			}
		}
		if conn, err := net.DialTimeout(kind, place, time.Second); err == nil { //nolint:gosec // likewise
			conn.Close()
			s.Sockets = append(s.Sockets, place)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}
