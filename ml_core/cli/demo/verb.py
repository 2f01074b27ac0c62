"""``mlcore demo``: from two CSV files to two tenants' predictions, and a promotion under load."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from ml_core.cli.console import command, out, say, shorten, show, step
from ml_core.cli.context import registry_connection
from ml_core.cli.platform import PortOption, local_platform
from ml_core.cli.train import print_columns, print_metrics
from ml_core.exceptions import PlatformError, TenantNotFoundError
from ml_core.settings import Settings

if TYPE_CHECKING:
    from ml_core.cli.demo.tenant import DemoTenant
    from ml_core.platform.local import LocalPlatform

PRINTS_JSON = False

_ANSWERS_TO_SHOW = 3
_ANSWERS_TO_SEE = 200
_ANSWERS_TIMEOUT_S = 30.0
# As different as the table: the platform compares what it answers with the training, from 100 rows on.
_ROWS = 500
_SHOWN = 100
_SEARCH = {"algorithm": "random_forest", "sampler": "random", "trials": 6, "folds": 3, "seconds": 60}


def demo(port: PortOption = None) -> None:
    """Start the platform and train, promote and serve two models on real data. The platform keeps running."""
    started = time.monotonic()
    platform = local_platform(port)
    with _running(platform) as url:
        _tour(url, started)


def _tour(url: str, started: float) -> None:
    """The demo proper, against a running platform."""
    from ml_core.cli.demo.data import write_questions, write_tumours
    from ml_core.cli.demo.tenant import DemoTenant

    folder = Settings.from_environment().platform.home / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    questions, tumours = folder / "questions.csv", folder / "tumours.csv"
    with step("Writing two real tables as CSV"):
        write_questions(questions)
        write_tumours(tumours)
    with step("Creating the tenants acme and globex, with a key each"), _platform_key() as key:
        acme, globex = (
            DemoTenant(url, name, DemoTenant.create(url, key, name), model, table, target)
            for name, model, table, target in (
                ("acme", "questions", questions, "category"),
                ("globex", "tumours", tumours, "diagnosis"),
            )
        )
    _train_and_serve(acme, {"algorithm": "logistic_regression", "C": 10.0})
    out.print(f"First prediction served {time.monotonic() - started:.0f} s after the start.\n", style="bold")
    first = _train_and_serve(globex, {})
    _show_isolation(acme, globex)
    _tune_and_promote_under_load(globex, first)
    _show_next_steps(acme, globex)


@contextmanager
def _platform_key() -> Iterator[str]:
    """A key of the platform. Only whoever runs the platform can create the first one; it is revoked when left."""
    from ml_core.registry.platform_keys import PlatformKeyRepository

    with registry_connection() as database:
        keys = PlatformKeyRepository(database)
        key = str(keys.create("demo", ["admin"]))
        try:
            yield key
        finally:
            keys.revoke(key)


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


def _train_and_serve(tenant: DemoTenant, parameters: dict[str, Any]) -> str:
    out.print(f"\n[bold]{tenant.tenant_id}[/] brings {tenant.table.name} and wants to predict [bold]{tenant.target}[/]")
    with step(f"Uploading it, and training {tenant.tenant_id}/{tenant.model_id}"):
        report = tenant.train(**parameters)
    print_columns(report.columns[:6])
    if len(report.columns) > 6:
        out.print(f"… and {len(report.columns) - 6} more columns", style="dim")
    print_metrics(report)
    with tenant.client() as client:
        with step(f"Promoting version {report.version} to production and waiting until every replica serves it"):
            tenant.promote(client, report.version)
        rows = tenant.sample_rows(_ROWS)
        predictions = client.predict(tenant.model_id, rows).predictions
    for row, prediction in islice(zip(rows, predictions, strict=True), _ANSWERS_TO_SHOW):
        say(f"  {prediction:<12} ← {shorten(json.dumps(row, ensure_ascii=False), _SHOWN)}")
    return report.version


def _show_isolation(thief: DemoTenant, other: DemoTenant) -> None:
    from ml_core.client import MLClient

    with (
        step(f"Asking for {other.tenant_id}'s model with {thief.tenant_id}'s key"),
        MLClient(other.url, api_key=thief.key, tenant_id=other.tenant_id) as client,
    ):
        try:
            client.predict(other.model_id, other.sample_rows(1))
        except TenantNotFoundError as error:
            refusal = error
        else:
            raise PlatformError(
                f"{thief.tenant_id}'s key opened a model of {other.tenant_id}.",
                remedy="Report this: it must never happen.",
                component="edge",
            )
    say(f"  refused, as for what does not exist: {refusal.message}")


def _tune_and_promote_under_load(tenant: DemoTenant, old: str) -> None:
    from ml_core.cli.demo.traffic import traffic

    with step(f"Searching for better hyperparameters of {tenant.tenant_id}/{tenant.model_id} with Ray Tune"):
        result = tenant.tune(**_SEARCH).result
    new, trials = result["version"], result["search"]["trials"]
    out.print(f"  {trials} configurations were tried; the best one is version {new}")
    with tenant.client() as client:
        compared = client.versions.compare(tenant.model_id, old, new).metrics["validation"]
        for metric, of in sorted(compared.items()):
            out.print(f"  {metric}: {show(of.version1)} by version {old}, {show(of.version2)} by version {new}")
        rows = tenant.sample_rows(_ROWS)
        with step("Promoting it while requests run"), traffic(tenant.client, tenant.model_id, *rows) as report:
            report.wait_for(old, _ANSWERS_TO_SEE, _ANSWERS_TIMEOUT_S)
            client.environments.promote(tenant.model_id, new, reason="demo")
            promoted = time.monotonic()
            report.wait_for(new, 1, _ANSWERS_TIMEOUT_S)
            delay_ms = (time.monotonic() - promoted) * 1000
            report.wait_for(new, _ANSWERS_TO_SEE, _ANSWERS_TIMEOUT_S)
    counts = ", ".join(f"{count} by version {name}" for name, count in sorted(report.answers.items()))
    out.print(f"  {report.total} requests: {counts}; {len(report.failures)} failed")
    out.print(f"  the new version answered {delay_ms:.0f} ms after the promotion")
    if report.failures:
        raise PlatformError(
            f"{len(report.failures)} requests failed: {report.failures[0]}",
            remedy="See `mlcore status`.",
            component="serve",
        )


def _show_next_steps(*tenants: DemoTenant) -> None:
    out.print("\n[bold]Go on by hand[/]")
    for tenant in tenants:
        body = json.dumps({"rows": tenant.sample_rows(1), "proba": True})
        say(
            f"curl -s {tenant.url}/t/{tenant.tenant_id}/models/{tenant.model_id}/predict \\\n"
            f"  -H 'Authorization: Bearer {tenant.key}' -d {shlex.quote(body)}\n"
        )
    url = tenants[0].url
    say(
        f"From elsewhere:  {command()} login {url} --tenant {tenants[0].tenant_id} --key {tenants[0].key}\n"
        f"Your own table:  {command()} train FILE.csv --tenant acme --model NAME --target COLUMN\n"
        f"What runs:       {command()} status\n"
        f"Stop it:         {command()} down\n\n"
        f"The API, to try each operation with a key of above:  {url}/api/docs\n"
        f"The console, to sign in with a key of above:          {url}/console"
    )
