package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keepLog keeps what Caddy has said for whoever looks into a failure.
func keepLog(t *testing.T, col *column) {
	t.Helper()
	dir := os.Getenv("FAULTS_LOGS")
	if dir == "" {
		t.Log("to have Caddy's log kept, set FAULTS_LOGS to a folder")
		return
	}
	path := filepath.Join(dir, slug(string(col.when))+".log")
	if err := os.WriteFile(path, []byte(col.logged()), 0o600); err != nil {
		t.Error(err)
	}
	t.Logf("its log: %s", path)
}

// preface stands above the table in its file.
const preface = `# The fault matrix

What [faults](../faults) printed: each thing that an authorization server, the network, a file, the storage or a clock can do wrong, at each moment at which it may happen. Every cell is a test; an empty one, or one that failed, would have failed the run. To have it again, from the repository's root: ` + "`go test -count=1 -v ./faults -matrix docs/faults.md`" + `

What a cell says is what the clients of the proxy got, and what the token request came to: ` + "`token`" + ` (one that is used), or one of the three failures: ` + "`unreachable`, `refused`, `malformed`" + `.

| column | what is done | what has to come of it, beside what the cell says |
| --- | --- | --- |
| first token | the fault is there when Caddy starts | without a token nothing goes to the API; a request waits through a first ` + "`unreachable`" + ` and fails at once after a second, with Retry-After and Proxy-Status; once the fault is mended there is a token, with nobody's doing |
| refresh | a token is held and due | every request is served with it; once the fault is mended it is renewed, with nobody's doing |
| forced | an upstream refuses the token held, with ` + "`error=\"invalid_token\"`" + ` | the token request that this causes meets the fault. Where it brings a token the transport makes the request again (200), and the handler does not (401). Where it fails, the client gets the API's own answer (401), and the token serves on |
| at shutdown | SIGTERM, while the token request is under way and a request waits for it | the request gets a whole answer, and Caddy exits with 0, in bounded time |
| during a reload | the config is replaced while the token request is under way | the reload waits for nothing and causes no other token request; no request is lost, and the token is kept |

In all of them: a pause after each token request, and never less than the server's Retry-After; no redirect followed; no request at a server that could not be trusted; no secret and no token in an answer, in the log, or at a server that is not its own; no data race (with ` + "`-race`" + `); and once the credentials are taken out of the config, no goroutine of theirs is left.

`

// tabulate prints the table, and writes it to the file that is asked for.
func tabulate(t *testing.T, lines []line, columns []*column) {
	t.Helper()
	var b strings.Builder
	b.WriteString("| fault |")
	for _, col := range columns {
		fmt.Fprintf(&b, " %s |", col.when)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(columns)) + "\n")
	green, red := 0, 0
	cell := func(said string, failed bool) {
		if green++; failed || said == "" {
			green--
			red++
			said = "**failed**"
		}
		fmt.Fprintf(&b, " %s |", said)
	}
	for n, l := range lines {
		fmt.Fprintf(&b, "| %s |", strings.ReplaceAll(l.name, "|", "\\|"))
		for _, col := range columns {
			cell(col.order[n].sum, len(col.order[n].problems) > 0)
		}
		b.WriteString("\n")
	}
	for _, l := range clockLines {
		fmt.Fprintf(&b, "| %s |", l.name)
		for _, col := range columns {
			cell("ok, in a bubble", !col.bubbles[l.name])
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\n%d faults, %d cells: %d green, %d red, none skipped.\n", len(lines)+len(clockLines), green+red, green, red)
	canaries.print(&b, len(lines)*len(columns))
	t.Logf("\n%s", b.String())
	if *matrixFile != "" && !t.Failed() {
		if err := os.WriteFile(filepath.Join("..", *matrixFile), []byte(preface+b.String()), 0o644); err != nil {
			t.Error(err)
		}
	}
}
