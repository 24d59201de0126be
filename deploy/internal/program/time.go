package program

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Time is the one that stands in all that is shipped: SOURCE_DATE_EPOCH, or else
// that of the commit.
// See https://reproducible-builds.org/specs/source-date-epoch/
func Time(ctx context.Context, source string) (time.Time, error) {
	text, given := os.LookupEnv("SOURCE_DATE_EPOCH")
	if !given {
		// a clone that belongs to another user is a clone all the same
		out, err := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "-C", source, "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("no time for the files: set SOURCE_DATE_EPOCH to seconds since 1970, or build from a git clone: %w", err)
		}
		text = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %q is no number of seconds since 1970", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
