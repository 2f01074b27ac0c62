"""Calls of MLflow's client, a function a theme; run by ``mlflow_client.run_mlflow``, which names the function."""

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

client = MlflowClient()


def refused(code: str, call: Callable[..., object], *arguments: object, saying: str = "", **options: object) -> None:
    """The call fails with MLflow's error code."""
    with pytest.raises(MlflowException) as caught:
        call(*arguments, **options)
    assert caught.value.error_code == code, str(caught.value)
    assert saying in str(caught.value)


def experiments() -> None:
    default = client.get_experiment("0")
    assert (default.name, default.lifecycle_stage) == ("Default", "active")
    made = client.create_experiment("Größe & Form", tags={"team": "a"})
    like = client.create_experiment("grosse form")
    same = client.create_experiment("GROSSE/FORM")  # the same letters make another id
    assert len({made, like, same}) == 3
    refused("RESOURCE_ALREADY_EXISTS", client.create_experiment, "grosse form")
    refused("RESOURCE_ALREADY_EXISTS", client.rename_experiment, made, "Default")
    refused("RESOURCE_DOES_NOT_EXIST", client.get_experiment, "nothing")
    refused("INVALID_PARAMETER_VALUE", client.create_experiment, "x" * 501)
    assert client.get_experiment_by_name("nothing") is None
    client.set_experiment_tag(made, "note", "x" * 5_000)
    client.rename_experiment(made, "Form")
    found = client.get_experiment_by_name("Form")
    assert (found.experiment_id, found.tags) == (made, {"team": "a", "note": "x" * 5_000})
    client.delete_experiment_tag(made, "note")

    def names(**options: object) -> list[str]:
        return [each.name for each in client.search_experiments(**options)]

    assert names(filter_string="tags.team = 'a'") == ["Form"]
    assert names(filter_string="name ILIKE 'grosse%'", order_by=["name ASC"]) == ["GROSSE/FORM", "grosse form"]
    first = client.search_experiments(max_results=2, order_by=["name DESC"])
    rest = client.search_experiments(max_results=1_000, order_by=["name DESC"], page_token=first.token)
    assert [each.name for each in [*first, *rest]] == names(order_by=["name DESC"])
    client.delete_experiment(made)
    assert "Form" not in names()
    assert names(view_type=ViewType.DELETED_ONLY) == ["Form"]
    refused("INVALID_PARAMETER_VALUE", client.create_run, made, saying="deleted")
    client.restore_experiment(made)
    assert "Form" in names()


def runs() -> None:
    run = client.create_run(client.create_experiment("runs"), run_name="first", tags={"a": "1", "empty": ""})
    run_id = run.info.run_id
    assert (run.info.status, run.info.run_name, run.data.tags["empty"]) == ("RUNNING", "first", "")
    client.update_run(run_id, name="renamed")
    client.set_tag(run_id, "mlflow.note.content", "x" * 8_000)
    client.set_tag(run_id, "a", "2")
    client.delete_tag(run_id, "empty")
    for status in ("FINISHED", "FAILED", "KILLED", "RUNNING", "FINISHED", "FINISHED"):
        client.update_run(run_id, status=status)
        info = client.get_run(run_id).info
        assert (info.status, info.end_time is None) == (status, status == "RUNNING")
    client.log_metric(run_id, "after", 1.0)  # as post-training metrics of autologging are
    child = client.create_run(run.info.experiment_id, tags={"mlflow.parentRunId": run_id})
    assert client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == run_id
    refused(
        "INVALID_PARAMETER_VALUE", client.set_tag, child.info.run_id, "mlflow.parentRunId", "run_0", saying="parent"
    )
    client.delete_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    assert [each.info.run_id for each in client.search_runs([run.info.experiment_id])] == [child.info.run_id]
    client.restore_run(run_id)
    kept = client.get_run(run_id)
    assert kept.info.lifecycle_stage == "active"
    assert (kept.info.run_name, kept.data.tags["a"], kept.data.metrics) == ("renamed", "2", {"after": 1.0})
    assert kept.data.tags.keys() == {"a", "mlflow.note.content", "mlflow.runName"}
    refused("RESOURCE_DOES_NOT_EXIST", client.get_run, "run_0000000000000000")
    refused("RESOURCE_DOES_NOT_EXIST", client.create_run, "0", tags={"mlflow.parentRunId": "run_0000000000000000"})
    with mlflow.start_run(run_id=run_id):  # opens it again
        mlflow.log_param("late", 1)
    assert client.get_run(run_id).info.status == "FINISHED"


def values() -> None:
    run_id = client.create_run("0").info.run_id
    client.log_param(run_id, "p", "x" * 6_000)
    client.log_param(run_id, "p", "x" * 6_000)
    refused("INVALID_PARAMETER_VALUE", client.log_param, run_id, "p", "other", saying="can't be changed")
    client.log_param(run_id, "k" * 250, "v")
    refused("INVALID_PARAMETER_VALUE", client.log_param, run_id, "k" * 251, "v")
    at = 1_700_000_000_123
    for step, value in enumerate((0.5, math.nan, math.inf, -math.inf)):
        client.log_metric(run_id, "m/1 a", value, timestamp=at + step, step=step - 1)
    assert [(each.timestamp, each.step) for each in client.get_metric_history(run_id, "m/1 a")] == [
        (at, -1),
        (at + 1, 0),
        (at + 2, 1),
        (at + 3, 2),
    ]
    assert str([each.value for each in client.get_metric_history(run_id, "m/1 a")]) == "[0.5, nan, inf, -inf]"
    assert client.get_run(run_id).data.metrics == {"m/1 a": -math.inf}
    assert client.get_metric_history(run_id, "none") == []
    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric("many", float(step), now, step) for step in range(800)],
        params=[Param(f"p{number}", str(number)) for number in range(100)],
        tags=[RunTag(f"t{number}", "") for number in range(100)],
    )
    kept = client.get_run(run_id).data
    assert (len(kept.params), len(kept.tags), kept.metrics["many"]) == (102, 100, 799.0)
    assert [each.step for each in client.get_metric_history(run_id, "many")] == list(range(800))
    store = client._tracking_client.store
    page = store.get_metric_history(run_id, "many", max_results=300)
    assert (len(page), len(store.get_metric_history(run_id, "many", 600, page.token))) == (300, 500)
    two = {"params": [Param("q", "1"), Param("q", "2")]}
    refused("INVALID_PARAMETER_VALUE", store.log_batch, run_id, [], two["params"], [], saying="'q'")
    many = [Metric("many", 1.0, now, step) for step in range(1_001)]
    refused("INVALID_PARAMETER_VALUE", store.log_batch, run_id, many, [], [])
    refused("RESOURCE_DOES_NOT_EXIST", client.log_metric, "run_0000000000000000", "m", 1.0)


def search() -> None:
    experiment_id = client.create_experiment("search")
    made = {}
    for number, (loss, kind) in enumerate([(0.3, "a"), (0.1, "b"), (math.nan, "a"), (None, "it's")]):
        run_id = made[number] = client.create_run(experiment_id, run_name=f"r{number}", tags={"kind": kind}).info.run_id
        client.log_param(run_id, "depth", number)
        if loss is not None:
            client.log_metric(run_id, "val loss", loss)
    client.set_terminated(made[1], "KILLED")

    def found(text: str = "", *orders: str, size: int = 2) -> list[int]:
        numbers, token = [], None
        while True:
            page = client.search_runs([experiment_id], text, max_results=size, order_by=list(orders), page_token=token)
            numbers += [int(run.info.run_name[1:]) for run in page]
            token = page.token
            if not token:
                return numbers

    assert found() == [3, 2, 1, 0]
    assert found("", "start_time ASC") == [0, 1, 2, 3]
    assert found("", "metrics.`val loss` DESC") == [0, 1, 2, 3]  # NaN, then those without it
    assert found("", "metrics.`val loss`", size=1) == [1, 0, 2, 3]
    assert found("", "tags.kind DESC", "params.depth DESC", size=1) == [3, 1, 2, 0]
    ended_first = found("params.started_at IS NULL", "params.started_at", "end_time DESC", size=1)
    assert (ended_first[0], sorted(ended_first)) == (1, [0, 1, 2, 3])
    assert found("metrics.`val loss` < 0.2") == [1]
    assert found("metrics.`val loss` >= 0.1 and tags.kind = 'a'") == [0]
    assert found("tags.kind != 'a'") == [3, 1]
    assert found("tags.kind = 'it''s'") == [3]
    assert found("params.depth LIKE '%2%'") == [2]
    assert found("attributes.status = 'KILLED'") == [1]
    assert found("status != 'KILLED' AND run_name ILIKE 'R%'") == [3, 2, 0]
    assert found(f"run_id IN ('{made[0]}', '{made[3]}')") == [3, 0]
    assert found("tags.none IS NULL AND tags.kind IS NOT NULL", size=10) == [3, 2, 1, 0]
    start = client.get_run(made[2]).info.start_time
    assert 2 in found(f"start_time >= {start}")
    assert 0 not in found(f"start_time > {start}")
    for text in ("metrics.m = 'x'", "tags.a = 'b' OR tags.a = 'c'", "dataset.name = 'x'", "attributes.nothing = '1'"):
        refused("INVALID_PARAMETER_VALUE", client.search_runs, [experiment_id], text)
    refused("INVALID_PARAMETER_VALUE", client.search_runs, [experiment_id], order_by=["metrics.a SIDEWAYS"])
    refused("INVALID_PARAMETER_VALUE", client.search_runs, [experiment_id], page_token="nonsense")


def artifacts() -> None:
    run_id = client.create_run("0").info.run_id
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sub dir" / "é").mkdir(parents=True)
        (Path(folder) / "sub dir" / "é" / "a.txt").write_text("deep")
        (Path(folder) / "empty").write_bytes(b"")
        client.log_artifacts(run_id, folder, "top")
        client.log_text(run_id, "text", "top/b.txt")
        assert [(each.path, each.is_dir, each.file_size) for each in client.list_artifacts(run_id, "top")] == [
            ("top/b.txt", False, 4),
            ("top/empty", False, 0),
            ("top/sub dir", True, None),
        ]
        assert [each.path for each in client.list_artifacts(run_id)] == ["top"]
        got = Path(client.download_artifacts(run_id, "top", tempfile.mkdtemp(dir=folder)))
        assert (got / "sub dir" / "é" / "a.txt").read_text() == "deep"
        large = Path(folder) / "large"
        block = os.urandom(2**20)
        large.write_bytes(block * int(sys.argv[2]))
        client.log_artifact(run_id, str(large))
        assert Path(client.download_artifacts(run_id, "large", tempfile.mkdtemp(dir=folder))).read_bytes() == (
            large.read_bytes()
        )
    get_artifact_repository(client.get_run(run_id).info.artifact_uri).delete_artifacts("top/sub dir")
    assert [each.path for each in client.list_artifacts(run_id, "top")] == ["top/b.txt", "top/empty"]
    with pytest.raises(MlflowException):
        client.download_artifacts(run_id, "nothing", tempfile.mkdtemp())


def models() -> None:
    made = client.create_logged_model("0", name="outside", tags={"a": "1"}, params={"p": "1"})
    client.set_logged_model_tags(made.model_id, {"b": "2"})
    client.delete_logged_model_tag(made.model_id, "a")
    client.finalize_logged_model(made.model_id, "READY")
    kept = client.get_logged_model(made.model_id)
    assert (kept.name, kept.status, dict(kept.tags), dict(kept.params)) == ("outside", "READY", {"b": "2"}, {"p": "1"})
    assert client.get_run(kept.source_run_id).info.status == "FINISHED"
    run_id = client.create_run("0").info.run_id
    inside = client.create_logged_model("0", name="inside", source_run_id=run_id)

    def names(**options: object) -> list[str]:
        return [each.name for each in client.search_logged_models(["0"], **options)]

    assert names() == ["inside", "outside"]
    assert names(filter_string=f"source_run_id = '{run_id}'") == names(filter_string="name = 'inside'") == ["inside"]
    first = client.search_logged_models(["0"], max_results=1)
    assert names(page_token=first.token) == ["outside"]
    client.delete_logged_model(inside.model_id)
    assert names() == ["outside"]
    refused("RESOURCE_DOES_NOT_EXIST", client.get_logged_model, inside.model_id)
    refused("RESOURCE_DOES_NOT_EXIST", client.get_logged_model, "m-nothing")
    refused("NOT_IMPLEMENTED", client.create_registered_model, "m", saying="mlcore promote")
    refused("NOT_IMPLEMENTED", client.search_model_versions, "name = 'm'", saying="mlcore")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
