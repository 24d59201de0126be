// Package faults holds tests alone: the fault matrix. Each thing that an
// authorization server, the network, a file, the storage or a clock can do wrong
// is a line of one table, and each moment at which it may happen is a column:
// at the first token, at a refresh while a token is held, at one that an
// upstream's 401 forces, at a stop, and during a reload. Each cell says what has
// to come of it and is tested against real sockets.
//
// A column is one real Caddy, the test's own binary run as caddy, that holds a
// credential for each line, each with an authorization server of its own. So
// all cells run at once, and none is decided by how long something took.
//
// The lines are in lines_*_test.go, the columns in column_*_test.go. The whole
// table is docs/faults.md, written anew by
//
//	go test ./faults -matrix docs/faults.md
//
// (its path is that of the repository).
package faults
