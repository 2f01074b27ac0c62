"""Settings: read once, from variables that say what they are."""

import dataclasses
import math
import typing
from pathlib import Path

import pytest

from ml_core.exceptions import ConfigurationError
from ml_core.settings import Settings, all_variables


def test_defaults_need_no_environment():
    """An empty environment gives the documented defaults."""
    settings = Settings.from_environment({})
    assert settings.database.url is None
    assert settings.platform.http_port == 8000
    assert settings.platform.home.is_absolute()


def test_each_variable_is_read():
    """Values are converted to the field's type."""
    settings = Settings.from_environment(
        {"MLCORE_HOME": "/srv/ml", "MLCORE_HTTP_PORT": "9000", "MLCORE_POLL_INTERVAL_S": "0.5"}
    )
    assert settings.platform.home == Path("/srv/ml")
    assert settings.platform.artifact_root == Path("/srv/ml/artifacts")
    assert settings.platform.http_port == 9000
    assert settings.serving.poll_interval_s == 0.5


@pytest.mark.parametrize("value", ["many", "0", "-3", "1.5"])
def test_an_unusable_value_names_its_variable(value):
    """The message says which variable to correct."""
    with pytest.raises(ConfigurationError, match="MLCORE_REPLICAS"):
        Settings.from_environment({"MLCORE_REPLICAS": value})


NUMBERS = [
    (group, each)
    for group in typing.get_type_hints(Settings).values()
    for each in dataclasses.fields(group)
    if {int, float} & {*typing.get_args(kind := typing.get_type_hints(group)[each.name]), kind}
]


@pytest.mark.parametrize(("group", "each"), NUMBERS, ids=lambda part: getattr(part, "name", ""))
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 2**70])
def test_a_number_out_of_range_is_refused_at_once(group, each, value):
    """In the environment and in Python; the message names the variable."""
    assert len(NUMBERS) > 20
    for make in (
        lambda: group(**{each.name: value}),
        lambda: Settings.from_environment({each.metadata["variable"]: str(value)}),
    ):
        with pytest.raises(ConfigurationError, match=each.metadata["variable"]):
            make()


@pytest.mark.parametrize("port", ["0", "65536", "99999", str(2**64)])
def test_a_port_is_one_that_a_server_can_have(port):
    """Otherwise the socket would refuse it when Ray runs already."""
    with pytest.raises(ConfigurationError, match="MLCORE_HTTP_PORT"):
        Settings.from_environment({"MLCORE_HTTP_PORT": port})


@pytest.mark.parametrize(("text", "value"), [("on", True), ("TRUE", True), ("1", True), ("off", False), ("0", False)])
def test_a_switch_is_on_or_off(text, value):
    """And nothing else, so that a misspelt word does not count as on."""
    assert Settings.from_environment({"MLCORE_METRICS": text}).observability.metrics is value
    with pytest.raises(ConfigurationError, match="MLCORE_METRICS='maybe'"):
        Settings.from_environment({"MLCORE_METRICS": "maybe"})


@pytest.mark.parametrize(
    "url", ["bucket/prefix", "s3://", "http://bucket", "s3://key:secret@bucket/prefix", "s3://bucket/../other?x=1"]
)
def test_an_artifact_url_is_a_bucket_and_a_prefix(url):
    """Anything else is refused at once, and not repeated: it may hold a password."""
    with pytest.raises(ConfigurationError, match="MLCORE_ARTIFACTS_URL") as caught:
        Settings.from_environment({"MLCORE_ARTIFACTS_URL": url})
    assert "secret" not in str(caught.value)


def test_an_artifact_endpoint_is_an_address():
    """With its scheme, so that nobody sends artifacts unencrypted by mistake."""
    with pytest.raises(ConfigurationError, match="MLCORE_ARTIFACTS_ENDPOINT"):
        Settings.from_environment({"MLCORE_ARTIFACTS_ENDPOINT": "127.0.0.1:9000"})


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3://bucket/a//b/"])
def test_a_bucket_and_its_root_are_read_off_the_url(url):
    """Slashes too many are dropped: they would be names of their own in a bucket."""
    artifacts = Settings.from_environment({"MLCORE_ARTIFACTS_URL": url}).artifacts
    assert artifacts.bucket == "bucket"
    assert artifacts.root in ("bucket", "bucket/a/b")


@pytest.mark.parametrize(
    "issuer",
    [
        "login.example.com",
        "http://login.example.com",
        "http://127.0.0.1.example.com",
        "https://user:secret@login.example.com",
        "https://login.example.com?realm=x",
        "https://login.example.com#x",
        "https://",
        "https://login.example.com:port",
        "ftp://127.0.0.1",
    ],
)
def test_an_issuer_is_a_protected_address(issuer):
    """Over plain http anybody on the way could send keys of their own."""
    with pytest.raises(ConfigurationError, match="MLCORE_OIDC_ISSUER") as caught:
        Settings.from_environment({"MLCORE_OIDC_ISSUER": issuer, "MLCORE_OIDC_AUDIENCE": "mlcore"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "issuer",
    ["https://login.example.com/realms/a", "https://login.example.com/", "http://localhost:8080", "http://[::1]"],
)
def test_an_issuer_needs_an_audience(issuer):
    """Else a token for any other program of the issuer would be accepted."""
    with pytest.raises(ConfigurationError, match="MLCORE_OIDC_AUDIENCE"):
        Settings.from_environment({"MLCORE_OIDC_ISSUER": issuer})
    oidc = Settings.from_environment({"MLCORE_OIDC_ISSUER": issuer, "MLCORE_OIDC_AUDIENCE": "mlcore"}).oidc
    assert (oidc.issuer, oidc.tenant_claim, oidc.scope_claim) == (issuer, "tenant", "scope")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"CLIENT_ID": "c"}, "MLCORE_OIDC_CLIENT_ID"),
        ({"ISSUER": "https://a.example", "AUDIENCE": "m", "CLIENT_SECRET": "hunter2"}, "MLCORE_OIDC_CLIENT_SECRET"),
        ({"CLIENT_SCOPES": "mlcore:read"}, "MLCORE_OIDC_CLIENT_SCOPES"),
    ],
)
def test_a_client_belongs_to_an_issuer(given, named):
    """What could not work is refused at the start, and no secret is repeated."""
    with pytest.raises(ConfigurationError, match=named) as caught:
        Settings.from_environment({f"MLCORE_OIDC_{name}": value for name, value in given.items()})
    assert "hunter2" not in str(caught.value)


def test_an_api_key_is_not_shown():
    """Settings may be logged."""
    settings = Settings.from_environment({"MLCORE_API_KEY": "mlk_secret"})
    assert settings.client.api_key == "mlk_secret"
    assert "mlk_secret" not in repr(settings)


def test_a_secret_may_be_in_a_file(tmp_path):
    """As Kubernetes mounts it, often with a line break at its end. The variable itself has precedence."""
    (tmp_path / "url").write_text("postgresql://app:hunter2@db/mlcore\n")
    environ = {"MLCORE_DATABASE_URL_FILE": str(tmp_path / "url")}
    database = Settings.from_environment(environ).database
    assert database.url == "postgresql://app:hunter2@db/mlcore"
    assert "hunter2" not in repr(database)
    # The process of a job is given empty variables over those of its node, to take secrets from it.
    for value, url in (("postgresql://b/c", "postgresql://b/c"), ("", None)):
        assert Settings.from_environment({**environ, "MLCORE_DATABASE_URL": value}).database.url == url


def test_a_secret_s_file_must_be_readable(tmp_path):
    """Otherwise a process would start without the secret; a setting that is no secret has no file."""
    for name, content in (("binary", b"\xff"), ("empty", b""), ("blank", b" \n")):
        (tmp_path / name).write_bytes(content)
    for name in ("missing", "binary", "empty", "blank", "."):
        with pytest.raises(ConfigurationError, match=r"MLCORE_RAY_TOKEN_FILE can't be read"):
            Settings.from_environment({"MLCORE_RAY_TOKEN_FILE": str(tmp_path / name)})
    assert Settings.from_environment({"MLCORE_REPLICAS_FILE": "/missing"}).platform.replicas == 2


@pytest.mark.parametrize("role", ["OWNER", "INGEST"])
def test_the_url_of_another_role_is_not_enough(role):
    """A process that lacks one variable must not start an embedded server beside the database that is meant."""
    with pytest.raises(ConfigurationError, match="MLCORE_DATABASE_URL is unset") as caught:
        Settings.from_environment({f"MLCORE_DATABASE_{role}_URL": "postgresql://u:hunter2@db/mlcore"})
    assert "hunter2" not in str(caught.value)


def test_each_variable_says_its_meaning():
    """Each is named like the project and explained in a sentence."""
    for variable, meaning in all_variables().items():
        assert variable.startswith("MLCORE_") or variable == "OTEL_EXPORTER_OTLP_ENDPOINT"  # a standard's own name
        assert meaning.endswith(".")
