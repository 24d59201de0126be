package main

import (
	"slices"
	"testing"
	"time"
)

func TestPlanIsOfTheSeed(t *testing.T) {
	one, again, other := plan(7, 20*time.Minute, 10*time.Second), plan(7, 20*time.Minute, 10*time.Second), plan(8, 20*time.Minute, 10*time.Second)
	if !slices.Equal(one, again) {
		t.Error("the same seed gave two schedules")
	}
	if slices.Equal(one, other) {
		t.Error("two seeds gave one schedule")
	}
}

func TestPlan(t *testing.T) {
	const ttl = 10 * time.Second
	for _, length := range []time.Duration{time.Minute, 20 * time.Minute} {
		kinds := make(map[string]int)
		for seed := range uint64(20) {
			over := make(map[int]time.Duration)
			for _, e := range plan(seed, length, ttl) {
				kinds[e.kind]++
				if e.at < over[e.lane] {
					t.Errorf("%s, seed %d: %v begins before the one before it is over", length, seed, e)
				}
				over[e.lane] = e.at + e.lasts
				if e.at < min(length/8, 90*time.Second) || over[e.lane] > length-ttl {
					t.Errorf("%s, seed %d: %v disturbs the calm at the ends", length, seed, e)
				}
				if e.kind == caddyRestarted && length > 5*time.Minute && e.at > length/3+time.Minute {
					t.Errorf("%s, seed %d: %v leaves no long life to look at", length, seed, e)
				}
				if e.lane > 0 && e.credential != names()[e.lane-1] {
					t.Errorf("%s, seed %d: %v stands in lane %d", length, seed, e, e.lane)
				}
			}
		}
		for _, kind := range slices.Concat(processKinds, answerKinds) {
			if kinds[kind] < 10 {
				t.Errorf("%s: %d times %s in 20 schedules", length, kinds[kind], kind)
			}
		}
	}
}
