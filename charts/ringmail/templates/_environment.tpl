{{/* The controller's settings; it reads no others in a cluster. */}}
{{- define "ringmail.controllerEnvironment" -}}
- name: RINGMAIL_KUBERNETES
  value: "true"
- name: RINGMAIL_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: RINGMAIL_POD
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: RINGMAIL_TRUST_DOMAIN
  value: {{ .Values.trustDomain | quote }}
- name: RINGMAIL_DEFAULT_POLICY
  value: {{ .Values.defaultPolicy | quote }}
- name: RINGMAIL_CLUSTER_NETWORKS
  value: {{ join "," .Values.clusterNetworks | quote }}
- name: RINGMAIL_LISTEN
  value: {{ printf "%s:15012" .Values.controller.listenAddress | quote }}
- name: RINGMAIL_METRICS_LISTEN
  value: {{ printf "%s:15014" .Values.controller.listenAddress | quote }}
- name: RINGMAIL_WEBHOOK_LISTEN
  value: {{ printf "%s:15017" .Values.controller.listenAddress | quote }}
- name: RINGMAIL_LEAF_LIFETIME
  value: {{ .Values.controller.leafLifetime | quote }}
- name: RINGMAIL_DRAIN_TIMEOUT
  value: {{ .Values.controller.drainTimeout | quote }}
- name: RINGMAIL_LOG_FORMAT
  value: {{ .Values.controller.logFormat | quote }}
{{- with .Values.webhooks.excludedNamespaces }}
- name: RINGMAIL_EXCLUDED_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
{{- if .Values.controller.jwks.rootsConfigMap }}
- name: RINGMAIL_JWKS_ROOT_CERT
  value: /etc/ringmail/jwks/ca.crt
{{- end }}
- name: RINGMAIL_JWKS_ALLOW_LOCAL
  value: {{ .Values.controller.jwks.allowLocal | quote }}
- name: RINGMAIL_JWKS_ALLOW_HTTP
  value: {{ .Values.controller.jwks.allowHttp | quote }}
{{- with .Values.controller.limitsRedis }}
{{- if .secret }}
- name: RINGMAIL_LIMITS_REDIS
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key | quote }}
- name: RINGMAIL_LIMITS_REDIS_PREFIX
  value: {{ .prefix | quote }}
{{- if .rootsConfigMap }}
- name: RINGMAIL_LIMITS_REDIS_ROOT_CERT
  value: /etc/ringmail/limits-redis/ca.crt
{{- end }}
{{- end }}
{{- end }}
- name: RINGMAIL_EVICT
  value: {{ .Values.controller.evict | quote }}
{{- with .Values.controller.issuerSecret }}
- name: RINGMAIL_ISSUER_SECRET
  value: {{ . | quote }}
{{- end }}
- name: RINGMAIL_PROXY_IMAGE
  value: {{ include "ringmail.image" (list $ .Values.proxy.image) | quote }}
- name: RINGMAIL_PROXY_IMAGE_PULL_POLICY
  value: {{ .Values.proxy.image.pullPolicy | quote }}
{{- with .Values.telemetry }}
{{- if .otlp.endpoint }}
- name: RINGMAIL_PROXY_OTLP_ENDPOINT
  value: {{ .otlp.endpoint | quote }}
- name: RINGMAIL_PROXY_AUDIT_OTLP
  value: {{ .otlp.audit | quote }}
- name: RINGMAIL_PROXY_TRACE_SAMPLE
  value: {{ .traces.sample | float64 | printf "%.6f" | quote }}
{{- end }}
{{- end }}
{{- with .Values.proxy.resources }}
- name: RINGMAIL_PROXY_CPU_REQUEST
  value: {{ .requests.cpu | quote }}
- name: RINGMAIL_PROXY_MEMORY_REQUEST
  value: {{ .requests.memory | quote }}
{{- with .limits.cpu }}
- name: RINGMAIL_PROXY_CPU_LIMIT
  value: {{ . | quote }}
{{- end }}
{{- with .limits.memory }}
- name: RINGMAIL_PROXY_MEMORY_LIMIT
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
