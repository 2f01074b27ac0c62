"""``mlcore versions``: list, show, find, register, report, export, compare, tag, archive and delete versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli.console import (
    answer,
    configured,
    pairs,
    print_fields,
    print_items,
    print_page,
    print_rows,
    printed_as_json,
    say,
    show,
    step,
    transferring,
)
from ml_core.cli.options import (
    ArchivedOption,
    AscendingOption,
    CursorOption,
    LimitOption,
    ModelOption,
    OnlyModelOption,
    VersionOption,
    tags_to_set,
    wanted_tags,
)
from ml_core.cli.target import platform
from ml_core.domain.rollout import used_by
from ml_core.domain.version import headline_metric

if TYPE_CHECKING:
    from ml_core.api.schemas.versions import RequiredModule, Version, VersionDetail

ASKS = "tenant"

_COLUMNS = ["version", "uses", "held_out", "size_bytes", "created_at", "created_by"]
_FOUND = ["model_id", "version", "held_out", "tags", "created_at", "created_by"]

app = typer.Typer(help="List, inspect, compare, tag and register versions of models.", no_args_is_help=True)


@app.command("list")
def list_versions(
    model: ModelOption,
    archived: ArchivedOption = False,
    limit: LimitOption = 1000,
    cursor: CursorOption = None,
) -> None:
    """List a model's versions, newest first, with the environments that use them."""
    with platform() as client:
        page = client.versions.list(model, include_archived=archived).page(limit=limit, cursor=cursor)
    print_page(
        page,
        _COLUMNS,
        with_archived=archived,
        empty=f"{model} has no version{'' if archived else ' that is not archived: --archived shows all'}.",
        shown={"uses": used_by, "held_out": _held_out},
    )


@app.command("search")
def search(
    model: OnlyModelOption = None,
    model_type: Annotated[str | None, typer.Option("--type", help="Only of models of this type.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="KEY=VALUE that it must have; repeat for several.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="A range of a metric, such as 'accuracy>=0.8' or 'train/mae<=3'; repeat for several."),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Text in a name, a note or a tag.")] = None,
    name: Annotated[str | None, typer.Option(help="Text in the version's name.")] = None,
    sort: Annotated[str, typer.Option(help="created, or a metric such as accuracy or train/mae.")] = "created",
    ascending: AscendingOption = None,
    archived: ArchivedOption = False,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
) -> None:
    """Find versions over all models of a tenant, newest or best first."""
    with platform() as client:
        found = client.versions.list(
            model,
            model_type=model_type,
            tags=wanted_tags(tag),
            metrics=metric or (),
            text=text,
            name=name,
            include_archived=archived,
            sort=sort,
            descending=None if ascending is None else not ascending,
        )
        page = found.page(limit=limit, cursor=cursor)
    shown: dict[str, Callable[[Any], Any]] = {"tags": _tags, "held_out": _held_out}
    print_page(page, _FOUND, with_archived=archived, empty="No version matches.", shown=shown)


@app.command("metrics")
def metrics() -> None:
    """List the metrics that a tenant's versions have, and whether a higher value of each is better."""
    with platform() as client:
        found = client.versions.metrics()
    print_items(found, ["split", "metric", "higher_is_better"], empty="No version has a metric.")


@app.command("show")
def show_version(version: VersionOption, model: ModelOption) -> None:
    """Show a version: metrics, hyperparameters, columns, tags and the environments that use it."""
    with platform() as client:
        found = client.versions.get(model, version)
        tenant = client.tenant_id
    if printed_as_json(found):
        return
    print_fields(_fields(tenant, found))


@app.command("register")
def register(
    file: Annotated[Path, typer.Argument(help="A .skops file.")],
    model: ModelOption,
    version: Annotated[str | None, typer.Option(help="The name of the version; default: the next number.")] = None,
    model_type: Annotated[
        str | None, typer.Option("--type", help="The model type; default: read from the file.")
    ] = None,
) -> None:
    """Upload a .skops file as a version. It is audited, and refused if it holds a type that servers do not load."""
    recorded: dict[str, Any] = {} if model_type is None else {"model_type": model_type}
    with platform() as client, transferring() as progress:
        made = client.versions.register(model, file, version, on_progress=progress, **recorded)
    answer(made, f"Registered version {made.version} of {model}: {made.size_bytes:,} bytes.")


@app.command("download")
def download(
    version: VersionOption,
    model: ModelOption,
    output: Annotated[Path, typer.Option(help="A file that does not exist yet.")],
) -> None:
    """Write a version's artifact to a file."""
    with platform() as client, transferring() as progress:
        client.versions.download(model, version, output, on_progress=progress)
    answer({"model_id": model, "version": version, "file": output}, f"Wrote version {version} of {model} to {output}.")


@app.command("report")
def report(
    version: VersionOption,
    model: ModelOption,
    output: Annotated[
        Path | None, typer.Option(help="An HTML file that does not exist yet; by default named after the version.")
    ] = None,
) -> None:
    """Write an HTML report of a version, its model card: data, quality, algorithm, lineage, and how to call it."""
    with platform() as client, step(f"Reporting {model} {version}"):
        file = client.report_version(model, version, output or f"{model}-{version}.html")
    answer({"model_id": model, "version": version, "file": file}, f"Wrote the report of {model} {version} to {file}.")


@app.command("export")
def export(
    version: VersionOption,
    model: ModelOption,
    output: Annotated[
        Path,
        typer.Option(help="A new file: .joblib (needs this package), .skops (scikit-learn alone) or .onnx."),
    ],
) -> None:
    """Write a version as a file that is used without a platform."""
    with platform() as client, step(f"Exporting {model} {version}"):
        file = client.export_version(model, version, output)
    answer({"model_id": model, "version": version, "file": file}, f"Wrote version {version} of {model} to {file}.")


@app.command("tag")
def tag_version(
    version: VersionOption,
    tags: Annotated[list[str], typer.Argument(help="KEY=VALUE to set, KEY= to remove.")],
    model: ModelOption,
) -> None:
    """Set or remove tags, by which `mlcore versions search --tag` finds the version."""
    with platform() as client:
        changed = client.versions.update(model, version, tags=tags_to_set(tags))
    answer(changed, f"{model} {version}: {', '.join(_tags(changed.tags)) or 'no tags'}")


@app.command("compare")
def compare(
    version1: Annotated[str, typer.Argument(help="The version to compare with.")],
    version2: Annotated[str, typer.Argument(help="The other version.")],
    model: ModelOption,
) -> None:
    """Show which of two versions is better in each metric, and what else differs."""
    with platform() as client:
        compared = client.versions.compare(model, version1, version2)
    if printed_as_json(compared):
        return
    rows = [
        {"metric": f"{split}/{metric}", version1: of.version1, version2: of.version2, "better": of.better}
        for split, metrics in compared.metrics.items()
        for metric, of in metrics.items()
    ]
    print_rows(rows, ["metric", version1, version2, "better"], empty="Neither has a metric.")
    for part in ("hyperparameters", "libraries"):
        for parameter, values in getattr(compared, part).items():
            say(f"{part}: {parameter} {show(values.version1)} → {show(values.version2)}")
    answers = {True: "the same", False: "not the same", None: "not known whether it is the same"}
    say(f"data: {answers[compared.data.same]}")
    for change in ("added", "removed", "changed"):
        if columns := getattr(compared.signature, change):
            say(f"signature: {change} {', '.join(columns)}")


@app.command("lineage")
def lineage(version: VersionOption, model: ModelOption) -> None:
    """Show the lineage of a version: what it was made from, and what was made from it."""
    with platform() as client:
        found = client.versions.lineage(model, version)
    if printed_as_json(found):
        return
    shown = {**dict(found), "modules": [_module(each) for each in found.modules]}
    print_fields((name, pairs(value) if isinstance(value, Mapping) else value) for name, value in shown.items())


@app.command("archive")
def archive(version: VersionOption, model: ModelOption) -> None:
    """Archive a version. `mlcore gc` removes it after MLCORE_RETENTION_DAYS; until then it can be restored."""
    with platform() as client:
        client.versions.archive(model, version)
    _answer("archived", model, version)


@app.command("restore")
def restore(version: VersionOption, model: ModelOption) -> None:
    """Restore an archived version."""
    with platform() as client:
        client.versions.restore(model, version)
    _answer("restored", model, version)


@app.command("delete")
def delete(version: VersionOption, model: ModelOption) -> None:
    """Delete a version that nothing needs, permanently. Its name is not reused for other bytes."""
    with platform() as client:
        client.versions.delete(model, version)
    _answer("deleted", model, version)


def _module(needed: RequiredModule) -> str:
    return f"{needed.module} of {needed.distribution or 'no distribution'} {needed.version or ''}".rstrip()


def _answer(done: str, model: str, version: str) -> None:
    answer({"model_id": model, "version": version, done: True}, f"{done.capitalize()} version {version} of {model}.")


def _held_out(version: Version) -> str | None:
    return headline(version.metrics.get("validation", {}))


def headline(metrics: Mapping[str, float | None]) -> str | None:
    """The metric that people ask for first, as a cell of a table; JSON output has them all."""
    found = headline_metric({name: value for name, value in metrics.items() if value is not None})
    return found and f"{found[0]} {found[1]:.3f}"


def _tags(tags: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in tags.items()]


def _fields(tenant: str, version: VersionDetail) -> Iterator[tuple[str, Any]]:
    """What a person reads of a version."""
    yield "model", f"{tenant}/{version.model_id} ({version.model_type})"
    yield "version", version.version + (f"  archived {show(version.archived_at)}" if version.archived_at else "")
    yield "serves", used_by(version.uses)
    yield "registered", f"{show(version.created_at)} by {version.created_by}"
    for split, metrics in version.metrics.items():
        yield f"{split} metrics", "  ".join(f"{name} {show(value)}" for name, value in metrics.items())
    training: Mapping[str, Any] = version.metadata.get("training") or {}
    yield "baseline", pairs(training.get("baseline", {}))
    yield "algorithm", version.algorithm
    selection: Mapping[str, Any] = training.get("selection") or {}
    for each in selection.get("candidates", ()):
        mark = "selected" if each["selected"] else "candidate"
        score = each.get("error") or f"{selection['metric']} {show(each['score'])} ± {show(each['std'])}"
        yield mark, f"{configured(each['hyperparameters'])}: {score}"
    yield "hyperparameters", pairs(version.hyperparameters)
    yield "in force", pairs(version.effective_hyperparameters)
    important: Mapping[str, Any] = training.get("importances") or {}
    if important:
        largest = pairs({each["column"]: each["worse_by"] for each in important["largest"]})
        yield "importances", f"{largest} ({important['metric']} worse by, when permuted)"
    yield "columns", [column["name"] for column in version.signature["inputs"]]
    yield "inference", f"{version.compilation.answers}: {version.compilation.reason}"
    if (proof := version.compilation.proof) is not None:
        compared = f"{proof.rows:,} rows, at {proof.thresholds:,} thresholds, with onnxruntime {proof.runtime}"
        yield "proof", f"{proof.flips} flips, difference {show(proof.max_difference)}: {compared}"
    yield "needs", [_module(each) for each in version.modules]
    yield "tags", pairs(version.tags)
    yield from (("note", note) for note in training.get("notes", ()))
    yield "notes", pairs({name: value for name, value in version.metadata.items() if name != "training"})
    yield "run", version.lineage.run_id
    yield "size", f"{version.size_bytes:,} bytes"
    yield "digest", version.digest
