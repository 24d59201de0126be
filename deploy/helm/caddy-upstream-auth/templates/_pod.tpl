{{/* Annotations that a pod with the sidecar needs: with caddyfileReload: restart
one that changes with the Caddyfile, else none. */}}
{{- define "caddy-upstream-auth.podAnnotations" -}}
{{- if eq .Values.caddyfileReload "restart" -}}
upstream-auth-caddyfile: {{ include "caddy-upstream-auth.caddyfile" . | sha256sum }}
{{- end -}}
{{- end -}}

{{/* The pod's securityContext. With fsGroup a volume belongs to a group that all
its containers are in: the sidecar writes to a claim, and the application reads
the token's file, whatever users they run as. */}}
{{- define "caddy-upstream-auth.podSecurityContext" -}}
{{- $context := deepCopy .Values.pod.securityContext -}}
{{- if and (or .Values.persistence.enabled .Values.tokenFile.enabled) (not (hasKey $context "fsGroup")) -}}
{{- $_ := set $context "fsGroup" 65532 -}}
{{- $_ := set $context "fsGroupChangePolicy" "OnRootMismatch" -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{/* The application's containers, and in those that are named the token's file. */}}
{{- define "caddy-upstream-auth.applicationContainers" -}}
{{- $reads := list -}}
{{- if .Values.tokenFile.enabled -}}{{- $reads = .Values.tokenFile.containers -}}{{- end -}}
{{- $mounts := include "caddy-upstream-auth.tokenFileMount" . | fromYamlArray -}}
{{- $containers := list -}}
{{- range .Values.application.containers -}}
{{- $container := deepCopy . -}}
{{- if has .name $reads -}}
{{- $_ := set $container "volumeMounts" (concat ($container.volumeMounts | default list) $mounts) -}}
{{- end -}}
{{- $containers = append $containers $container -}}
{{- end -}}
{{- toYaml $containers -}}
{{- end -}}

{{/* The template of a pod: the application with the sidecar. */}}
{{- define "caddy-upstream-auth.podTemplate" -}}
{{- /* else kubectl logs and kubectl exec mean the first container */ -}}
{{- $annotations := dict "kubectl.kubernetes.io/default-container" (first .Values.application.containers).name -}}
{{- $annotations = merge (include "caddy-upstream-auth.podAnnotations" . | fromYaml) (deepCopy .Values.pod.annotations) $annotations -}}
{{- $labels := merge (include "caddy-upstream-auth.podLabels" . | fromYaml) (include "caddy-upstream-auth.selectorLabels" . | fromYaml) .Values.pod.labels -}}
metadata:
  annotations:
    {{- toYaml $annotations | nindent 4 }}
  labels:
    {{- toYaml $labels | nindent 4 }}
spec:
  {{- if has .Values.workload.kind (list "Job" "CronJob") }}
  {{- if not (hasKey .Values.pod.spec "restartPolicy") }}
  restartPolicy: Never
  {{- end }}
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with .Values.pod.serviceAccountName }}
  serviceAccountName: {{ . }}
  {{- end }}
  automountServiceAccountToken: {{ .Values.pod.automountServiceAccountToken }}
  terminationGracePeriodSeconds: {{ int .Values.pod.terminationGracePeriodSeconds }}
  securityContext:
    {{- include "caddy-upstream-auth.podSecurityContext" . | nindent 4 }}
  {{- $init := include "caddy-upstream-auth.initContainers" . }}
  {{- if or $init .Values.application.initContainers }}
  initContainers:
    {{- with $init }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .Values.application.initContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    {{- with include "caddy-upstream-auth.containers" . }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- include "caddy-upstream-auth.applicationContainers" . | nindent 4 }}
  volumes:
    {{- include "caddy-upstream-auth.volumes" . | nindent 4 }}
    {{- with .Values.application.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.pod.spec }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
