{{/* Usage: include "ringmail.webhook" (list $ PATH FAILURE_POLICY) */}}
{{- define "ringmail.webhook" -}}
{{- $root := index . 0 -}}
clientConfig:
  service:
    name: ringmail-controller
    namespace: {{ $root.Release.Namespace }}
    path: {{ index . 1 }}
    port: 443
failurePolicy: {{ index . 2 }}
matchPolicy: Equivalent
sideEffects: None
timeoutSeconds: {{ $root.Values.webhooks.timeoutSeconds }}
admissionReviewVersions: [v1]
{{- end }}

{{- define "ringmail.podCreation" -}}
- apiGroups: [""]
  apiVersions: [v1]
  resources: [pods]
  operations: [CREATE]
  scope: Namespaced
{{- end }}
