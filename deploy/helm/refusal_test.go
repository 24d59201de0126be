package helm

import (
	"strings"
	"testing"
)

// TestRefused: what cannot work is refused before anything is installed, with what
// is wrong and what to do.
func TestRefused(t *testing.T) {
	t.Parallel()
	const login = "caddyfile: \"\\tgrant authorization_code\""
	for _, c := range []struct{ name, values, version, want string }{
		{"no application", `application: {containers: []}`, "", "application.containers is empty"},
		{"no upstream", `upstream: ""`, "", "upstream is not set"},
		{"no server", `tokenUrl: ""`, "", "neither tokenUrl nor issuer is set"},
		{"two servers", `issuer: https://idp.example.com`, "", "tokenUrl and issuer are both set"},
		{"no client", `clientId: ""`, "", "clientId is not set: client_secret_basic sends it"},
		{"no secret", `secret: {name: ""}`, "", "secret.name is not set"},
		{"no key", `{clientAuth: private_key_jwt, secret: {name: ""}}`, "", "private_key_jwt proves the client by what is in a Secret"},
		{"no certificate", `{clientAuth: tls_client_auth, secret: {name: ""}}`, "", "tls_client_auth proves the client by what is in a Secret"},
		{"no audience", `clientAuth: jwt_file`, "", "serviceAccountToken.audience is not set"},
		{"one port", `statusPort: 8080`, "", "listenPort and statusPort are both 8080"},
		{"the application's port", `application: {containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}`, "", "the container web listens on 8080, and so does the sidecar: a pod's containers share their ports, so set listenPort to another"},
		{"the application's other port", `application: {containers: [{name: web, image: web, ports: [{containerPort: 9180}]}]}`, "", "set statusPort to another"},
		{"the application's name", `application: {containers: [{name: upstream-auth, image: web}]}`, "", "called upstream-auth"},
		{"Job on an older cluster", `workload: {kind: Job}`, older, "a Job would never end"},
		{"CronJob without native sidecars", `{workload: {kind: CronJob, schedule: "@daily"}, sidecar: {native: false}}`, "", "a CronJob would never end"},
		{"no schedule", `workload: {kind: CronJob}`, "", "workload.schedule is not set"},
		{"no time to stop", `sidecar: {shutdownDelaySeconds: 30}`, older, "shutdownDelaySeconds does not fit"},
		{"nobody reads the token", `tokenFile: {enabled: true}`, "", "tokenFile.containers names nobody"},
		{"a stranger reads the token", `tokenFile: {enabled: true, containers: [web]}`, "", "tokenFile.containers names web"},
		{"two token files", `{tokenFile: {enabled: true, containers: [legacy]}, credentialOptions: "token_file /x"}`, "", "token_file stands in credentialOptions"},
		{"no token file", `{tokenFile: {enabled: true, containers: [legacy]}, caddyfile: "{}"}`, "", "your caddyfile writes none"},
		{"Prometheus shut out", `{podMonitor: {enabled: true}, networkPolicy: {enabled: true, metricsFrom: []}}`, "", "Prometheus would be shut out"},
		{"a login that is lost", "{" + login + "}", "", "set persistence.enabled"},
		{"a refresh token that is lost", `credentialOptions: "grant refresh_token {file./a}"`, "", "set persistence.enabled"},
		{"one volume, two replicas", `{persistence: {enabled: true}, workload: {replicas: 2}}`, "", "2 replicas cannot all have a volume with accessModes ReadWriteOnce"},
		{"one login, two replicas", "{" + login + `, persistence: {enabled: true, accessModes: [ReadWriteMany]}, workload: {replicas: 2}}`, "", "end each other's login"},
		{"one refresh token, two volumes", `{credentialOptions: "grant refresh_token {file./a}", persistence: {enabled: true}, workload: {kind: StatefulSet, replicas: 2}}`, "", "the same refresh token"},
		{"containers in pod.spec", `pod: {spec: {containers: []}}`, "", "pod.spec has containers"},
		{"a template in workload.spec", `workload: {spec: {template: {}}}`, "", "workload.spec has template"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			version := c.version
			if version == "" {
				version = current
			}
			_, err := render(t.Context(), load(t), version, with(t, minimal, c.values))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want one with %q", err, c.want)
			}
		})
	}
}
