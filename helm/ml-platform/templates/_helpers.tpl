{{/* The name of the release's objects. KubeRay permits 47 characters for a RayService; ours add suffixes. */}}
{{- define "ml-platform.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Refuse a cluster without a kind of an operator. Helm knows kinds of a cluster only, and without one versions of APIs. */}}
{{- define "ml-platform.require" -}}
{{- $known := .root.Capabilities.APIVersions -}}
{{- if and ($known.Has "v1/Pod") (not ($known.Has .kind)) -}}
{{- fail (printf "The cluster has no %s. %s" .kind .remedy) -}}
{{- end -}}
{{- end }}

{{- define "ml-platform.selector" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: ml-platform
{{- end }}

{{- define "ml-platform.labels" -}}
{{ include "ml-platform.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "ml-platform.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* What each pod spec begins with. */}}
{{- define "ml-platform.pod" -}}
serviceAccountName: {{ include "ml-platform.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What each container begins with. */}}
{{- define "ml-platform.container" -}}
image: {{ include "ml-platform.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Database ------------------------------------------------------------------------------------------------------ */}}
{{- define "ml-platform.databaseSecret" -}}
{{- if eq .Values.database.kind "external" }}{{ .Values.database.secret }}{{ else }}{{ include "ml-platform.name" . }}-database{{ end -}}
{{- end }}

{{- define "ml-platform.databaseHost" -}}
{{ include "ml-platform.name" . }}-postgres{{ if eq .Values.database.kind "cloudnativepg" }}-rw{{ end }}
{{- end }}

{{/* The Secret of the first key of the platform. */}}
{{- define "ml-platform.platformKeySecret" -}}
{{ .Values.bootstrapKey.secret | default (printf "%s-platform-key" (include "ml-platform.name" .)) }}
{{- end }}

{{/* Empty if it was generated and has been deleted: an upgrade makes no other. */}}
{{- define "ml-platform.hasPlatformKey" -}}
{{- if or .Release.IsInstall .Values.bootstrapKey.secret (lookup "v1" "Secret" .Release.Namespace (include "ml-platform.platformKeySecret" .)) }}true{{ end -}}
{{- end }}

{{/* The settings of every process that uses the registry and the artifacts. */}}
{{- define "ml-platform.environment" -}}
- {name: MLCORE_DATABASE_URL_FILE, value: /etc/mlcore/database/url}
- {name: MLCORE_DATABASE_INGEST_URL_FILE, value: /etc/mlcore/database/ingest-url}
- {name: MLCORE_DATABASE_TENANT_KEY_FILE, value: /etc/mlcore/database/tenant-key}
- {name: MLCORE_PREDICTION_SPOOL, value: /tmp/prediction-spool}
{{- include "ml-platform.settings" . }}
{{- end }}

{{- define "ml-platform.settings" -}}
{{- with .Values.artifacts }}
{{- if .url }}
- {name: MLCORE_ARTIFACTS_URL, value: {{ .url | quote }}}
{{- if .endpoint }}
- {name: MLCORE_ARTIFACTS_ENDPOINT, value: {{ .endpoint | quote }}}
{{- end }}
{{- if .region }}
- {name: MLCORE_ARTIFACTS_REGION, value: {{ .region | quote }}}
{{- end }}
{{- if .secret }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- {name: {{ . }}, valueFrom: {secretKeyRef: {name: {{ $.Values.artifacts.secret }}, key: {{ . }}}}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "ml-platform.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /var/lib/mlcore}
- {name: database, mountPath: /etc/mlcore/database, readOnly: true}
{{- end }}

{{/* The volumes of these mounts: dict "root" $ "keys" (the keys of the database's Secret). */}}
{{- define "ml-platform.volumes" -}}
- {name: tmp, emptyDir: {}}
- name: home
  {{- if .root.Values.artifacts.url }}
  emptyDir: {}
  {{- else }}
  persistentVolumeClaim: {claimName: {{ include "ml-platform.name" .root }}-home}
  {{- end }}
- name: database
  secret:
    secretName: {{ include "ml-platform.databaseSecret" .root }}
    defaultMode: 0440
    items:
      {{- range .keys }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}

{{/* Ray ------------------------------------------------------------------------------------------------------------ */}}
{{- define "ml-platform.rayVersion" -}}2.60.0{{- end }}

{{/* The variables of Ray on every node: NODE_ENVIRONMENT of ml_core/platform/ray_cluster.py, and those of a cluster. */}}
{{- define "ml-platform.rayEnvironment" -}}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}
- {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
- {name: RAY_SERVE_HAPROXY_METRICS_ENABLED, value: "0"}
- {name: RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S, value: "1"}
- {name: RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S, value: "60"}
- {name: RAY_worker_niceness, value: "0"}
- {name: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, value: "deployments.ingress:middlewares"}
# A replica fails to start until it has read the registry, so that KubeRay keeps the old cluster until then. Serve
# tries again without end.
- {name: MLCORE_REQUIRE_ASSIGNMENT, value: "on"}
- {name: RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT, value: "1000000"}
# A worker waits that long for a head that is replaced.
- {name: RAY_gcs_rpc_server_reconnect_timeout_s, value: "600"}
{{ include "ml-platform.controlEnvironment" . }}
{{- end }}

{{/* What the control loop and the control API agree on. */}}
{{- define "ml-platform.controlEnvironment" -}}
- {name: MLCORE_JOB_CPUS, value: {{ .Values.jobs.cpus | quote }}}
- {name: MLCORE_REPLICAS, value: {{ .Values.cell.replicas | quote }}}
{{- end }}

{{/* A group of workers: dict "root" $ "name" "component" "least" "most". Those of the component "worker" have the resource
that replicas ask for, so that what serves is never on a worker that Ray adds and removes for jobs. */}}
{{- define "ml-platform.workers" -}}
{{- $isServing := eq .component "worker" -}}
- groupName: {{ .name }}
  replicas: {{ .least }}
  minReplicas: {{ .least }}
  maxReplicas: {{ .most }}
  # The operator writes it when it adds its finalizer. If that changed the list, the list would be the operator's, and
  # Helm 4 would refuse to change it.
  scaleStrategy: {}
  rayStartParams:
    num-cpus: {{ .root.Values.workers.cpus | quote }}
    object-store-memory: {{ printf "%d000000" (int .root.Values.workers.objectStoreMb) | quote }}
    {{- if $isServing }}
    resources: '"{\"cell\": 1000}"'
    {{- end }}
  template:
    metadata:
      labels: {{- include "ml-platform.selector" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
    spec:
      {{- include "ml-platform.pod" .root | nindent 6 }}
      # `ray start` uses the period up.
      terminationGracePeriodSeconds: 10
      {{- if $isServing }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "ml-platform.selector" .root | nindent 14 }}
              app.kubernetes.io/component: {{ .component }}
      {{- end }}
      containers:
        - name: ray-worker
          {{- include "ml-platform.container" .root | nindent 10 }}
          env:
            {{- include "ml-platform.rayEnvironment" .root | nindent 12 }}
            {{- include "ml-platform.environment" .root | nindent 12 }}
            {{- if and $isServing .root.Values.openid.secret }}
            - {name: MLCORE_OIDC_CLIENT_SECRET_FILE, value: /etc/mlcore/openid/client-secret}
            {{- end }}
          ports:
            - {name: serve, containerPort: 8000}
            - {name: metrics, containerPort: 8080}
          # KubeRay's own would ask for the proxy of Serve, which a node without replicas lacks.
          readinessProbe:
            {{- if $isServing }}
            # Whether a replica answers.
            httpGet: {path: /readyz, port: 8000}
            {{- else }}
            tcpSocket: {port: 8080}
            {{- end }}
            periodSeconds: 1
            timeoutSeconds: 2
          resources: {{- toYaml .root.Values.workers.resources | nindent 12 }}
          volumeMounts:
            {{- include "ml-platform.mounts" .root | nindent 12 }}
            {{- if and $isServing .root.Values.openid.secret }}
            - {name: openid, mountPath: /etc/mlcore/openid, readOnly: true}
            {{- end }}
      volumes:
        {{- include "ml-platform.volumes" (dict "root" .root "keys" (list "url" "ingest-url" "tenant-key")) | nindent 8 }}
        {{- if and $isServing .root.Values.openid.secret }}
        - name: openid
          secret:
            secretName: {{ .root.Values.openid.secret }}
            defaultMode: 0440
            items: [{key: client-secret, path: client-secret}]
        {{- end }}
{{- end }}

{{/* The declarative configuration of Serve, as ml_core/cells/plan.py makes it without placements: the control loop's at its
first turn. */}}
{{- define "ml-platform.serveConfig" -}}
proxy_location: EveryNode
http_options: {host: 0.0.0.0, port: 8000}
applications:
  {{- include "ml-platform.application" (dict "name" "shared" "prefix" "/" "path" "deployments.cell:app" "deployment" "Cell" "replicas" .Values.cell.replicas "workers" (int .Values.workers.replicas)) | nindent 2 }}
  {{- include "ml-platform.application" (dict "name" "control" "prefix" "/api" "path" "deployments.control_api:app" "deployment" "ControlApi" "replicas" 1) | nindent 2 }}
{{- end }}

{{- define "ml-platform.application" -}}
- name: {{ .name }}
  route_prefix: {{ .prefix }}
  import_path: {{ .path }}
  deployments:
    - name: {{ .deployment }}
      num_replicas: {{ .replicas }}
      health_check_period_s: 1.0
      graceful_shutdown_timeout_s: 5.0
      max_surge_percent: 100
      {{- if .workers }}
      max_replicas_per_node: {{ div (add .replicas (sub .workers 1)) .workers }}
      {{- end }}
      ray_actor_options: {num_cpus: 0.1, resources: {cell: 0.001}}
{{- end }}
