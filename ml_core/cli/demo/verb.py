"""``mlcore demo``: from two CSV files to two tenants' predictions, and a promotion under load."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from ml_core.cli.console import command, out, shorten, step
from ml_core.cli.context import registry_connection
from ml_core.cli.fitted import print_columns, print_metrics
from ml_core.cli.platform import PortOption, local_platform
from ml_core.exceptions import ModelNotFoundError, PlatformError
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.settings import Settings

if TYPE_CHECKING:
    from ml_core.cli.demo.tenant import DemoTenant
    from ml_core.client import MLClient
    from ml_core.platform.local import LocalPlatform

_ANSWERS_TO_SEE = 200
_ANSWERS_TIMEOUT_S = 30.0
_SHOWN = 100


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("demo")(demo)


def demo(port: PortOption = None) -> None:
    """Start the platform and run the main job on real data. The platform keeps running afterwards."""
    started = time.monotonic()
    platform = local_platform(port)
    with _running(platform) as url:
        _tour(url, started)


def _tour(url: str, started: float) -> None:
    """The demo proper, against a running platform."""
    from ml_core.cli.demo.data import write_questions, write_tumours
    from ml_core.cli.demo.tenant import DemoTenant
    from ml_core.client import MLClient

    folder = Settings.from_environment().platform.home / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    with registry_connection() as database:
        acme = DemoTenant(database, TenantId("acme"), ModelId("questions"), folder / "questions.csv", "category")
        globex = DemoTenant(database, TenantId("globex"), ModelId("tumours"), folder / "tumours.csv", "diagnosis")
        with step("Writing two real tables as CSV"):
            write_questions(acme.table)
            write_tumours(globex.table)
        with step("Creating the tenants acme and globex, with a key each"):
            keys = {acme: acme.create(), globex: globex.create()}
        for tenant, parameters in ((acme, {"algorithm": "logistic_regression", "C": 10.0}), (globex, {})):
            with MLClient(url, api_key=keys[tenant], tenant_id=tenant.tenant_id) as client:
                _train_and_serve(tenant, client, parameters)
                if tenant is acme:
                    out.print(
                        f"First prediction served {time.monotonic() - started:.0f} s after the start.\n", style="bold"
                    )
        _show_isolation(url, keys[acme], globex)
        _promote_under_load(url, keys[globex], globex)
        _show_next_steps(url, keys)


@contextmanager
def _running(platform: LocalPlatform) -> Iterator[str]:
    """The platform's address. What was started here is stopped again if the demo does not finish."""
    if platform.status().state == "running" and platform.state is not None:
        out.print(f"Using the platform that runs at {platform.state.url}.")
        yield platform.state.url
        return
    url = platform.up(step).url
    try:
        yield url
    except BaseException:
        platform.down(step)
        raise


def _train_and_serve(tenant: DemoTenant, client: MLClient, parameters: dict[str, Any]) -> None:
    out.print(f"\n[bold]{tenant.tenant_id}[/] brings {tenant.table.name} and wants to predict [bold]{tenant.target}[/]")
    with step(f"Training {tenant.tenant_id}/{tenant.model_id}"):
        version, fitted = tenant.train(**parameters)
    print_columns(fitted.columns[:6])
    if len(fitted.columns) > 6:
        out.print(f"… and {len(fitted.columns) - 6} more columns", style="dim")
    print_metrics(fitted)
    with step(f"Promoting version {version} to production and waiting until it answers over HTTP"):
        tenant.promote(version)
        tenant.wait_until_served(client, version)
    rows = tenant.sample_rows(3)
    for row, prediction in zip(rows, client.predict(tenant.model_id, rows).predictions, strict=True):
        out.print(Text(f"  {prediction:<12} ← {shorten(json.dumps(row, ensure_ascii=False), _SHOWN)}"), soft_wrap=True)


def _show_isolation(url: str, key: str, other: DemoTenant) -> None:
    from ml_core.client import MLClient

    with (
        step(f"Asking for {other.tenant_id}'s model with acme's key"),
        MLClient(url, api_key=key, tenant_id=other.tenant_id) as thief,
    ):
        try:
            thief.predict(other.model_id, other.sample_rows(1))
        except ModelNotFoundError as error:
            refusal = error
        else:
            raise PlatformError(
                f"acme's key opened a model of {other.tenant_id}.",
                remedy="Report this: it must never happen.",
                component="edge",
            )
    out.print(f"  refused, as for what does not exist: {refusal.message}", markup=False, soft_wrap=True)


def _promote_under_load(url: str, key: str, tenant: DemoTenant) -> None:
    from ml_core.cli.demo.traffic import traffic
    from ml_core.client import MLClient

    with step(f"Training a second version of {tenant.tenant_id}/{tenant.model_id}"):
        version, _ = tenant.train(n_estimators=200)

    def connect() -> MLClient:
        return MLClient(url, api_key=key, tenant_id=tenant.tenant_id)

    with step("Promoting it while requests run"), traffic(connect, tenant.model_id, tenant.sample_rows(1)[0]) as report:
        old = _serving_version(connect, tenant)
        report.wait_for(old, _ANSWERS_TO_SEE, _ANSWERS_TIMEOUT_S)
        tenant.promote(version)
        promoted = time.monotonic()
        report.wait_for(version, 1, _ANSWERS_TIMEOUT_S)
        delay_ms = (time.monotonic() - promoted) * 1000
        report.wait_for(version, _ANSWERS_TO_SEE, _ANSWERS_TIMEOUT_S)
    counts = ", ".join(f"{count} by version {name}" for name, count in sorted(report.answers.items()))
    out.print(f"  {report.total} requests: {counts}; {len(report.failures)} failed")
    out.print(f"  the new version answered {delay_ms:.0f} ms after the promotion")
    if report.failures:
        raise PlatformError(
            f"{len(report.failures)} requests failed: {report.failures[0]}",
            remedy="See `mlcore status`.",
            component="serve",
        )


def _serving_version(connect: Any, tenant: DemoTenant) -> VersionId:
    with connect() as client:
        return VersionId(client.predict(tenant.model_id, tenant.sample_rows(1)).version)


def _show_next_steps(url: str, keys: dict[DemoTenant, str]) -> None:
    out.print("\n[bold]Go on by hand[/]")
    for tenant, key in keys.items():
        body = json.dumps({"rows": tenant.sample_rows(1), "proba": True})
        out.print(
            f"curl -s {url}/t/{tenant.tenant_id}/models/{tenant.model_id}/predict \\\n"
            f"  -H 'Authorization: Bearer {key}' -d {_quoted(body)}\n",
            soft_wrap=True,
            markup=False,
        )
    out.print(
        f"Your own table:  {command()} train FILE.csv --tenant acme --model NAME --target COLUMN\n"
        f"What runs:       {command()} status\n"
        f"Stop it:         {command()} down\n\n"
        f"The API, where a key of above runs each example:  {url}/api/docs",
        markup=False,
        soft_wrap=True,
    )


def _quoted(text: str) -> str:
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"
