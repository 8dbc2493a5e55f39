{{/* The name of all that belongs to the operator: that of the release, which may be called `forebay`. */}}
{{- define "forebay.name" -}}
{{- if contains "forebay" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-forebay{{ end }}-operator
{{- end }}

{{/* By these the operator's pods are selected. They never change: a deployment's selector cannot. */}}
{{- define "forebay.selector" -}}
app.kubernetes.io/name: forebay
app.kubernetes.io/component: operator
{{- end }}

{{- define "forebay.labels" -}}
{{ include "forebay.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "forebay.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* A value as an expression in CEL, which takes JSON but for lists and maps of different things. */}}
{{- define "forebay.cel" -}}
{{- if kindIs "map" . -}}
{ {{- $comma := "" }}{{ range $key, $value := . }}{{ $comma }}{{ toJson $key }}: dyn({{ include "forebay.cel" $value }}){{ $comma = ", " }}{{ end -}} }
{{- else if kindIs "slice" . -}}
[ {{- $comma := "" }}{{ range . }}{{ $comma }}dyn({{ include "forebay.cel" . }}){{ $comma = ", " }}{{ end -}} ]
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end }}
