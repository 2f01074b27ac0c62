"""``mlcore predict``: ask a model, over HTTP with a key or in this process without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import typer

from ml_core.cli.console import advancing, note, printed_as_json, say, show
from ml_core.cli.context import registry_connection
from ml_core.cli.options import FILES, EncodingOption, ModelOption
from ml_core.cli.target import address, tenant_name
from ml_core.exceptions import ConfigurationError, InvalidRequestError
from ml_core.ids import ModelId, TenantId
from ml_core.settings import Settings

ASKS = "tenant"

RowsArgument = Annotated[str | None, typer.Argument(help=f"Rows: {FILES}.")]
RowOption = Annotated[
    list[str] | None, typer.Option("--row", "-r", help="A row as a JSON object, instead of a FILE; repeat for several.")
]
_BATCH_ROWS = 1024
_SHOWN = {"predictions", "probabilities", "version", "scores", "threshold", "intervals"}


def predict(
    model: ModelOption,
    file: RowsArgument = None,
    row: RowOption = None,
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="The environment whose version answers.")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", "-v", help="The version that answers, whatever is promoted.")
    ] = None,
    proba: Annotated[bool, typer.Option("--proba", help="Also print the probability of each class.")] = False,
    scores: Annotated[
        bool, typer.Option("--scores", help="Also print the anomaly scores; above the threshold a row is an anomaly.")
    ] = False,
    interval: Annotated[
        float | None,
        typer.Option(help="Also print the interval that holds a number's truth with this probability, such as 0.9."),
    ] = None,
    encoding: EncodingOption = "utf-8",
) -> None:
    """Predict rows: with a key over HTTP, without one in this process.

    The version in production answers. If nothing is in production, the newest version answers, in this process only.
    """
    asked = asked_version(environment, version)
    tenant_id, model_id = TenantId(tenant_name()), ModelId(model)
    cell = cell_address()
    rows = rows_of(file, row, encoding)
    wanted: dict[str, Any] = {"proba": proba, "scores": scores, "interval": interval}
    if cell is not None:
        from ml_core.client import MLClient

        with MLClient(cell[0], api_key=cell[1], tenant_id=tenant_id) as client:
            answered = client.predict(model_id, rows, **wanted, **asked)
        result = {"probabilities": None, **answered.model_dump(include=_SHOWN, exclude_none=True)}
    else:
        result = _in_process(tenant_id, model_id, rows, wanted, asked)
    if printed_as_json({"model_id": model_id, **result}):
        return
    for index, prediction in enumerate(result["predictions"]):
        say(f"{prediction}  {'  '.join(_details(result, index))}".rstrip())


def _details(result: dict[str, Any], index: int) -> Iterator[str]:
    """What a line shows beside the prediction."""
    if result["probabilities"]:
        yield from (f"{name}={p:.3f}" for name, p in result["probabilities"][index].items())
    if "scores" in result:
        yield f"score {result['scores'][index]:.4f} (threshold {result['threshold']:.4f})"
    if "intervals" in result:
        yield "{} to {}".format(*(show(end) for end in result["intervals"][index]))


def rows_of(file: str | None, row: list[str] | None, encoding: str) -> list[dict[str, Any]]:
    """The rows of a table in files, see ``FILES``, or those of ``--row``.

    Raises:
        ConfigurationError: Both are given, or none.
    """
    if (row is None) == (file is None):
        raise ConfigurationError(
            "Give either a FILE or --row.", remedy="""For example --row '{"subject": "Login fails"}'."""
        )
    if row is not None:
        return [_parse_row(text) for text in row]
    from ml_core.data.reading import read_table, rows_from_frame
    from ml_core.data.sources import gathered

    with gathered(str(file), encoding) as table:
        return rows_from_frame(read_table(table.path, encoding=encoding))


def asked_version(environment: str | None, version: str | None) -> dict[str, Any]:
    """What answers, as keywords of ``predict`` and ``explain``.

    Raises:
        ConfigurationError: Both are given.
    """
    if environment is not None and version is not None:
        raise ConfigurationError(
            "Give either --environment or --version.", remedy="A version is asked whatever points to it."
        )
    return {"environment": environment, "version": version}


def cell_address() -> tuple[str, str] | None:
    """The URL and the key for the prediction plane; None without a key: then this process loads the model.

    Raises:
        ConfigurationError: There is a URL without a key, or a key and no platform.
    """
    url, key = address()
    if key is not None:
        return url or _local_url(), key
    if url is not None:
        raise ConfigurationError(
            "Asking over HTTP needs a key.",
            remedy="Give --key, or name no platform to predict in this process.",
            setting="--key",
        )
    return None


def _in_process(
    tenant: str, model: ModelId, rows: list[dict[str, Any]], wanted: dict[str, Any], asked: dict[str, str | None]
) -> dict[str, Any]:
    from ml_core.domain.values import category_text
    from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
    from ml_core.registry.tenants import TenantRepository
    from ml_core.system import MLSystem

    with registry_connection() as database, MLSystem(database, tenant_id=tenant) as system:
        TenantRepository(database).get(tenant)  # so that the error is about the tenant, not about its model
        servable = system.resolve(model, **asked)
        version = str(servable.ref.version)
        pointers = EnvironmentRepository(database, tenant).list(model).items
        if not any(asked.values()) and not any(p.environment == PRODUCTION and p.version for p in pointers):
            note(f"Nothing is promoted to production; the newest version, {version}, answers.")
        probabilities = None
        # As over HTTP: a model without probabilities answers without them, and a class is called by its text.
        if wanted["proba"] and servable.self_test.probabilities:
            answers = system.predict_proba(model, rows, version=version)
            probabilities = [{category_text(label): p for label, p in answer.items()} for answer in answers]
        predictions: list[Any] = []
        with advancing("Predicting", lambda: f"{len(predictions):,} rows") as advance:
            for start in range(0, len(rows), _BATCH_ROWS):
                batch = rows[start : start + _BATCH_ROWS]
                predictions += system.predict_batch(model, batch, _BATCH_ROWS, version=version)
                advance(len(predictions), len(rows))
        result: dict[str, Any] = {"predictions": predictions, "probabilities": probabilities, "version": version}
        if wanted["scores"]:
            result["scores"] = system.predict_scores(model, rows, version=version).tolist()
            result["threshold"] = servable.signature.output.threshold
        if wanted["interval"] is not None:
            intervals = system.predict_interval(model, rows, wanted["interval"], version=version)
            result["intervals"] = intervals.tolist()
        return result


def _local_url() -> str:
    from ml_core.platform.state import PlatformState

    state = PlatformState.load(Settings.from_environment().platform.home)
    if state is None:
        raise ConfigurationError(
            "A key was given, but no platform runs on this machine.",
            remedy="Start one with `mlcore up`, give --url, or leave the key out to predict in this process.",
            setting="--url",
        )
    return state.url


def _parse_row(text: str) -> dict[str, Any]:
    try:
        row = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(
            f"--row is not JSON: {error}.",
            remedy="""Quote it for the shell: --row '{"subject": "Login fails"}'.""",
            field="--row",
        ) from error
    if not isinstance(row, dict):
        raise InvalidRequestError("--row must be a JSON object.", remedy="Write {column: value, …}.", field="--row")
    return row
