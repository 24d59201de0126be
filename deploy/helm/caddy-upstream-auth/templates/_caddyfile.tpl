{{/* The Caddyfile: yours, or files/Caddyfile. That one is for a token endpoint and
a client secret; for an issuer and other methods a line of it is another. */}}
{{- define "caddy-upstream-auth.caddyfile" -}}
{{- if .Values.caddyfile -}}
{{- .Values.caddyfile -}}
{{- else -}}
{{- $text := .Files.Get "files/Caddyfile" -}}
{{- if .Values.issuer -}}
{{- $text = include "caddy-upstream-auth.line" (list $text "token_url {env.TOKEN_URL}" "issuer {env.ISSUER}") -}}
{{- end -}}
{{- if not .Values.clientId -}}
{{- $text = include "caddy-upstream-auth.line" (list $text "client_id {env.CLIENT_ID}" "# no client_id: the assertion names the client") -}}
{{- end -}}
{{- $method := include "caddy-upstream-auth.clientAuth" . -}}
{{- $standard := "client_auth {$CLIENT_AUTH:client_secret_basic} {file.{$CLIENT_SECRET_FILE:/run/secrets/client_secret}}" -}}
{{- if ne $method $standard -}}
{{- $text = include "caddy-upstream-auth.line" (list $text $standard $method) -}}
{{- end -}}
{{- $text -}}
{{- end -}}
{{- end -}}

{{/* A line for another, in a text that has it. */}}
{{- define "caddy-upstream-auth.line" -}}
{{- if not (contains (index . 1) (index . 0)) -}}
{{- fail (printf "files/Caddyfile has no line %q" (index . 1)) -}}
{{- end -}}
{{- replace (index . 1) (index . 2) (index . 0) -}}
{{- end -}}

{{/* client_auth as the method and its options need it. */}}
{{- define "caddy-upstream-auth.clientAuth" -}}
{{- $options := list -}}
{{- $folder := "/run/secrets/upstream-auth" -}}
{{- if include "caddy-upstream-auth.sharedSecret" . -}}
client_auth {$CLIENT_AUTH:client_secret_basic} {file.{$CLIENT_SECRET_FILE:/run/secrets/client_secret}}
{{- else if eq .Values.clientAuth "jwt_file" -}}
client_auth jwt_file /var/run/secrets/tokens/idp
{{- else -}}
client_auth {{ .Values.clientAuth }}
{{- if eq .Values.clientAuth "private_key_jwt" -}}
{{- $options = list (printf "key_file %s/%s" $folder .Values.secret.key) -}}
{{- else if eq .Values.clientAuth "tls_client_auth" -}}
{{- $options = list (printf "cert %s/tls.crt" $folder) (printf "key %s/tls.key" $folder) -}}
{{- end -}}
{{- end -}}
{{- if .Values.clientAuthOptions -}}
{{- $options = concat $options (.Values.clientAuthOptions | trim | splitList "\n") -}}
{{- end -}}
{{- if $options }} {
{{- range $options }}
				{{ trim . }}
{{- end }}
			}
{{- end -}}
{{- end -}}

{{/* The lines for CREDENTIAL_OPTIONS. */}}
{{- define "caddy-upstream-auth.credentialOptions" -}}
{{- $lines := list -}}
{{- with .Values.scopes -}}
{{- $quoted := list -}}
{{- range . -}}{{- $quoted = append $quoted (printf "\"%s\"" .) -}}{{- end -}}
{{- $lines = append $lines (printf "scopes %s" (join " " $quoted)) -}}
{{- end -}}
{{- with .Values.audience -}}
{{- $lines = append $lines (printf "audience \"%s\"" .) -}}
{{- end -}}
{{- if .Values.tokenFile.enabled -}}
{{- $lines = concat $lines (list (printf "token_file %s/token {" .Values.tokenFile.mountPath) (printf "\tmode %s" .Values.tokenFile.mode) "}") -}}
{{- end -}}
{{- with .Values.credentialOptions -}}
{{- $lines = append $lines (trim .) -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- end -}}
