"""The HTML report of a version, its model card: what it is, why it was chosen, its data, quality, lineage and use."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.domain.columns import ColumnKind
from ml_core.domain.html import escaped, shown
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.rollout import used_by
from ml_core.domain.train_spec import TRAINING_RECORD
from ml_core.domain.version import headline_metric
from ml_core.evaluation import page as html
from ml_core.evaluation.report import RunRecord, held_out_sections, learning_curves

CARD = "card"
"""The key of a version's metadata with the texts of its user: a text, or a mapping from heading to text."""
_LOCAL_URL = "http://127.0.0.1:8000"
_MAX_TILES = 4
_MAX_VALUES = 5
_MAX_CATEGORIES = 12
_MAX_EXAMPLE_TEXT = 80
_HELD_OUT = "validation"


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """What is known of a version. Values are those of the registry or of the control API; what is not known is None.

    Attributes:
        tenant_id: The tenant.
        version: The version.
        signature: Its signature as JSON.
        training: Its ``TrainingReport``.
        lineage: See ``ModelRegistry.get_lineage``.
        profile: The profile of the dataset that it was trained on.
        moves: Environment → the last moves of its pointer, newest first.
        run: The run that made it.
        url: The ingress of the platform.
    """

    tenant_id: str
    version: Any
    signature: Mapping[str, Any]
    training: Any
    lineage: Mapping[str, Any]
    profile: Any
    moves: Mapping[str, Sequence[Any]]
    run: RunRecord | None
    url: str | None = None


def version_report(record: VersionRecord) -> str:
    """The report of a version as a page."""
    version, run = record.version, record.run
    notes = dict.fromkeys((*record.training.notes, *(run.diagnostics.notes if run and run.diagnostics else ())))
    return html.page(
        f"{version.model_id} {version.version}",
        _head(record),
        [
            html.bullets(notes, "notes"),
            *_card_sections(version.metadata.get(CARD)),
            html.section("Quality", *_quality(record)),
            *held_out_sections(run.diagnostics if run else None),
            html.section("Learning curves", learning_curves(run.curves) if run else ""),
            html.section("Algorithm", *_algorithm(record.training)),
            html.section("Data", *_data(record)),
            html.section("Use", *_use(record)),
            html.section("Inference", *_inference(version.compilation)),
            html.section("Environments", _moves(record)),
            html.section("Lineage", *_lineage(record)),
        ],
    )


def _head(record: VersionRecord) -> str:
    version, training = record.version, record.training
    algorithm = f" by {training.algorithm}" if training.algorithm else ""
    badges = [*used_by(version.uses), *(f"{key}: {value}" for key, value in version.tags.items())]
    held_out = {name: value for name, value in version.metrics.get(_HELD_OUT, {}).items() if value is not None}
    first = headline_metric(held_out)
    names = dict.fromkeys([*([first[0]] if first else []), *held_out])
    values = [
        (name, held_out[name], f"baseline {shown(base)}" if (base := training.baseline.get(name)) is not None else "")
        for name in [*names][:_MAX_TILES]
    ]
    kind = version.model_type.replace("_", " ").capitalize()
    archived = f" Archived {shown(version.archived_at)}." if version.archived_at else ""
    lead = (
        f"{kind}{algorithm}, of the tenant {record.tenant_id}. "
        f"Registered {shown(version.created_at)} by {version.created_by}.{archived}"
    )
    title = escaped(f"{version.model_id}, version {version.version}")
    return f"<h1>{title}</h1>{html.paragraph(lead, 'lead')}{html.bullets(badges, 'badges')}{html.tiles(values)}"


def _card_sections(card: Any) -> Iterator[str]:
    """What the user wrote of the model, such as its intended use and its limitations."""
    texts = card if isinstance(card, Mapping) else {"about": card} if card else {}
    for name in sorted(texts, key=lambda name: name != "intended_use"):  # the registry keeps no order of keys
        text = texts[name]
        lines = text if isinstance(text, list) else [text]
        title = str(name).replace("_", " ").capitalize()
        yield html.section(title, *(html.paragraph(shown(line)) for line in lines))


def _quality(record: VersionRecord) -> Iterator[str]:
    training, metrics = record.training, record.version.metrics
    splits = [split for split in (_HELD_OUT, "train", *metrics) if split in metrics]
    splits = list(dict.fromkeys(splits))
    names = list(dict.fromkeys(name for split in splits for name in metrics[split]))
    repeated = training.cross_validation
    of_folds = repeated.get("metrics", {})
    rows = []
    for name in names:
        base, held_out = training.baseline.get(name), metrics.get(_HELD_OUT, {}).get(name)
        values = [metrics[split].get(name) for split in splits]
        cells = [_beside(value, base, name) if value is held_out else value for value in values]
        folds = f"{shown(of['mean'])} ± {shown(of['std'])}" if (of := of_folds.get(name)) else None
        rows.append((name, *cells, *([folds] if repeated else []), *([base] if training.baseline else [])))
    titles = {_HELD_OUT: "held out"}
    last = [f"in {repeated['folds']} folds"] if repeated else []
    last += ["baseline"] if training.baseline else []
    yield html.table(("metric", *(titles.get(split, split) for split in splits), *last), rows)
    if training.baseline:
        yield html.paragraph("The baseline is an answer that ignores all columns, on the held-out rows.", "soft")


def _beside(value: float | None, base: float | None, metric: str) -> Any:
    """A metric, marked as better or worse than the baseline's."""
    if value is None or base is None or metric not in HIGHER_IS_BETTER or value == base:
        return value
    is_better = (value > base) == HIGHER_IS_BETTER[metric]
    return html.Marked(shown(value), "better" if is_better else "worse")


def _algorithm(training: Any) -> Iterator[str]:
    selection = training.selection
    if selection:
        text = (
            f"Selected by {selection['metric']} over {selection['folds']} folds of {selection['rows']:,} training rows."
        )
        yield html.paragraph(text)
        candidates = selection["candidates"]
        yield html.table(
            ("candidate", selection["metric"], "deviation of the folds"),
            ((_configured(of["hyperparameters"]), of.get("error") or of["score"], of.get("std")) for of in candidates),
            ("chosen" if of["selected"] else "" for of in candidates),
        )
    elif training.algorithm:
        by = "named by the caller" if "algorithm" in training.hyperparameters else "the default of the model type"
        yield html.paragraph(f"{training.algorithm}, {by}.")
    given = training.hyperparameters
    rows = [(name, value, "given" if name in given else "default") for name, value in
            training.effective_hyperparameters.items()]  # fmt: skip
    if rows:
        body = html.table(("hyperparameter", "value", ""), rows)
        yield f"<details><summary>Hyperparameters</summary>{body}</details>"


def _configured(hyperparameters: Mapping[str, Any]) -> str:
    algorithm = hyperparameters.get("algorithm", "default")
    others = {name: value for name, value in hyperparameters.items() if name != "algorithm"}
    return f"{algorithm} ({shown(others)})" if others else str(algorithm)


def _data(record: VersionRecord) -> Iterator[str]:
    training, recorded = record.training, record.version.metadata.get(TRAINING_RECORD) or {}
    rows = {("held out" if split == _HELD_OUT else split): number for split, number in training.n_rows.items()}
    held_out = "; ".join(
        text for text in (
            f"rows with equal {recorded['group']!r} on one side" if recorded.get("group") else "",
            f"the latest by {recorded['time']!r}" if recorded.get("time") else "",
        ) if text
    )  # fmt: skip
    yield html.facts(
        {
            "dataset": training.dataset or (record.lineage.get("datasets") if not recorded else None),
            "rows": ", ".join(f"{name} {number:,}" for name, number in rows.items()),
            "split": held_out,
            "digest of the rows": record.lineage.get("data_digest"),
        }
    )
    profiles = {each.name: each for each in record.profile.columns} if record.profile is not None else {}
    inputs = {each["name"]: each for each in record.signature["inputs"]}
    header = ("column", "kind", "input", "may be missing", "missing", "distinct", "values", "why this kind")
    of_columns = [_column(each, inputs.get(each.name), profiles.get(each.name)) for each in training.columns]
    shown_columns = [any(row[place] not in (None, "") for row in of_columns) for place in range(len(header))]
    yield html.table(
        [name for name, is_shown in zip(header, shown_columns, strict=True) if is_shown],
        ([cell for cell, is_shown in zip(row, shown_columns, strict=True) if is_shown] for row in of_columns),
    )
    if training.columns_omitted:
        yield html.paragraph(f"{training.columns_omitted:,} more columns are not used.", "soft")
    if record.profile is not None and record.profile.sampled_rows < record.profile.row_count:
        yield html.paragraph(f"Counts are of a sample of {record.profile.sampled_rows:,} rows.", "soft")


def _column(reported: Any, declared: Mapping[str, Any] | None, profile: Any) -> tuple[Any, ...]:
    categories = [] if declared is None else declared.get("categories", [])
    values = _values(profile) if profile is not None else _listed(categories, _MAX_CATEGORIES)
    return (
        reported.name,
        reported.kind,
        reported.used,
        None if declared is None else declared["nullable"],
        None if profile is None else f"{profile.missing:,}",
        None if profile is None else f"{profile.distinct:,}",
        values,
        reported.reason,
    )


def _values(profile: Any) -> str:
    """The range of a number, or the most frequent values."""
    if profile.kind == ColumnKind.NUMBER and profile.minimum is not None:
        return f"{shown(profile.minimum)} to {shown(profile.maximum)}, mean {shown(profile.mean)}"
    return _listed([f"{value} ({count:,})" for value, count in profile.values], _MAX_VALUES)


def _listed(texts: Sequence[str], most: int) -> str:
    return ", ".join([*texts[:most], *(["…"] if len(texts) > most else [])])


def _use(record: VersionRecord) -> Iterator[str]:
    """How to call it, over HTTP and in Python."""
    version, output = record.version, record.signature["output"]
    model, name = str(version.model_id), str(version.version)
    classes = [*map(str, output["classes"])]
    answers = {
        "classes": f"one of {len(classes)} classes: {_listed(classes, _MAX_CATEGORIES)}",
        "number": "a number",
        "cluster": "a cluster, from 0",
        "anomaly": "-1 for an anomaly, 1 for a normal row",
    }
    columns = len(record.signature["inputs"])
    yield html.paragraph(f"A row has {columns} columns; the answer is {answers[output['kind']]}.")
    if output.get("threshold") is not None:
        above = shown(output["threshold"])
        yield html.paragraph(f'A row whose score is above {above} is an anomaly; "scores": true asks for the scores.')
    if output.get("residuals"):
        yield html.paragraph('"interval": 0.9 asks for the intervals that hold nine of ten truths.')
    if not record.training.example:
        return
    is_production = any((use.environment, use.role) == ("production", "stable") for use in version.uses)
    row = {column: _shortened(value) for column, value in record.training.example.items()}
    body = {"rows": [row], **({} if is_production else {"version": name})}
    url = f"{record.url or _LOCAL_URL}/t/{record.tenant_id}/models/{model}/predict"
    command = (
        f'curl {shlex.quote(url)} \\\n  -H "Authorization: Bearer $MLCORE_API_KEY" \\\n  '
        f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )
    chosen = "" if is_production else f", version={name!r}"
    yield f"<pre>{escaped(command)}</pre><pre>{escaped(f'system.predict({model!r}, {row!r}{chosen})')}</pre>"


def _shortened(value: Any) -> Any:
    return value if not isinstance(value, str) or len(value) <= _MAX_EXAMPLE_TEXT else f"{value[:_MAX_EXAMPLE_TEXT]}…"


def _moves(record: VersionRecord) -> str:
    """The moves that concern the version, newest first: those to it, and the next one, which may have ended its use."""
    name, found = str(record.version.version), []
    for environment, moves in record.moves.items():
        before = [*moves[1:], None]
        found += [
            (move.at, environment, move.action, _served(move), move.actor, move.reason)
            for move, previous in zip(moves, before, strict=True)
            if name in _names(move) or (previous is not None and name in _names(previous))
        ]
    rows = sorted(found, key=lambda row: row[0], reverse=True)
    if not rows:
        return html.paragraph("No environment has served it.", "soft")
    return html.table(("at", "environment", "move", "served afterwards", "by", "why"), rows)


def _inference(compilation: Any) -> Iterator[str]:
    """Which form of the estimator answers, why, and the proof of the compiled one."""
    yield html.paragraph(f"The {compilation.answers} form answers. {compilation.reason}")
    costs = {"original": compilation.original_cost, "compiled": compilation.compiled_cost}
    rows = [(name, of.row_us, of.rows_64_us, of.memory_bytes) for name, of in costs.items() if of is not None]
    if rows:
        yield html.table(("form", "µs for 1 row", "µs for 64 rows", "bytes in memory"), rows)
    if (proof := compilation.proof) is not None:
        yield html.paragraph(
            f"Compared on {proof.rows:,} rows and at {proof.thresholds:,} thresholds of trees with onnxruntime "
            f"{proof.runtime}: {proof.flips} flips, largest difference {shown(proof.max_difference)}.",
            "soft",
        )


def _names(move: Any) -> list[str | None]:
    return [move.version, move.canary.version if move.canary else None, move.shadow]


def _served(move: Any) -> str:
    parts: Iterable[str] = (
        move.version or "nothing",
        f"canary {move.canary.version} for {move.canary.percent} %" if move.canary else "",
        f"shadow {move.shadow}" if move.shadow else "",
    )
    return ", ".join(part for part in parts if part)


def _lineage(record: VersionRecord) -> Iterator[str]:
    version, lineage = record.version, record.lineage
    run = lineage.get("run") or {}
    yield html.facts(
        {
            "run": f"{run['run_id']} ({run['status']})" if run else lineage.get("run_id"),
            "parent version": lineage.get("parent_version"),
            "ancestors": lineage.get("ancestors"),
            "made from it": lineage.get("descendants"),
            "code commit": lineage.get("code_commit"),
            "libraries": lineage.get("libraries"),
            "artifact": f"{version.format}, {version.size_bytes:,} bytes",
            "sha256": version.digest,
        }
    )
    others = {name: value for name, value in version.metadata.items() if name not in (CARD, TRAINING_RECORD)}
    yield f"<h3>Metadata</h3>{html.facts(others)}" if others else ""
