{{/* What can be told to be wrong before anything is installed. */}}

{{/* "true" if two pods at a time cannot both have the storage, else nothing. */}}
{{- define "caddy-upstream-auth.oneAtATime" -}}
{{- if and .Values.persistence.enabled (not (has "ReadWriteMany" .Values.persistence.accessModes)) -}}true{{- end -}}
{{- end -}}

{{/* "true" if a credential keeps a refresh token, else nothing. */}}
{{- define "caddy-upstream-auth.login" -}}
{{- if regexMatch `(?m)^\s*grant\s+(refresh_token|authorization_code)\b` (printf "%s\n%s" .Values.caddyfile .Values.credentialOptions) -}}true{{- end -}}
{{- end -}}

{{- define "caddy-upstream-auth.checkSettings" -}}
{{- $v := .Values -}}
{{- if not $v.caddyfile -}}
{{- if not $v.upstream -}}
{{- fail "upstream is not set: the API that the application calls, as https://api.example.com, or set caddyfile to a Caddyfile of your own" -}}
{{- end -}}
{{- if and $v.tokenUrl $v.issuer -}}
{{- fail "tokenUrl and issuer are both set: the credential takes one of them" -}}
{{- end -}}
{{- if not (or $v.tokenUrl $v.issuer) -}}
{{- fail "neither tokenUrl nor issuer is set: where the token comes from, as tokenUrl: https://idp.example.com/token" -}}
{{- end -}}
{{- if and (not $v.clientId) (ne $v.clientAuth "jwt_file") -}}
{{- fail (printf "clientId is not set: %s sends it" $v.clientAuth) -}}
{{- end -}}
{{- if and (not $v.secret.name) (not (has $v.clientAuth (list "jwt_file" "none"))) -}}
{{- fail (printf "secret.name is not set: %s proves the client by what is in a Secret" $v.clientAuth) -}}
{{- end -}}
{{- if and (eq $v.clientAuth "jwt_file") (not $v.serviceAccountToken.audience) -}}
{{- fail "serviceAccountToken.audience is not set: jwt_file sends a token of the service account, and the server looks for its own name in it" -}}
{{- end -}}
{{- if and $v.tokenFile.enabled (regexMatch `(?m)^\s*token_file\s` $v.credentialOptions) -}}
{{- fail "token_file stands in credentialOptions, and tokenFile.enabled writes it too: leave out one of them" -}}
{{- end -}}
{{- else -}}
{{- if and $v.tokenFile.enabled (not (contains $v.tokenFile.mountPath $v.caddyfile)) -}}
{{- fail (printf "tokenFile is enabled, and your caddyfile writes none: token_file %s/token in a credential" $v.tokenFile.mountPath) -}}
{{- end -}}
{{- end -}}
{{- if and (include "caddy-upstream-auth.login" .) (not $v.persistence.enabled) -}}
{{- fail "a refresh token is kept in the storage, and the storage ends with the pod: set persistence.enabled" -}}
{{- end -}}
{{- if eq (int $v.listenPort) (int $v.statusPort) -}}
{{- fail (printf "listenPort and statusPort are both %d: the proxy and the status need a port each" (int $v.listenPort)) -}}
{{- end -}}
{{- if and $v.podMonitor.enabled $v.networkPolicy.enabled (not $v.networkPolicy.metricsFrom) -}}
{{- fail "podMonitor is enabled, and networkPolicy.metricsFrom is empty: Prometheus would be shut out" -}}
{{- end -}}
{{- if and (not .Chart.IsRoot) (not $v.application.containers) $v.service.ports -}}
{{- fail "service.ports is set, and this chart makes no pods here: the Service belongs into the chart that makes them" -}}
{{- end -}}
{{- end -}}

{{- define "caddy-upstream-auth.checkWorkload" -}}
{{- $v := .Values -}}
{{- $kind := $v.workload.kind -}}
{{- if not $v.application.containers -}}
{{- fail "application.containers is empty: a sidecar needs an application beside it, or make this chart a dependency of the application's own" -}}
{{- end -}}
{{- range concat $v.application.containers $v.application.initContainers -}}
{{- $name := .name -}}
{{- if eq $name "upstream-auth" -}}
{{- fail "a container of the application is called upstream-auth, as the sidecar is" -}}
{{- end -}}
{{- range .ports -}}
{{- if and (has (int .containerPort) (list (int $v.listenPort) (int $v.statusPort))) (eq (.protocol | default "TCP") "TCP") -}}
{{- fail (printf "the container %s listens on %d, and so does the sidecar: a pod's containers share their ports, so set %s to another" $name (int .containerPort) (ternary "listenPort" "statusPort" (eq (int .containerPort) (int $v.listenPort)))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $v.tokenFile.enabled -}}
{{- $names := list -}}
{{- range $v.application.containers -}}{{- $names = append $names .name -}}{{- end -}}
{{- if not $v.tokenFile.containers -}}
{{- fail "tokenFile is enabled, and tokenFile.containers names nobody who reads it" -}}
{{- end -}}
{{- range $v.tokenFile.containers -}}
{{- if not (has . $names) -}}
{{- fail (printf "tokenFile.containers names %s, and application.containers has no such one" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key := list "containers" "initContainers" "volumes" "securityContext" "serviceAccountName" "imagePullSecrets" "automountServiceAccountToken" "terminationGracePeriodSeconds" -}}
{{- if hasKey $v.pod.spec $key -}}
{{- fail (printf "pod.spec has %s: it has a value of its own in this chart" $key) -}}
{{- end -}}
{{- end -}}
{{- range $key := list "template" "selector" "replicas" "schedule" "serviceName" "volumeClaimTemplates" -}}
{{- if hasKey $v.workload.spec $key -}}
{{- fail (printf "workload.spec has %s: that is for this chart to say" $key) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $kind "CronJob") (not $v.workload.schedule) -}}
{{- fail "workload.schedule is not set: when the CronJob runs, as \"*/15 * * * *\"" -}}
{{- end -}}
{{- if not (include "caddy-upstream-auth.native" .) -}}
{{- if has $kind (list "Job" "CronJob") -}}
{{- fail (printf "a %s would never end: without native sidecars, which Kubernetes has from 1.29, it waits for the sidecar too" $kind) -}}
{{- end -}}
{{- if ge (int $v.sidecar.shutdownDelaySeconds) (int $v.pod.terminationGracePeriodSeconds) -}}
{{- fail "sidecar.shutdownDelaySeconds does not fit into pod.terminationGracePeriodSeconds: the sidecar would be killed before it is done" -}}
{{- end -}}
{{- end -}}
{{- include "caddy-upstream-auth.checkStorage" . -}}
{{- end -}}

{{/* Storage and replicas: two instances that do not share a rotating refresh token
end each other's login. */}}
{{- define "caddy-upstream-auth.checkStorage" -}}
{{- $v := .Values -}}
{{- $text := printf "%s\n%s" $v.caddyfile $v.credentialOptions -}}
{{- $login := include "caddy-upstream-auth.login" . -}}
{{- $shared := regexMatch `(?m)^\s*share\b` $text -}}
{{- $several := and (has $v.workload.kind (list "Deployment" "StatefulSet")) (gt (int $v.workload.replicas) 1) -}}
{{- if $several -}}
{{- if and (eq $v.workload.kind "Deployment") (include "caddy-upstream-auth.oneAtATime" .) -}}
{{- fail (printf "%d replicas cannot all have a volume with accessModes %s: one replica, ReadWriteMany, or a StatefulSet" (int $v.workload.replicas) (join ", " $v.persistence.accessModes)) -}}
{{- end -}}
{{- if and $login (not $shared) (not (include "caddy-upstream-auth.claimTemplate" .)) -}}
{{- fail "several replicas with one refresh token end each other's login: one replica, or \"share\" in the credential" -}}
{{- end -}}
{{- if and (include "caddy-upstream-auth.claimTemplate" .) (regexMatch `(?m)^\s*grant\s+refresh_token\b` $text) -}}
{{- fail "the replicas of a StatefulSet have a volume each, and would all begin with the same refresh token, which ends the login at most servers: one replica, or a Deployment with ReadWriteMany and \"share\"" -}}
{{- end -}}
{{- end -}}
{{- end -}}
