package main

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"go.uber.org/zap"
)

// watchInterval is how long an edit of the configuration may go unseen.
const watchInterval = time.Second

// watch takes --watch out of the arguments of caddy run, and watches the file
// here: Caddy's own watch ends at the first edit that it cannot read, as that of
// a ConfigMap with a slip of the pen, and never sees the one that mends it.
//
// It does not have Caddy load the file by SIGUSR1: while a reload takes its
// time (shutdown_delay), a second one waits in Caddy's place for one signal, and
// the SIGTERM that comes then is lost.
func watch(args []string) []string {
	run := runArguments(args)
	if !run.watch || run.config == "" || run.resume {
		return args
	}
	if info, err := os.Stat(run.config); err != nil || !info.Mode().IsRegular() {
		return args // Caddy says what is wrong with it; and what is piped is read once
	}
	loaded, err := os.ReadFile(run.config)
	if err != nil {
		return args
	}
	go func() {
		for range time.Tick(watchInterval) {
			if caddy.ActiveContext().Context == nil {
				continue // the first configuration is still being loaded, and would replace this one
			}
			// one that is not there is about to be: a ConfigMap is swapped
			text, err := os.ReadFile(run.config) //nolint:gosec // the file that Caddy is told to read
			if err != nil || bytes.Equal(text, loaded) || caddy.Exiting() {
				continue
			}
			loaded = text
			reload(run.config, run.adapter)
		}
	}()
	return run.rest
}

// reload loads the file as Caddy does when it is told to by SIGUSR1.
func reload(file, adapter string) {
	log := func() *zap.Logger { return caddy.Log().Named("watcher").With(zap.String("file", file)) }
	log().Info("the config file has changed: reloading")
	config, _, _, err := caddycmd.LoadConfig(file, adapter)
	if err == nil {
		err = caddy.Load(config, true)
	}
	if err != nil {
		log().Error("failed to reload config from file", zap.Error(err))
		return
	}
	log().Info("successfully reloaded config from file")
}

// runFlags are what watch has to know of the arguments of caddy run.
type runFlags struct {
	config, adapter string
	watch, resume   bool
	rest            []string // without --watch
}

// runArguments reads the arguments of caddy run. What it does not know, as short
// options in one word, is Caddy's: then it tells of no watch.
func runArguments(args []string) (run runFlags) {
	if len(args) < 2 || args[1] != "run" {
		return run
	}
	run.rest = slices.Clone(args[:2])
	for i := 2; i < len(args); i++ {
		first := i
		name, value, given := strings.Cut(args[i], "=")
		on := true // of an option that is a switch
		switch name {
		case "--config", "-c", "--adapter", "-a", "--envfile", "--pidfile", "--pingback":
			if !given {
				if i++; i == len(args) {
					return runFlags{}
				}
				value = args[i]
			}
		case "--watch", "-w", "--resume", "-r", "--environ", "-e":
			if given {
				var err error
				if on, err = strconv.ParseBool(value); err != nil {
					return runFlags{}
				}
			}
		default:
			return runFlags{}
		}
		switch name {
		case "--config", "-c":
			run.config = value
		case "--adapter", "-a":
			run.adapter = value
		case "--resume", "-r":
			run.resume = on
		case "--watch", "-w":
			run.watch = on
			continue
		}
		run.rest = append(run.rest, args[first:i+1]...)
	}
	return run
}
