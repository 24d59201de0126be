{{- define "caddy-upstream-auth.volumeMounts" -}}
- name: upstream-auth-caddyfile
  mountPath: /etc/caddy
  readOnly: true
{{- if .Values.secret.name }}
- name: upstream-auth-secret
  mountPath: /run/secrets/upstream-auth
  readOnly: true
{{- end }}
{{- if .Values.serviceAccountToken.audience }}
- name: upstream-auth-token
  mountPath: /var/run/secrets/tokens
  readOnly: true
{{- end }}
- name: upstream-auth-run
  mountPath: /run/caddy-upstream-auth
- name: upstream-auth-data
  mountPath: /data
{{- if .Values.tokenFile.enabled }}
- name: upstream-auth-token-file
  mountPath: {{ .Values.tokenFile.mountPath }}
{{- end }}
{{- with .Values.sidecar.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What a container of the application mounts to read the token. */}}
{{- define "caddy-upstream-auth.tokenFileMount" -}}
{{- if .Values.tokenFile.enabled -}}
- name: upstream-auth-token-file
  mountPath: {{ .Values.tokenFile.mountPath }}
  readOnly: true
{{- end -}}
{{- end -}}

{{/* The volumes that a pod needs for the sidecar. */}}
{{- define "caddy-upstream-auth.volumes" -}}
- name: upstream-auth-caddyfile
  configMap:
    name: {{ include "caddy-upstream-auth.fullname" . }}-caddyfile
{{- with .Values.secret.name }}
- name: upstream-auth-secret
  secret:
    secretName: {{ . }}
{{- end }}
{{- with .Values.serviceAccountToken }}
{{- if .audience }}
- name: upstream-auth-token
  projected:
    sources:
      - serviceAccountToken:
          path: idp
          audience: {{ .audience | quote }}
          expirationSeconds: {{ int .expirationSeconds }}
{{- end }}
{{- end }}
- name: upstream-auth-run
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- if .Values.persistence.enabled }}
{{- if not (include "caddy-upstream-auth.claimTemplate" .) }}
- name: upstream-auth-data
  persistentVolumeClaim:
    claimName: {{ include "caddy-upstream-auth.claimName" . }}
{{- end }}
{{- else }}
- name: upstream-auth-data
  emptyDir:
    sizeLimit: 64Mi
{{- end }}
{{- if .Values.tokenFile.enabled }}
- name: upstream-auth-token-file
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The claim, as an object of its own or as a StatefulSet's template. */}}
{{- define "caddy-upstream-auth.claimSpec" -}}
{{- with .Values.persistence -}}
accessModes:
  {{- toYaml .accessModes | nindent 2 }}
{{- with .storageClassName }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end -}}
{{- end -}}
