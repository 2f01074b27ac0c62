"""``mlcore explain``: what each column added to the score of a row, over HTTP with a key or in this process."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ml_core.cli.console import print_rows, printed_as_json, say
from ml_core.cli.context import registry_connection
from ml_core.cli.options import EncodingOption, ModelOption
from ml_core.cli.predict import RowOption, RowsArgument, asked_version, cell_address, rows_of
from ml_core.cli.target import tenant_name
from ml_core.ids import ModelId, TenantId

ASKS = "tenant"

_COLUMNS = 5
_MAX_ROWS = 100  # ``MAX_EXPLAINED_ROWS``, whose module imports NumPy


def explain(
    model: ModelOption,
    file: RowsArgument = None,
    row: RowOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=_MAX_ROWS, help="Maximum number of rows.")] = 5,
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="The environment whose version is explained.")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", "-v", help="The version that is explained, whatever is promoted.")
    ] = None,
    encoding: EncodingOption = "utf-8",
) -> None:
    """Explain predictions: for each row the base, and the largest contributions of its columns to the score.

    Exact for linear models and trees, by sampling for others. With a key over HTTP, without one in this process.
    """
    asked = asked_version(environment, version)
    tenant_id, model_id = TenantId(tenant_name()), ModelId(model)
    cell = cell_address()
    table = rows_of(file, row, encoding)[:limit]
    if cell is not None:
        from ml_core.client import MLClient

        with MLClient(cell[0], api_key=cell[1], tenant_id=tenant_id) as client:
            answered = client.explain(model_id, table, **asked)
        result = answered.model_dump(include={"explanations", "method", "unit", "version"})
    else:
        result = _in_process(tenant_id, model_id, table, asked)
    if printed_as_json({"model_id": model_id, **result}):
        return
    shown = [_shown(number, row) for number, row in enumerate(result["explanations"])]
    print_rows(shown, ["row", "answer", "score", "base", "largest contributions"], empty="The file has no row.")
    say(f"Version {result['version']}, method {result['method']}, unit {result['unit']}.")


def _in_process(
    tenant: str, model: ModelId, rows: list[dict[str, Any]], asked: dict[str, str | None]
) -> dict[str, Any]:
    from ml_core.registry.tenants import TenantRepository
    from ml_core.system import MLSystem

    with registry_connection() as database, MLSystem(database, tenant_id=tenant) as system:
        TenantRepository(database).get(tenant)  # so that the error is about the tenant, not about its model
        version = str(system.resolve(model, **asked).ref.version)
        found = system.explain(model, rows, version=version)
    return {
        "explanations": found.to_json(),
        "method": found.method.value,
        "unit": found.unit.value,
        "version": version,
    }


def _shown(number: int, row: dict[str, Any]) -> dict[str, Any]:
    from ml_core.domain.values import category_text  # imports numpy, which no other verb of a server needs

    answer, outputs = row["prediction"], row["outputs"]
    output = next((each for each in outputs if each["label"] == category_text(answer)), outputs[0])
    parts = output["contributions"].items()
    largest = sorted(parts, key=lambda item: -abs(item[1] or 0.0))[:_COLUMNS]
    return {
        "row": number,
        "answer": answer,
        "score": output["score"],
        "base": output["base"],
        "largest contributions": ", ".join(f"{name} {part or 0.0:+.3g}" for name, part in largest),
    }
