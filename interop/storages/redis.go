package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/redis/go-redis/v9"
)

const (
	redisLife  = 10 * time.Second // of a lock whose holder is not heard of
	redisRenew = 3 * time.Second
	redisPoll  = 200 * time.Millisecond
)

// redisStorage keeps each value in a hash of its own. A lock is a key with a
// random token, which ends by itself unless it is renewed.
type redisStorage struct {
	client *redis.Client

	mu    sync.Mutex
	locks map[string]*redisLock // those that are held here
}

type redisLock struct {
	token string
	end   context.CancelFunc // of its renewal
}

func newRedis(address string) *redisStorage {
	return &redisStorage{
		client: redis.NewClient(&redis.Options{Addr: address, ContextTimeoutEnabled: true}),
		locks:  make(map[string]*redisLock),
	}
}

func (r *redisStorage) String() string { return "redis " + r.client.Options().Addr }

// MarshalJSON has those of one server share what they know of it.
func (r *redisStorage) MarshalJSON() ([]byte, error) {
	return json.Marshal(r.String())
}

const (
	valueField, timeField = "value", "modified"

	valuePrefix, lockPrefix = "caddy/", "caddy-lock/"
)

// Store implements certmagic.Storage.
func (r *redisStorage) Store(ctx context.Context, key string, value []byte) error {
	return r.client.HSet(ctx, valuePrefix+key, valueField, value, timeField, time.Now().UnixNano()).Err()
}

// Load implements certmagic.Storage.
func (r *redisStorage) Load(ctx context.Context, key string) ([]byte, error) {
	value, err := r.client.HGet(ctx, valuePrefix+key, valueField).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, fs.ErrNotExist
	}
	return value, err
}

// Delete implements certmagic.Storage: a folder goes with all that is in it.
func (r *redisStorage) Delete(ctx context.Context, key string) error {
	keys, err := r.List(ctx, key, true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for i := range keys {
		keys[i] = valuePrefix + keys[i]
	}
	return r.client.Del(ctx, append(keys, valuePrefix+key)...).Err()
}

// Exists implements certmagic.Storage.
func (r *redisStorage) Exists(ctx context.Context, key string) bool {
	_, err := r.Stat(ctx, key)
	return err == nil
}

// List implements certmagic.Storage.
func (r *redisStorage) List(ctx context.Context, folder string, recursive bool) ([]string, error) {
	prefix := valuePrefix
	if folder = path.Clean(folder); folder != "." {
		prefix += folder + "/"
	}
	var keys []string
	all := r.client.Scan(ctx, 0, escapePattern(prefix)+"*", 0).Iterator()
	for all.Next(ctx) {
		within := strings.TrimPrefix(all.Val(), prefix)
		if first, _, deeper := strings.Cut(within, "/"); deeper && !recursive {
			within = first
		}
		keys = append(keys, strings.TrimPrefix(prefix+within, valuePrefix))
	}
	if err := all.Err(); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, fs.ErrNotExist
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// escapePattern has a text stand for itself in a pattern.
func escapePattern(text string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`).Replace(text)
}

// Stat implements certmagic.Storage.
func (r *redisStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	fields, err := r.client.HMGet(ctx, valuePrefix+key, valueField, timeField).Result()
	if err != nil {
		return certmagic.KeyInfo{}, err
	}
	value, stored := fields[0].(string)
	if !stored {
		if _, err := r.List(ctx, key, false); err != nil {
			return certmagic.KeyInfo{}, err
		}
		return certmagic.KeyInfo{Key: key}, nil
	}
	var modified int64
	if _, err := fmt.Sscan(fmt.Sprint(fields[1]), &modified); err != nil {
		return certmagic.KeyInfo{}, err
	}
	return certmagic.KeyInfo{Key: key, Modified: time.Unix(0, modified), Size: int64(len(value)), IsTerminal: true}, nil
}

// Lock implements certmagic.Storage.
func (r *redisStorage) Lock(ctx context.Context, name string) error {
	token := rand.Text()
	poll := time.NewTicker(redisPoll)
	defer poll.Stop()
	for {
		err := r.client.SetArgs(ctx, lockPrefix+name, token, redis.SetArgs{Mode: "NX", TTL: redisLife}).Err()
		if err == nil {
			break
		}
		if !errors.Is(err, redis.Nil) {
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	renewing, end := context.WithCancel(context.Background())
	go r.renew(renewing, name, token)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.locks[name] = &redisLock{token, end}
	return nil
}

var (
	renewIfMine  = redis.NewScript(`return redis.call("GET", KEYS[1]) == ARGV[1] and redis.call("PEXPIRE", KEYS[1], ARGV[2]) or 0`)
	removeIfMine = redis.NewScript(`return redis.call("GET", KEYS[1]) == ARGV[1] and redis.call("DEL", KEYS[1]) or 0`)
)

// renew keeps a lock while it is this process's.
func (r *redisStorage) renew(ctx context.Context, name, token string) {
	tick := time.NewTicker(redisRenew)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		mine, err := renewIfMine.Run(ctx, r.client, []string{lockPrefix + name}, token, redisLife.Milliseconds()).Int()
		if err == nil && mine == 0 {
			return
		}
	}
}

var errNotHeld = errors.New("this lock is not held here")

// Unlock implements certmagic.Storage. It takes nobody else's lock.
func (r *redisStorage) Unlock(ctx context.Context, name string) error {
	r.mu.Lock()
	held := r.locks[name]
	delete(r.locks, name)
	r.mu.Unlock()
	if held == nil {
		return errNotHeld
	}
	held.end()
	mine, err := removeIfMine.Run(ctx, r.client, []string{lockPrefix + name}, held.token).Int()
	if err == nil && mine == 0 {
		err = errNotHeld
	}
	return err
}

// Interface guard
var _ certmagic.Storage = (*redisStorage)(nil)
