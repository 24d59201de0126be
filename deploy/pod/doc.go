// Package pod plays the life of a pod: its tests are a small kubelet, which
// starts the containers of a real pod template as real processes in namespaces
// of their own, with the image as their root file system, and a cluster around
// them: an authorization server, an API, a resolver, and a neighbour.
//
//	go test -count=1 -v ./pod
//
// It needs root on Linux, for the namespaces, and no container runtime. When
// its process ends, however that comes, the kernel takes all of it away but an
// empty temporary folder.
package pod
