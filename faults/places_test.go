package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// place is somewhere that a secret could come to light.
type place struct {
	name string
	read func(ctx context.Context, col *column) (string, error)
}

// places are read while the faults are there, again and again. What has to be
// read at the end is in atLast; answers to clients are searched as they come.
var places = []place{
	{name: "the metrics", read: fromAdmin("/metrics")},
	{name: "the config dump", read: fromAdmin("/config/")},
	{name: "the goroutine dump", read: fromAdmin("/debug/pprof/goroutine?debug=2")},
	{name: "the process's variables", read: fromAdmin("/debug/vars")},
	{name: "the list of upstreams", read: fromAdmin("/reverse_proxy/upstreams")},
	{name: "the autosave file", read: fromFiles("caddy")},
	{name: theStorage, read: fromFiles("storage")},
	{name: "the admin API", read: fromAdmin("/upstream_auth/credentials")},
	{name: "the status page", read: fromSite(statusPath, "text/html")},
	{name: "the status as JSON", read: fromSite(statusPath, "application/json")},
}

const statusPath = "/status"

// theStorage is sealed, but for a column that looks at it by itself.
const theStorage = "the storage"

func fromAdmin(path string) func(context.Context, *column) (string, error) {
	return func(ctx context.Context, col *column) (string, error) { return col.adminGet(ctx, path) }
}

// fromSite asks a site of Caddy's, whatever the status of the answer.
func fromSite(path, accept string) func(context.Context, *column) (string, error) {
	return func(ctx context.Context, col *column) (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://faults"+path, nil)
		if err != nil {
			return "", err
		}
		req.Header.Set("Accept", accept)
		res, err := col.client.Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if kind := res.Header.Get("Content-Type"); err == nil && !strings.HasPrefix(kind, accept) {
			err = fmt.Errorf("%s answers %s with %q, want %s", path, res.Status, kind, accept)
		}
		return fmt.Sprint(res.Header) + "\n" + string(body), err
	}
}

// fromFiles reads a folder, names and all. A file may go while it is read.
func fromFiles(folder string) func(context.Context, *column) (string, error) {
	return func(_ context.Context, col *column) (string, error) {
		var all strings.Builder
		err := filepath.WalkDir(filepath.Join(col.dir, folder), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			fmt.Fprintf(&all, "%s\n%s\n", strings.TrimPrefix(path, col.dir), content)
			return err
		})
		return all.String(), err
	}
}

// watch reads all places for whoever asks for it; those who ask at the same time
// share one reading.
type watch struct {
	mu   sync.Mutex
	next chan struct{} // closed when a reading is done that has not begun yet
	wake chan struct{}
	stop chan struct{}
	wg   sync.WaitGroup
}

// gather is how long others are waited for, who share a reading.
const gather = 5 * time.Second

// look has every place be read, from now on, and returns when that is done: what
// a fault could have brought to light there is there.
func (c *cell) look() {
	w := &c.column.watch
	w.mu.Lock()
	if w.next == nil {
		w.next = make(chan struct{})
		w.wake <- struct{}{}
	}
	next := w.next
	w.mu.Unlock()
	select {
	case <-next:
	case <-c.column.ended:
		return
	}
	own := place{name: "the admin API, of one credential", read: fromAdmin("/upstream_auth/credentials/" + c.name)}
	c.column.readOne(own)
}

// watches begins to read for others.
func (col *column) watches() {
	w := &col.watch
	w.wake, w.stop = make(chan struct{}, 1), make(chan struct{})
	w.wg.Go(func() {
		for {
			select {
			case <-w.wake:
			case <-w.stop:
				return
			case <-col.ended:
				return
			}
			<-time.After(gather)
			w.mu.Lock()
			done := w.next
			w.next = nil
			w.mu.Unlock()
			col.readAll()
			close(done)
		}
	})
}

// readAll reads and searches every place.
func (col *column) readAll() {
	for _, p := range places {
		col.readOne(p)
	}
}

// readOne reads and searches one.
func (col *column) readOne(p place) {
	if p.name == theStorage && col.plain {
		return
	}
	var text string
	err := col.poll(p.name, func(ctx context.Context) (err error) {
		text, err = p.read(ctx, col)
		return err
	})
	select {
	case <-col.ended:
		return
	default:
	}
	if err != nil {
		col.fail("%v", err)
		return
	}
	col.clean(p.name, text)
}

// clean wants nothing to be found in a place.
func (col *column) clean(place, text string) {
	problems := col.canary.clean(place, text)
	for _, problem := range problems[:min(len(problems), 5)] {
		col.fail("%s", problem)
	}
}

// atLast searches what is whole when Caddy has ended: all that it has printed,
// the events, and every file that it has left.
func (col *column) atLast() {
	col.clean("the log, at debug level, and all else that is printed", col.logged())
	for name, folder := range map[string]string{theStorage: "storage", "the autosave file": "caddy", "the events": eventsFile} {
		text, err := fromFiles(folder)(context.Background(), col)
		if err != nil {
			col.fail("%s: %v", name, err)
		}
		if text == "" && name != theStorage {
			col.fail("%s: there is nothing to search", name)
		}
		col.clean(name, text)
	}
}
