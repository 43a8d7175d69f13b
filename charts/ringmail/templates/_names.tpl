{{/* What more than one object says. Names of objects are fixed: a cluster has one mesh. */}}

{{- define "ringmail.selector" -}}
app.kubernetes.io/name: ringmail
app.kubernetes.io/component: controller
{{- end }}

{{- define "ringmail.labels" -}}
{{ include "ringmail.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Usage: include "ringmail.image" (list $ .Values.proxy.image) */}}
{{- define "ringmail.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Namespaces whose pods are never touched, as a JSON list: YAML and CEL both read it. */}}
{{- define "ringmail.excludedNamespaces" -}}
{{- list "kube-system" "kube-public" "kube-node-lease" .Release.Namespace | concat .Values.webhooks.excludedNamespaces | uniq | sortAlpha | toJson -}}
{{- end }}

{{/* Nothing that runs here needs a right of the kernel. */}}
{{- define "ringmail.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "ringmail.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The token with which the API server is called: only this one, of limited life, and not in every container. */}}
{{- define "ringmail.apiAccessVolume" -}}
name: api-access
projected:
  defaultMode: 0444
  sources:
    - serviceAccountToken:
        path: token
        expirationSeconds: 3607
    - configMap:
        name: kube-root-ca.crt
        items:
          - key: ca.crt
            path: ca.crt
    - downwardAPI:
        items:
          - path: namespace
            fieldRef:
              fieldPath: metadata.namespace
{{- end }}

{{- define "ringmail.apiAccessMount" -}}
name: api-access
mountPath: /var/run/secrets/kubernetes.io/serviceaccount
readOnly: true
{{- end }}

{{/* What `helm test` needs is there before its pod, and gone after it. */}}
{{- define "ringmail.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: "-1"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
