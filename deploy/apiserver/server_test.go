// Package apiserver has a real Kubernetes API server take the manifests of the
// sidecar: with its validation, its defaults and its pod security admission, and
// the Prometheus Operator's resource definitions. The server and its etcd run in
// the test's process, on loopback; nothing else of a cluster does, so no pod is
// started.
//
//	cd deploy/apiserver && go test -count=1 -v ./...
//
// The first time it compiles all of Kubernetes' API server, which takes minutes
// and gigabytes, so CI leaves it out: see docs/kubernetes.md for when it was run.
package apiserver

import (
	"bytes"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app/testing"
)

// operator is the release whose resource definitions are used.
const operator = "github.com/prometheus-operator/prometheus-operator@v0.92.0"

// cluster is an API server, and what it has warned of.
type cluster struct {
	client  *kubernetes.Clientset
	objects *dynamic.DynamicClient
	kinds   *restmapper.DeferredDiscoveryRESTMapper

	mu       sync.Mutex
	warnings []string
}

// start starts one; it ends with the test.
func start(t *testing.T) *cluster {
	t.Helper()
	storage := storagebackend.NewDefaultConfig("/registry", nil)
	storage.Transport.ServerList = []string{etcd(t)}
	server := apiserver.StartTestServerOrDie(t, nil, nil, storage)
	t.Cleanup(server.TearDownFn)

	c := new(cluster)
	config := rest.CopyConfig(server.ClientConfig)
	config.WarningHandler = c
	config.QPS, config.Burst = 1000, 1000
	var err error
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	if c.objects, err = dynamic.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	c.kinds = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.client.Discovery()))
	return c
}

// etcd starts a store that forgets, and returns its address.
func etcd(t *testing.T) string {
	t.Helper()
	loopback := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config := embed.NewConfig()
	config.Dir = t.TempDir()
	config.LogLevel = "error"
	config.UnsafeNoFsync = true
	config.ListenClientUrls, config.AdvertiseClientUrls = loopback, loopback
	config.ListenPeerUrls, config.AdvertisePeerUrls = loopback, loopback
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	store, err := embed.StartEtcd(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	<-store.Server.ReadyNotify()
	return "http://" + store.Clients[0].Addr().String()
}

// HandleWarningHeader keeps what the server warns of: fields that are deprecated,
// and pods that would not be let in.
func (c *cluster) HandleWarningHeader(_ int, _, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warnings = append(c.warnings, text)
}

// warned returns the warnings since it was last asked.
func (c *cluster) warned() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	warnings := c.warnings
	c.warnings = nil
	return warnings
}

// definitions has the server know the Prometheus Operator's resources.
func (c *cluster) definitions(t *testing.T) {
	t.Helper()
	var module struct{ Dir, Error string }
	var stderr bytes.Buffer
	download := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", operator)
	download.Stderr = &stderr
	out, err := download.Output()
	if err == nil {
		err = json.Unmarshal(out, &module)
	}
	if err != nil || module.Dir == "" {
		t.Fatalf("go mod download %s: %v: %s%s", operator, err, module.Error, stderr.Bytes())
	}
	for plural, kind := range map[string]string{"podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"} {
		text, err := os.ReadFile(filepath.Join(module.Dir, "example/prometheus-operator-crd/monitoring.coreos.com_"+plural+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range documents(t, string(text)) {
			if err := c.apply(t, "", object); err != nil {
				t.Fatal(err)
			}
		}
		c.await(t, schema.GroupKind{Group: "monitoring.coreos.com", Kind: kind})
	}
}

// await waits until a kind is served.
func (c *cluster) await(t *testing.T, kind schema.GroupKind) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		c.kinds.Reset()
		mapping, err := c.kinds.RESTMapping(kind)
		if err == nil {
			_, err = c.objects.Resource(mapping.Resource).List(t.Context(), metav1.ListOptions{})
		}
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: %v", kind, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
