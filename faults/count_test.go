package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// print tells what was marked, where it was searched for, and what was found.
func (k *canary) print(b *strings.Builder, cells int) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var all tally
	for _, t := range k.places {
		all.times += t.times
		all.bytes += t.bytes
		all.found += t.found
	}
	b.WriteString("\n## Marks\n\n")
	fmt.Fprintf(b, "Everything secret carries a mark, or is learned where it is made. In %d cells, and in crashes and logins of their own, %s secrets of %d kinds passed, and were found on the wire %s times, where they belong. "+
		"They were searched for in %d places, %s in all, in each of %d spellings, and cut to %d characters: **%d found**.\n\n",
		cells, grouped(int64(total(k.made))), len(k.made), grouped(int64(total(k.passed))), len(k.places), megabytes(all.bytes), len(spellings), window, all.found)
	b.WriteString("| secret | made | seen to pass |\n| --- | --- | --- |\n")
	for _, kind := range slices.Sorted(maps.Keys(k.made)) {
		fmt.Fprintf(b, "| %s | %s | %s |\n", kind, grouped(int64(k.made[kind])), grouped(int64(k.passed[kind])))
	}
	b.WriteString("\n| place | searched | | found |\n| --- | --- | --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(k.places)) {
		t := k.places[name]
		fmt.Fprintf(b, "| %s | %s times | %s | %d |\n", name, grouped(int64(t.times)), megabytes(t.bytes), t.found)
	}
}

// grouped writes 12345 as 12,345.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
