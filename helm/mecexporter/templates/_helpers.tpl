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
  "host" (dict "proc" "/host/proc" "sysfs" "/host/sys") -}}
{{- toYaml (mergeOverwrite (deepCopy .Values.config) $ours) -}}
{{- end -}}

{{- define "mecexporter.probes" -}}
livenessProbe:
  httpGet:
    path: /healthz
    port: metrics
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: metrics
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{/* The exporter of the api role: names of its own, so that the DaemonSet does not take its pod for one of its own. */}}
{{- define "mecexporter.api.selector" -}}
app.kubernetes.io/name: mecexporter-api
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mecexporter.api.labels" -}}
{{ include "mecexporter.api.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "mecexporter.api.config" -}}
{{- $ours := dict
  "roles" (list "api")
  "web" (dict "listen" (printf "0.0.0.0:%d" (int .Values.port)))
  "openstack" (dict "cloud" (required "api.cloud: which cloud of clouds.yaml" .Values.api.cloud) "scope" "all")
  "nova" (dict "cells" .Values.api.cells) -}}
{{- toYaml (mergeOverwrite (deepCopy .Values.api.config) $ours) -}}
{{- end -}}
