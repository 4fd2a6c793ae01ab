{{/* The name of everything in this release. */}}
{{- define "kubenap.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kubenap.account" -}}
{{- default (include "kubenap.name" .) .Values.serviceAccount.name -}}
{{- end -}}

{{/* The account of the Job that restores. */}}
{{- define "kubenap.restore" -}}
{{- include "kubenap.name" . }}-restore
{{- end -}}

{{- define "kubenap.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kubenap.labels" -}}
{{ include "kubenap.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "kubenap.image" -}}
{{- if .Values.image.digest -}}
{{- .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{- .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* The port in an address such as 0.0.0.0:8081, [::]:8081 or any=0.0.0.0:8080. */}}
{{- define "kubenap.port" -}}
{{- splitList ":" . | last -}}
{{- end -}}

{{- define "kubenap.adminPort" -}}
{{- include "kubenap.port" (default "0.0.0.0:8081" (index .Values.flags "admin-listen")) -}}
{{- end -}}

{{/*
The ports of all --proxy-listen, each once, as a list of names and numbers. The first is called proxy, the others by their
profile, such as proxy-traefik, or by their number where that is taken. No name is longer than a port's may be.
*/}}
{{- define "kubenap.proxyPorts" -}}
{{- $listen := default "any=0.0.0.0:8080" (index .Values.flags "proxy-listen") -}}
{{- if kindIs "slice" $listen -}}{{- $listen = join "," $listen -}}{{- end -}}
{{- $names := dict -}}
{{- $ports := dict -}}
{{- range splitList "," $listen -}}
{{- $port := include "kubenap.port" . | trim -}}
{{- if not (hasKey $ports $port) -}}
{{- $name := "proxy" -}}
{{- if $names -}}
{{- $name = ternary (splitList "=" . | first | trim) "any" (contains "=" .) | printf "proxy-%s" | trunc 15 | trimSuffix "-" -}}
{{- end -}}
{{- if hasKey $names $name -}}{{- $name = printf "proxy-%s" $port -}}{{- end -}}
{{- $_ := set $names $name true -}}
{{- $_ := set $ports $port true }}
- {name: {{ $name }}, port: {{ $port }}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The flags of `kubenap run`. */}}
{{- define "kubenap.flags" -}}
{{- if not (index .Values.flags "wake-service") }}
- --wake-service={{ .Release.Namespace }}/{{ include "kubenap.name" . }}:{{ .Values.service.port }}
{{- end }}
{{- range .Values.namespaces }}
- --namespace={{ . }}
{{- end }}
{{- range $name, $value := .Values.flags }}
{{- if kindIs "slice" $value }}
{{- range $value }}
- {{ printf "--%s=%v" $name . | quote }}
{{- end }}
{{- else if kindIs "bool" $value }}
{{- if $value }}
- --{{ $name }}
{{- end }}
{{- else if kindIs "float64" $value }}
- {{ printf "--%s=%d" $name (int64 $value) | quote }}
{{- else }}
- {{ printf "--%s=%v" $name $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What Pod Security "restricted" asks of a container, and a root that cannot be written. */}}
{{- define "kubenap.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "kubenap.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "kubenap.hasPolicy" -}}
{{- $wanted := .Values.admissionPolicy.enabled | toString -}}
{{- if eq $wanted "auto" -}}
{{- if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" -}}yes{{- end -}}
{{- else if eq $wanted "true" -}}yes{{- end -}}
{{- end -}}
