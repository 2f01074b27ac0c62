"""The file that ``deployments.train_job`` reads."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from deployments.train_job import main, read_spec
from ml_core.domain.job import JobKind
from ml_core.exceptions import MLFrameworkError

SPEC = {"model_id": "m", "training": {"dataset": "d@1", "target": "y"}}


@pytest.mark.parametrize("members", [{"tenant": "acme"}, {"tenant": "acme", "kind": "train", "format": 1}, {}])
def test_tenant_and_kind_are_members_or_options(tmp_path: Path, monkeypatch, members: dict[str, object]) -> None:
    """From a file as from standard input."""
    text = json.dumps({**SPEC, **members})
    (tmp_path / "spec.json").write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    for path in (str(tmp_path / "spec.json"), "-"):
        tenant_id, spec = read_spec(path, tenant="acme", kind="train")
        assert (tenant_id, spec.kind) == ("acme", JobKind.TRAIN)
        assert spec.to_json()["training"]["dataset"] == "d@1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "spec.json can't be read: No such file or directory. A Ray job has the files of its working directory"),
        ("{", "is no JSON"),
        (b"\xff", "is no JSON"),
        ("[]", "is no JSON object"),
        (SPEC, "names no tenant. Give --tenant"),
        ({**SPEC, "tenant": 7}, "names no tenant"),
        ({**SPEC, "tenant": "A B"}, "tenant"),
        ({**SPEC, "tenant": "acme", "kind": "trian"}, "There is no kind 'trian'. Use one of train"),
        ({**SPEC, "tenant": "acme", "modle_id": "m"}, "no field 'modle_id'. Did you mean model_id"),
        ({"tenant": "acme", "model_id": "m"}, "lacks the field 'training'. Its fields are: model_id, training"),
        ({**SPEC, "tenant": "acme", "training": {"target": "y"}}, "The job names no dataset"),
        ({**SPEC, "tenant": "acme", "training": {"dataset": "d", "traget": "y"}}, "Did you mean target"),
        ({**SPEC, "tenant": "acme", "format": 2}, "has the format 2"),
    ],
)
def test_a_bad_file_has_a_message_of_its_own(tmp_path: Path, capsys, caplog, content: object, message: str) -> None:
    """On standard error, with exit code 1, before a database is asked."""
    path = tmp_path / "spec.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(MLFrameworkError) as refused:
        read_spec(str(path))
    assert message in str(refused.value)


@pytest.mark.parametrize(("name", "option"), [("tenant", "globex"), ("kind", "predict")])
def test_two_answers_are_refused(tmp_path: Path, name: str, option: str) -> None:
    """Nobody can tell which is meant."""
    (tmp_path / "spec.json").write_text(json.dumps({**SPEC, "tenant": "acme", "kind": "train"}))
    with pytest.raises(MLFrameworkError, match=f"and --{name} is '{option}'. Give one of them"):
        read_spec(str(tmp_path / "spec.json"), **{name: option})


def test_an_error_is_an_exit_code(tmp_path: Path, monkeypatch, caplog) -> None:
    """With the message in the log of the Ray job."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["--spec", str(tmp_path / "gone.json")]) == 1
    assert "can't be read" in caplog.text
