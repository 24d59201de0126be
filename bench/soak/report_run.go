package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// recoveries tells how soon each kind of outage was over for the clients.
func (f *findings) recoveries(out io.Writer) (wrong []string) {
	type kind struct {
		times   int
		longest time.Duration
	}
	kinds := make(map[string]*kind)
	for _, o := range f.outages {
		if !o.ended {
			wrong = append(wrong, fmt.Sprintf("an outage of %s since %s that is not over", o, f.at(o.from)))
			continue
		}
		if o.after > longestOutage && !o.noisy {
			wrong = append(wrong, fmt.Sprintf("an outage of %s since %s that was over at %s only, %s after all was well", o, f.at(o.from), f.at(o.to), brief(o.after)))
		}
		if kinds[o.kind] == nil {
			kinds[o.kind] = new(kind)
		}
		kinds[o.kind].times++
		kinds[o.kind].longest = max(kinds[o.kind].longest, o.after)
	}
	fmt.Fprintf(out, "\n%-16s %8s   %s\n", "outages", "times", "first good answer after all was well, at most")
	for _, name := range sortedKeys(kinds) {
		fmt.Fprintf(out, "%-16s %8d   %s\n", name, kinds[name].times, brief(kinds[name].longest))
	}
	return wrong
}

// processes tells what each Caddy weighed. How they ended is among the faults.
func (f *findings) processes(out io.Writer, race bool) (wrong []string) {
	fmt.Fprintln(out, "\nCaddy, at the least:")
	for _, l := range f.lives {
		g, enough := l.grows()
		if !enough {
			continue
		}
		fmt.Fprintln(out, " ", g)
		if what := g.leaks(race); what != "" && !f.noisy(g.last.at.Add(-g.span), g.last.at) {
			wrong = append(wrong, fmt.Sprintf("process %s has grown (%s): %s", l.process, what, g))
		}
	}
	return wrong
}

// ends tells of tokens at their end, of those that were revoked, and of the
// chains of refresh tokens.
func (f *findings) ends(out io.Writer) (wrong []string) {
	unchecked := 0
	for _, r := range f.refusals {
		if r.Verdict == verdictUnchecked {
			unchecked++
		}
	}
	fmt.Fprintf(out, "\nby the upstream's clock: %d with an expired token, %d overtaken by its end on their way, %d with one that the server could not be asked about\n",
		len(f.expired), f.overtaken, unchecked)
	for _, r := range f.expired[:min(3, len(f.expired))] {
		at := time.Unix(0, r.At)
		wrong = append(wrong, fmt.Sprintf("request %d of process %s reached the upstream at %s with token %s, which had ended %s before", r.Number, r.Process, f.at(at), r.Token, brief(at.Sub(time.Unix(r.Exp, 0)))))
	}
	for _, r := range f.strange[:min(3, len(f.strange))] {
		wrong = append(wrong, fmt.Sprintf("request %d of process %s reached the upstream at %s: %s, token %q", r.Number, r.Process, f.at(time.Unix(0, r.At)), r.Verdict, r.Token))
	}
	if n := len(f.expired); n > 3 {
		wrong = append(wrong, fmt.Sprintf("%d requests with an expired token in all", n))
	}
	if n := len(f.strange); n > 3 {
		wrong = append(wrong, fmt.Sprintf("%d requests with no token, another's, or a changed body in all", n))
	}
	logins := 0
	for _, l := range f.logins {
		switch l.because {
		case "":
		case unexplained:
			wrong = append(wrong, fmt.Sprintf("the refresh token of storage %d was refused before %s, and nothing explains it", l.storage, f.at(l.at)))
		default:
			logins++
		}
	}
	fmt.Fprintf(out, "revoked early: %d tokens; requests in flight for one of them that got a 401: %d at most\n", len(f.revoked), f.mostInFlight())
	fmt.Fprintf(out, "refresh tokens that the server ended: %d\n", logins)
	return wrong
}

// write writes all token requests into a file.
func (b *book) write(path string) error {
	var text strings.Builder
	for _, a := range b.asks {
		fmt.Fprintln(&text, b.line(a))
	}
	for _, w := range b.windows {
		fmt.Fprintf(&text, "fault: %s from %s to %s\n", w.kind, b.at(w.from), b.at(w.to))
	}
	return os.WriteFile(path, []byte(text.String()), 0o600)
}

// mostInFlight is the most 401s that one revocation brought to clients of one
// process while there was another token to be had.
func (f *findings) mostInFlight() int {
	most, each := 0, make(map[key]int)
	for _, j := range f.failures {
		if j.why == inFlight {
			k := key{j.process, j.token}
			each[k]++
			most = max(most, each[k])
		}
	}
	return most
}

// unexplained is a login for which there was no reason.
const unexplained = "nothing"

// whyEnded is the reason why the server took a refresh token no more. What was
// before the last login has nothing to do with it.
func (s *stage) whyEnded(refused ask) string {
	b := s.book
	b.mu.Lock()
	defer b.mu.Unlock()
	var since time.Time
	for _, l := range b.logins {
		if s.share || instanceOf(refused.process) == strconv.Itoa(l.storage) {
			since = l.at
		}
	}
	why := unexplained
	for _, a := range b.asks {
		if a.credential != refreshing || !s.share && instanceOf(a.process) != instanceOf(refused.process) {
			continue
		}
		switch lost := a.forwarded && a.delivered.IsZero() && a.code == ""; {
		case b.revoked[a.token].After(since):
			return "the grant was revoked"
		case lost && a.arrived.After(since) && a.arrived.Before(refused.arrived):
			why = "an answer was lost"
		}
	}
	return why
}

// instanceOf is the number of a process's instance.
func instanceOf(process string) string {
	number, _, _ := strings.Cut(process, "-")
	return number
}
