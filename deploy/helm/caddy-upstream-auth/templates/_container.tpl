{{/* The sidecar for a pod of your own: put the first at the head of its init
containers, and the second at the head of its containers. One of the two is
empty: which, is for the cluster to say. */}}

{{- define "caddy-upstream-auth.initContainers" -}}
{{- if include "caddy-upstream-auth.native" . -}}
- {{ include "caddy-upstream-auth.container" . | nindent 2 | trim }}
{{- end -}}
{{- end -}}

{{- define "caddy-upstream-auth.containers" -}}
{{- if not (include "caddy-upstream-auth.native" .) -}}
- {{ include "caddy-upstream-auth.container" . | nindent 2 | trim }}
{{- end -}}
{{- end -}}

{{- define "caddy-upstream-auth.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The container itself, in the form that the cluster has. */}}
{{- define "caddy-upstream-auth.container" -}}
{{- $native := include "caddy-upstream-auth.native" . -}}
{{- $waits := eq .Values.probes.startup.waitFor "token" -}}
name: upstream-auth
image: {{ include "caddy-upstream-auth.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if $native }}
restartPolicy: Always
{{- end }}
args:
  - run
  - --config
  - /etc/caddy/Caddyfile
  - --adapter
  - caddyfile
  {{- if eq .Values.caddyfileReload "watch" }}
  - --watch
  {{- end }}
env:
  {{- include "caddy-upstream-auth.env" . | nindent 2 }}
{{- with .Values.sidecar.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: upstream-auth
    containerPort: {{ .Values.statusPort }}
{{- if and (not $native) $waits }}
lifecycle:
  postStart:
    exec:
      command:
        - /usr/bin/caddy
        - upstream-auth
        - status
        - --wait
        - {{ .Values.sidecar.startTimeout }}
        - --address
        - unix//run/caddy-upstream-auth/admin.sock
{{- end }}
{{- include "caddy-upstream-auth.probes" . }}
terminationMessagePolicy: FallbackToLogsOnError
{{- with .Values.sidecar.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.sidecar.securityContext | nindent 2 }}
volumeMounts:
  {{- include "caddy-upstream-auth.volumeMounts" . | nindent 2 }}
{{- end -}}

{{- define "caddy-upstream-auth.probes" -}}
{{- $native := include "caddy-upstream-auth.native" . -}}
{{- $waits := eq .Values.probes.startup.waitFor "token" -}}
{{- with .Values.probes.startup }}
{{- if or $native (not $waits) }}
startupProbe:
  httpGet:
    path: {{ ternary "/status" "/livez" $waits }}
    port: upstream-auth
  periodSeconds: {{ .periodSeconds }}
  timeoutSeconds: {{ .timeoutSeconds }}
  failureThreshold: {{ .failureThreshold }}
{{- end }}
{{- end }}
{{- with .Values.probes.readiness }}
{{- if .enabled }}
readinessProbe:
  httpGet:
    path: /status
    port: upstream-auth
  periodSeconds: {{ .periodSeconds }}
  timeoutSeconds: {{ .timeoutSeconds }}
  failureThreshold: {{ .failureThreshold }}
{{- end }}
{{- end }}
{{- with .Values.probes.liveness }}
{{- if .enabled }}
livenessProbe:
  httpGet:
    path: /livez
    port: upstream-auth
  periodSeconds: {{ .periodSeconds }}
  timeoutSeconds: {{ .timeoutSeconds }}
  failureThreshold: {{ .failureThreshold }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What the Caddyfile is filled in with. "$(" is for Kubernetes to expand, so it
is written as "$$(". */}}
{{- define "caddy-upstream-auth.env" -}}
{{- $settings := list
  (list "UPSTREAM" .Values.upstream)
  (list "TOKEN_URL" .Values.tokenUrl)
  (list "ISSUER" .Values.issuer)
  (list "CLIENT_ID" .Values.clientId) -}}
{{- if and (include "caddy-upstream-auth.sharedSecret" .) .Values.secret.name -}}
{{- $settings = concat $settings (list
  (list "CLIENT_AUTH" .Values.clientAuth)
  (list "CLIENT_SECRET_FILE" (printf "/run/secrets/upstream-auth/%s" .Values.secret.key))) -}}
{{- end -}}
{{- $settings = append $settings (list "CREDENTIAL_OPTIONS" (include "caddy-upstream-auth.credentialOptions" .)) -}}
{{- $settings = append $settings (list "LISTEN_PORT" (toString .Values.listenPort)) -}}
{{- $settings = append $settings (list "STATUS_PORT" (toString .Values.statusPort)) -}}
{{- if not (include "caddy-upstream-auth.native" .) -}}
{{- $settings = append $settings (list "SHUTDOWN_DELAY" (printf "%ds" (int .Values.sidecar.shutdownDelaySeconds))) -}}
{{- end -}}
- name: STATUS_BIND
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- range $settings }}
{{- if index . 1 }}
- name: {{ index . 0 }}
  value: {{ index . 1 | replace "$(" "$$(" | quote }}
{{- end }}
{{- end }}
{{- with .Values.sidecar.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
