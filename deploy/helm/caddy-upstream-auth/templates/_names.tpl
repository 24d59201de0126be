{{/* What things are called, and what they are known by. */}}

{{- define "caddy-upstream-auth.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 52 characters, so that a CronJob may have it, and what is added fits. */}}
{{- define "caddy-upstream-auth.fullname" -}}
{{- $name := include "caddy-upstream-auth.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What a Deployment, a StatefulSet and a Service find the pods by: it never
changes. */}}
{{- define "caddy-upstream-auth.selectorLabels" -}}
app.kubernetes.io/name: {{ include "caddy-upstream-auth.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "caddy-upstream-auth.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "caddy-upstream-auth.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* What the NetworkPolicy and the PodMonitor find the pods by. Of a pod of your
own these are the labels to add. */}}
{{- define "caddy-upstream-auth.podLabels" -}}
upstream-auth: sidecar
upstream-auth-instance: {{ include "caddy-upstream-auth.fullname" . }}
{{- end -}}

{{/* "true" for a native sidecar, else nothing. */}}
{{- define "caddy-upstream-auth.native" -}}
{{- if eq (toString .Values.sidecar.native) "auto" -}}
{{- if semverCompare ">=1.29.0-0" .Capabilities.KubeVersion.Version -}}true{{- end -}}
{{- else if .Values.sidecar.native -}}true{{- end -}}
{{- end -}}

{{- define "caddy-upstream-auth.claimName" -}}
{{- .Values.persistence.existingClaim | default (printf "%s-data" (include "caddy-upstream-auth.fullname" .)) -}}
{{- end -}}

{{/* "true" if the method proves the client by a shared secret, else nothing. */}}
{{- define "caddy-upstream-auth.sharedSecret" -}}
{{- if hasPrefix "client_secret_" .Values.clientAuth -}}true{{- end -}}
{{- end -}}

{{/* "true" if each replica gets a claim of its own, else nothing. */}}
{{- define "caddy-upstream-auth.claimTemplate" -}}
{{- if and .Values.persistence.enabled (eq .Values.workload.kind "StatefulSet") (not .Values.persistence.existingClaim) .Values.application.containers -}}true{{- end -}}
{{- end -}}
