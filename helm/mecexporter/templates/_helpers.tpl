{{- define "mecexporter.selector" -}}
app.kubernetes.io/name: mecexporter
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mecexporter.labels" -}}
{{ include "mecexporter.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "mecexporter.fullname" -}}
{{- if contains "mecexporter" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-mecexporter" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "mecexporter.config" -}}
{{- $ours := dict
  "web" (dict "listen" (printf "0.0.0.0:%d" (int .Values.port)))
  "host" (dict "proc" "/host/proc") -}}
{{- toYaml (mergeOverwrite (deepCopy .Values.config) $ours) -}}
{{- end -}}
