//go:build !race

package token

const dayInstances = 1000
