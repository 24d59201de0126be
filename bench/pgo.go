package main

import (
	"bytes"
	"compress/gzip"
	"context"
	wire "encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	pgoSlice  = 5 * time.Second // of load on one program, before the next one has its turn
	pgoRounds = 3
	pgoTokens = 4 * time.Second // so that some are renewed under load
	// pgoSize is how large a profile may become, in bytes: it lies in the
	// repository, and each one that was ever there stays in its history.
	pgoSize = 150_000
)

// pgoFiles are where Go looks for the profile of a program, by itself.
var pgoFiles = []string{"cmd/caddy/default.pgo", "cmd/sidecar/default.pgo"}

// pgo makes the profile by which Go builds our programs: of both ways to use the
// module, with a few bodies and renewals, in both programs. It is one profile for
// both, since what they do with a request is the same.
func pgo(ctx context.Context, dir string) error {
	on, undo := pin()
	defer undo()
	probes, err := pgoProbes(ctx, dir, on)
	defer func() {
		for _, p := range probes {
			p.close()
		}
	}()
	if err != nil {
		return err
	}
	args := []string{"tool", "pprof", "-proto", "-symbolize=none", "-output=" + filepath.Join(dir, "merged")}
	total := 0
	for range pgoRounds {
		for _, p := range probes {
			text, b, err := p.take(ctx, pgoSlice)
			if err != nil {
				return err
			}
			total += b.requests
			args = append(args, filepath.Join(dir, fmt.Sprintf("profile%d", len(args))))
			if err := os.WriteFile(args[len(args)-1], text, 0o600); err != nil {
				return err
			}
		}
	}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("merging the profiles: %w\n%s", err, out)
	}
	merged, err := os.ReadFile(filepath.Join(dir, "merged"))
	if err != nil {
		return err
	}
	text, err := withoutPaths(merged)
	if err != nil {
		return err
	}
	if len(text) > pgoSize {
		return fmt.Errorf("the profile has %d bytes, more than %d: take fewer samples", len(text), pgoSize)
	}
	for _, path := range pgoFiles {
		if err := os.WriteFile(path, text, 0o644); err != nil { //nolint:gosec // a file of the repository
			return err
		}
	}
	fmt.Printf("  a profile of %d requests, %d bytes: %s\n", total, len(text), strings.Join(pgoFiles, ", "))
	return nil
}

// pgoProbes run the programs as they are without a profile.
func pgoProbes(ctx context.Context, dir string, on pins) (probes []*probe, err error) {
	for _, s := range []struct{ name, from, site string }{
		{"the sidecar", "cmd/sidecar", withTransport},
		{"the handler", "cmd/caddy", withHandler},
		{"the transport", "cmd/caddy", withTransport},
	} {
		path, err := program(ctx, dir, s.from, "-pgo=off")
		if err != nil {
			return probes, err
		}
		p, err := newProbe(ctx, dir, subject{name: s.name, command: caddy(path, options, s.site)}, pgoTokens, on)
		if err != nil {
			return probes, err
		}
		probes = append(probes, p)
	}
	return probes, nil
}

// withoutPaths takes the folders out of a profile, of which the programs' own
// names tell: all else is named by its module. A profile is a message of
// protocol buffers in which field 6 is a text that others refer to by its number.
func withoutPaths(profile []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(profile))
	if err != nil {
		return nil, fmt.Errorf("the profile: %w", err)
	}
	message, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("the profile: %w", err)
	}
	out := make([]byte, 0, len(message))
	for len(message) > 0 {
		field, whole, content, err := nextField(message)
		if err != nil {
			return nil, err
		}
		if field == 6 && bytes.HasPrefix(content, []byte("/")) {
			content = []byte(filepath.Base(string(content)))
			out = append(out, 6<<3|2)
			out = append(wire.AppendUvarint(out, uint64(len(content))), content...)
		} else {
			out = append(out, message[:whole]...)
		}
		message = message[whole:]
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(out)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

// errField is a profile that cannot be read.
var errField = errors.New("the profile is cut off, or has another form")

// nextField is the number of the first field of a message, how many bytes it
// takes as a whole, and its content if that is not a number.
func nextField(message []byte) (field uint64, whole int, content []byte, err error) {
	tag, n := wire.Uvarint(message)
	if n <= 0 {
		return 0, 0, nil, errField
	}
	value, m := wire.Uvarint(message[n:])
	if m <= 0 {
		return 0, 0, nil, errField
	}
	switch tag & 7 {
	case 0:
		return tag >> 3, n + m, nil, nil
	case 2:
		if rest := message[n+m:]; value <= uint64(len(rest)) {
			return tag >> 3, n + m + int(value), rest[:value], nil //nolint:gosec // it fits
		}
	}
	return 0, 0, nil, errField
}
