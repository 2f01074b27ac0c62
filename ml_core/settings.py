"""Settings: frozen groups by theme. Only this module reads the environment.

Each field has its variable, its meaning with its unit, and its default. A secret may also be in a file, which the
variable's name with ``_FILE`` after it names; it is not read if the variable is set, also if it is empty.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ml_core.exceptions import ConfigurationError, shown

MOST = 2**31
"""Of a number without a bound of its own. Operating systems and Postgres wait no longer, and nothing needs more."""
MANY = 2**62
"""Of rows and bytes that no memory has to hold."""
_LONG_DAYS = 36_500


def _setting(variable: str, default: Any, meaning: str, most: float = MOST) -> Any:
    return field(default=default, metadata={"variable": variable, "meaning": meaning, "most": most})


def _secret(variable: str, meaning: str) -> Any:
    return field(default=None, repr=False, metadata={"variable": variable, "meaning": meaning, "is_secret": True})


def check_number(name: str, value: Any, most: float = MOST, remedy: str = "Correct it, or leave it out.") -> None:
    """Refuse a setting or argument that is not a number above 0 and up to ``most``.

    Raises:
        ConfigurationError: It is not; names it.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= most:
        raise ConfigurationError(
            f"{name} is {shown(value)}: it must be a number above 0, up to {most:,}.", remedy=remedy, setting=name
        )


@dataclass(frozen=True)
class _Group:
    """A group of settings, whose numbers are checked however it is made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                check_number(each.metadata["variable"], value, each.metadata["most"], "Correct or unset it.")


def required(value: str | None, variable: str, who: str) -> str:
    """A setting without which a process of the platform can't work, such as the registry's address.

    Raises:
        ConfigurationError: It is unset. The embedded server is not started instead.
    """
    if value is None:
        raise ConfigurationError(f"{who} needs {variable}.", remedy="Set it in its environment.", setting=variable)
    return value


def default_home() -> Path:
    """The default of ``MLCORE_HOME``: ``/var/lib/mlcore`` for root, ``~/.local/share/mlcore`` for other users."""
    # For root the embedded PostgreSQL server runs as another user, who must be able to read every parent folder. The
    # home folder of root must not be readable.
    return Path("/var/lib/mlcore") if os.geteuid() == 0 else Path.home() / ".local" / "share" / "mlcore"


@dataclass(frozen=True, slots=True)
class DatabaseSettings(_Group):
    """The database of the registry; without a URL the embedded server under ``MLCORE_HOME``."""

    url: str | None = _secret(
        "MLCORE_DATABASE_URL", "Postgres URL of the runtime role; unset means the embedded server."
    )
    owner_url: str | None = _secret(
        "MLCORE_DATABASE_OWNER_URL", "Postgres URL for migrations; unset means the runtime URL's own login."
    )
    ingest_url: str | None = _secret(
        "MLCORE_DATABASE_INGEST_URL", "Postgres URL of the serving plane; unset means the runtime URL's own login."
    )
    tenant_key: str | None = _secret(
        "MLCORE_DATABASE_TENANT_KEY",
        "Key that binds transactions to their tenant, as `mlcore db tenant-key` prints it; unset means that it is read "
        "with the login for migrations.",
    )
    job_seal: str | None = _secret(
        "MLCORE_DATABASE_JOB_SEAL",
        "Seal of one job, which its process has in place of the key. The dispatcher sets it.",
    )
    connect_timeout_s: int = _setting(
        "MLCORE_DATABASE_CONNECT_TIMEOUT_S", 5, "Seconds after which an attempt to connect fails."
    )
    pool_size: int = _setting("MLCORE_DATABASE_POOL_SIZE", 5, "Connections kept open in one process.")
    prepare_after: int | None = _setting(
        "MLCORE_DATABASE_PREPARE_AFTER",
        None,
        "Executions of a statement in a session before it is prepared; unset means 2 on the embedded server and "
        "never on another, because a transaction pooler may be in front of it.",
    )

    def __post_init__(self) -> None:
        _Group.__post_init__(self)  # dataclasses with slots have no super()
        # Without this, a process that lacks one variable would start a server and work with its empty registry.
        _require(
            self.url is not None or (self.owner_url is None and self.ingest_url is None),
            "MLCORE_DATABASE_URL",
            "is unset, but the URL of another role is set. Set it, or unset MLCORE_DATABASE_OWNER_URL and "
            "MLCORE_DATABASE_INGEST_URL to use the embedded server",
        )


@dataclass(frozen=True, slots=True)
class RegistrySettings(_Group):
    """The registry."""

    environments: str = _setting(
        "MLCORE_ENVIRONMENTS",
        "development,staging,production",
        "Environments that a version can be promoted to, with commas between them.",
    )
    # Four missed heartbeats: the runner sends one every quarter, and a slow network may lose one or two.
    run_dead_after_s: float = _setting(
        "MLCORE_RUN_DEAD_AFTER_S", 120.0, "Seconds without a heartbeat after which a running run counts as dead."
    )


RESERVED_MODULES = sys.stdlib_module_names | {
    *("__main__", "ml_core", "deployments", "k8s"),
    # Compiled code, or functions that run what they are given: the platform's list names their types one by one.
    *("joblib", "lightgbm", "numpy", "pandas", "scipy", "sklearn"),
}
"""Top-level modules that ``MLCORE_TRUSTED_MODULES`` can't name."""


@dataclass(frozen=True, slots=True)
class ModelSettings(_Group):
    """What artifacts may hold."""

    trusted_modules: str = _setting(
        "MLCORE_TRUSTED_MODULES",
        "",
        "Installed modules whose classes artifacts may hold beside the platform's list, with commas between them; "
        "submodules are included.",
    )

    def __post_init__(self) -> None:
        for name in self.trusted:
            _require(
                re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name) is not None,
                "MLCORE_TRUSTED_MODULES",
                f"names {name!r}, which is no module. Write it as Python imports it, such as acme_models for the "
                "distribution acme-models",
            )
            _require(
                name.partition(".")[0] not in RESERVED_MODULES,
                "MLCORE_TRUSTED_MODULES",
                f"names {name}, which is of Python or of a library of the platform. Name modules of your own, and "
                "derive a class there from what you need",
            )

    @property
    def trusted(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(name for each in self.trusted_modules.split(",") if (name := each.strip()))


@dataclass(frozen=True, slots=True)
class ServingSettings(_Group):
    """The limits of one replica."""

    default_timeout_ms: int = _setting(
        "MLCORE_REQUEST_TIMEOUT_MS",
        10_000,
        "Deadline of a request that sends no x-request-timeout-ms, in milliseconds.",
    )
    max_timeout_ms: int = _setting(
        "MLCORE_REQUEST_TIMEOUT_MAX_MS", 60_000, "Longest deadline that a request may set, in milliseconds."
    )
    max_rows: int = _setting("MLCORE_MAX_ROWS", 10_000, "Rows in one request; more is 413.")
    max_body_bytes: int = _setting("MLCORE_MAX_BODY_BYTES", 8 * 2**20, "Bytes of one request's body; more is 413.")
    max_queued_rows: int = _setting(
        "MLCORE_MAX_QUEUED_ROWS", 20_000, "Rows that wait for one model in one replica; more is 429."
    )
    max_batch_rows: int = _setting(
        "MLCORE_MAX_BATCH_ROWS", 1_024, "Rows predicted in one call of a model; longer queues need several calls."
    )
    max_memory_mb: int = _setting(
        "MLCORE_MAX_MEMORY_MB",
        2_048,
        "Measured megabytes of loaded models; above it those that are worth least are evicted.",
    )
    load_threads: int = _setting("MLCORE_LOAD_THREADS", 2, "Versions loaded at the same time in one replica.")
    poll_interval_s: float = _setting(
        "MLCORE_POLL_INTERVAL_S", 1.0, "Seconds between reads of the assignment when no notification arrives."
    )
    requests_per_s: float | None = _setting(
        "MLCORE_TENANT_REQUESTS_PER_S",
        None,
        "Requests to predict per second of a tenant without a rate of its own; more is 429; unset: no bound.",
    )
    rows_per_s: float | None = _setting(
        "MLCORE_TENANT_ROWS_PER_S",
        None,
        "Rows per second of a tenant without a rate of its own; more is 429; unset: no bound.",
    )
    # On a cluster an upgrade would replace replicas that answer by replicas that can't reach the registry.
    require_assignment: bool = _setting(
        "MLCORE_REQUIRE_ASSIGNMENT",
        False,
        "Whether a replica fails to start if it can't read its first assignment: `on` or `off`, which starts it in the "
        'state "not ready".',
    )


@dataclass(frozen=True, slots=True)
class ApiSettings(_Group):
    """The limits of the control API."""

    # A table of 100 million rows is about 10 GB of CSV.
    max_upload_bytes: int = _setting(
        "MLCORE_MAX_UPLOAD_BYTES",
        64 * 2**30,
        "Bytes of one uploaded file, and of the table in it once it is decoded; more is 413.",
        MANY,
    )
    # A Parquet file of some kilobytes may hold any number of equal rows.
    max_upload_rows: int = _setting(
        "MLCORE_MAX_UPLOAD_ROWS",
        100_000_000,
        "Rows of the table in one file that becomes a dataset; more is 413.",
        MANY,
    )
    max_upload_cells: int = _setting(
        "MLCORE_MAX_UPLOAD_CELLS", 2_000_000_000, "Rows times columns of such a table; more is 413.", MANY
    )


@dataclass(frozen=True, slots=True)
class JobSettings(_Group):
    """Jobs."""

    cpus: float = _setting("MLCORE_JOB_CPUS", 1.0, "Cores that jobs may use at the same time; others wait.")
    ray_url: str | None = _setting(
        "MLCORE_RAY_URL",
        None,
        "Address of Ray's REST interface, where jobs are started, such as http://127.0.0.1:8265.",
    )
    ray_token: str | None = _secret(
        "MLCORE_RAY_TOKEN", "Ray's authentication token; unset means that Ray asks for none."
    )


@dataclass(frozen=True, slots=True)
class PlatformSettings(_Group):
    """The embedded platform on one machine."""

    home: Path = field(
        default_factory=default_home,
        metadata={
            "variable": "MLCORE_HOME",
            "meaning": "Folder for the embedded database, artifacts, logs and state.",
        },
    )
    http_port: int = _setting("MLCORE_HTTP_PORT", 8000, "Port of the ingress on 127.0.0.1.", 2**16 - 1)
    replicas: int = _setting(
        "MLCORE_REPLICAS",
        2,
        "Replicas of the shared cell. With two, one answers while a lost one is replaced; requests in the lost one may "
        "fail, so clients should repeat them.",
    )

    # Pages of a mapped file are written on the event loop, which a file server that hangs would stop.
    spool: str | None = _setting(
        "MLCORE_PREDICTION_SPOOL",
        None,
        "Folder on a disk of the node for predictions that are not in the registry yet; unset means prediction-spool "
        "in MLCORE_HOME.",
    )

    def __post_init__(self) -> None:
        _Group.__post_init__(self)
        object.__setattr__(self, "home", Path(self.home).expanduser().absolute())

    @property
    def artifact_root(self) -> Path:
        """The folder of the artifacts."""
        return self.home / "artifacts"

    @property
    def artifact_cache(self) -> Path:
        """The folder of this machine's copies of artifacts from an object store."""
        return self.home / "cache" / "artifacts"

    @property
    def prediction_spool(self) -> Path:
        """The folder of predictions that are not in the registry yet, with a folder for each registry."""
        return Path(self.spool).absolute() if self.spool else self.home / "prediction-spool"


@dataclass(frozen=True, slots=True)
class ArtifactSettings(_Group):
    """The artifact store; by default the folder ``artifacts`` under ``MLCORE_HOME``.

    Credentials are not settings: they come from the ``AWS_*`` variables, AWS's shared files or the machine's role.
    """

    url: str | None = _setting(
        "MLCORE_ARTIFACTS_URL",
        None,
        "Bucket and prefix of an S3-compatible store, such as s3://bucket/prefix; unset means a folder in MLCORE_HOME.",
    )
    endpoint: str | None = _setting(
        "MLCORE_ARTIFACTS_ENDPOINT",
        None,
        "Address of an S3-compatible server, such as http://127.0.0.1:9000; unset means Amazon S3.",
    )
    region: str | None = _setting(
        "MLCORE_ARTIFACTS_REGION", None, "Region of the bucket; unset means that of the AWS variables."
    )
    timeout_s: float = _setting(
        "MLCORE_ARTIFACTS_TIMEOUT_S",
        5.0,
        "Seconds without progress after which a request to the object store fails; each is tried three times.",
    )
    cache_mb: int = _setting(
        "MLCORE_ARTIFACT_CACHE_MB",
        4_096,
        "Megabytes of this machine's copies of artifacts from an object store; the least recently used are evicted.",
    )

    def __post_init__(self) -> None:
        _Group.__post_init__(self)
        # The value is not in the message: it may contain a password.
        _require(
            self.url is None or re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+(/[\w.=+/-]*)?", self.url) is not None,
            "MLCORE_ARTIFACTS_URL",
            "is not of the form s3://bucket/prefix. Set credentials in the AWS_* variables",
        )
        _require(
            self.endpoint is None or re.fullmatch(r"https?://[\w.:\[\]-]+/?", self.endpoint) is not None,
            "MLCORE_ARTIFACTS_ENDPOINT",
            "is not an address such as https://s3.example.com",
        )

    @property
    def root(self) -> str:
        """Bucket and prefix, without repeated and trailing slashes."""
        return "/".join(part for part in (self.url or "").removeprefix("s3://").split("/") if part)

    @property
    def bucket(self) -> str:
        """The bucket."""
        return self.root.partition("/")[0]


@dataclass(frozen=True, slots=True)
class CollectionSettings(_Group):
    """Garbage collection."""

    retention_days: float = _setting(
        "MLCORE_RETENTION_DAYS",
        30.0,
        "Days for which archived versions, models and datasets are kept before `mlcore gc` collects them.",
        _LONG_DAYS,
    )
    grace_s: float = _setting(
        "MLCORE_ORPHAN_GRACE_S",
        3_600.0,
        "Age in seconds below which `mlcore gc` and `mlcore fsck` do not treat bytes without rows as orphans.",
    )


@dataclass(frozen=True, slots=True)
class PredictionLogSettings(_Group):
    """The prediction log."""

    retention_days: int = _setting(
        "MLCORE_PREDICTION_LOG_RETENTION_DAYS",
        30,
        "Whole days that predictions, labels and counts of losses are kept.",
        _LONG_DAYS,
    )
    # Batches of half of that time cost PostgreSQL a fifth more for each row.
    flush_s: float = _setting(
        "MLCORE_PREDICTION_LOG_FLUSH_S", 1.0, "Seconds that a replica collects predictions before it writes them."
    )
    # 400,000 rows without inputs, 80 s at 5,000 a second: enough for a failover of PostgreSQL.
    queue_mb: int = _setting(
        "MLCORE_PREDICTION_LOG_QUEUE_MB",
        128,
        "Megabytes in the spool of the predictions that a replica holds while the registry is unavailable; more are "
        "counted as lost.",
    )


@dataclass(frozen=True, slots=True)
class OidcSettings(_Group):
    """Tokens of an OpenID Connect issuer, accepted in addition to API keys, and the console's sign-in with it."""

    issuer: str | None = _setting(
        "MLCORE_OIDC_ISSUER",
        None,
        "OpenID Connect issuer whose tokens are accepted, exactly as their claim `iss` has it; unset accepts none.",
    )
    audience: str | None = _setting(
        "MLCORE_OIDC_AUDIENCE",
        None,
        "Value that a token's claim `aud` must contain; required with MLCORE_OIDC_ISSUER.",
    )
    tenant_claim: str = _setting(
        "MLCORE_OIDC_TENANT_CLAIM",
        "tenant",
        "Claim with the tenant or list of tenants that a token may act in; `*` in it means the whole platform.",
    )
    scope_claim: str = _setting(
        "MLCORE_OIDC_SCOPE_CLAIM",
        "scope",
        "Claim with a token's scopes, such as `mlcore:predict`: a string separated by blanks, or a list.",
    )
    client_id: str | None = _setting(
        "MLCORE_OIDC_CLIENT_ID",
        None,
        "Client of the issuer as which the console signs people in; unset means that it takes API keys only.",
    )
    client_secret: str | None = _secret(
        "MLCORE_OIDC_CLIENT_SECRET", "Secret of that client; unset means a public client, which PKCE alone protects."
    )
    client_scopes: str = _setting(
        "MLCORE_OIDC_CLIENT_SCOPES",
        "openid",
        "Scopes that the console requests from the issuer, with blanks between them; must contain `openid`.",
    )

    def __post_init__(self) -> None:
        _require(
            self.issuer is None or (is_protected_url(self.issuer) and not set("?#") & set(self.issuer)),
            "MLCORE_OIDC_ISSUER",
            "is not an address such as https://login.example.com; plain http is for loopback addresses only",
        )
        _require(
            self.issuer is None or self.audience is not None,
            "MLCORE_OIDC_AUDIENCE",
            "is required with MLCORE_OIDC_ISSUER: without it, tokens for any program of the issuer would be accepted",
        )
        _require(self.client_id is None or self.issuer is not None, "MLCORE_OIDC_CLIENT_ID", "needs MLCORE_OIDC_ISSUER")
        _require(
            self.client_secret is None or self.client_id is not None,
            "MLCORE_OIDC_CLIENT_SECRET",
            "needs MLCORE_OIDC_CLIENT_ID",
        )
        _require("openid" in self.client_scopes.split(), "MLCORE_OIDC_CLIENT_SCOPES", "does not contain openid")


@dataclass(frozen=True, slots=True)
class ObservabilitySettings(_Group):
    """Metrics and traces of a process of the platform."""

    metrics: bool = _setting(
        "MLCORE_METRICS", True, "Whether replicas export metrics through Ray's metrics agent: `on` or `off`."
    )
    # A bound and not a switch: 10,000 tenants would be about 30,000 series per replica.
    per_tenant: int | None = _setting(
        "MLCORE_METRICS_PER_TENANT",
        None,
        "Tenants with their own metric in each replica, in the order of their first requests; others share one. Unset "
        "means that no metric names a tenant.",
    )
    otlp_endpoint: str | None = _setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        None,
        "Address of an OpenTelemetry collector (OTLP over HTTP), such as http://127.0.0.1:4318; unset means no traces. "
        "Needs the optional extra `otel`.",
    )


@dataclass(frozen=True, slots=True)
class ClientSettings(_Group):
    """The platform that the CLI uses."""

    url: str | None = _setting("MLCORE_URL", None, "Address of the ingress, such as http://127.0.0.1:8000.")
    api_key: str | None = _secret(
        "MLCORE_API_KEY",
        "API key with which `mlcore` acts; unset means the operating system's user, without an address.",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, by group."""

    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    models: ModelSettings = field(default_factory=ModelSettings)
    serving: ServingSettings = field(default_factory=ServingSettings)
    jobs: JobSettings = field(default_factory=JobSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    platform: PlatformSettings = field(default_factory=PlatformSettings)
    artifacts: ArtifactSettings = field(default_factory=ArtifactSettings)
    collection: CollectionSettings = field(default_factory=CollectionSettings)
    prediction_log: PredictionLogSettings = field(default_factory=PredictionLogSettings)
    oidc: OidcSettings = field(default_factory=OidcSettings)
    observability: ObservabilitySettings = field(default_factory=ObservabilitySettings)
    client: ClientSettings = field(default_factory=ClientSettings)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read all settings.

        Args:
            environ: Variables to read instead of the environment of the process.

        Raises:
            ConfigurationError: A variable has an invalid value; names it.
        """
        source = os.environ if environ is None else environ
        groups = {f.name: _read_group(typing.get_type_hints(cls)[f.name], source) for f in dataclasses.fields(cls)}
        return cls(**groups)


LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_protected_url(url: str) -> bool:
    """Whether a URL is https, or http on a loopback address, without credentials."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # raises ValueError if the port is not a number
    except ValueError:
        return False
    is_protected = parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK)
    return is_protected and bool(host) and not (parts.username or parts.password)


def _require(holds: bool, variable: str, fault: str) -> None:
    if not holds:
        raise ConfigurationError(f"{variable} {fault}.", remedy="Correct or unset it.", setting=variable)


def _read_group(group: type[Any], environ: Mapping[str, str]) -> Any:
    hints = typing.get_type_hints(group)
    values = {
        f.name: _convert(hints[f.name], f.metadata["variable"], text)
        for f in dataclasses.fields(group)
        if (text := environ.get(f.metadata["variable"], _read_secret(f.metadata, environ)))
    }
    return group(**values)


def _read_secret(metadata: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """The content of the file that the environment names for a secret, without white space around it."""
    variable = f"{metadata['variable']}_FILE"
    path = environ.get(variable) if metadata.get("is_secret") else None
    if not path or metadata["variable"] in environ:
        return None
    try:
        # An empty one must not count as unset: without an address the embedded server would be started.
        secret, reason = Path(path).read_text(encoding="utf-8").strip(), "it is empty"
    except OSError as error:
        secret, reason = "", str(error.strerror)
    except UnicodeDecodeError:
        secret, reason = "", "it is not text"
    if not secret:
        raise ConfigurationError(
            f"The file {path} of {variable} can't be read: {reason}.",
            remedy="Name a file with the secret, or unset the variable.",
            setting=variable,
        )
    return secret


_SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


def _convert(kind: Any, variable: str, text: str) -> Any:
    target = kind
    if isinstance(kind, types.UnionType):
        target = next(arg for arg in typing.get_args(kind) if arg is not type(None))
    try:
        value = _SWITCH[text.lower()] if target is bool else target(text)
    except (ValueError, KeyError):
        raise ConfigurationError(
            f"{variable}={text!r} is not a valid {target.__name__}.", remedy="Correct or unset it.", setting=variable
        ) from None
    return value


def all_variables() -> dict[str, str]:
    """Variable → meaning, for the documentation."""
    return {
        f.metadata["variable"]: f.metadata["meaning"]
        for group in typing.get_type_hints(Settings).values()
        for f in dataclasses.fields(group)
    }
