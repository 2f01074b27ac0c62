"""``mlcore status --namespace``: against an API server of Kubernetes, from a kubeconfig."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ml_core.cli.main import run
from support.kubernetes_api import CONTEXT, Server, api_server, write_kubeconfig
from support.releases import wait

Status = Callable[..., tuple[int, str, str]]


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config"
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    return path


@pytest.fixture
def server(kubeconfig: Path) -> Iterator[Server]:
    with api_server(kubeconfig) as server:
        yield server


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Status:
    """Runs the verb; its exit code and what it printed on both streams."""
    monkeypatch.setattr("ml_core.cli.console.out._width", 400)
    monkeypatch.setattr("ml_core.cli.console.err._width", 400)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mlcore", "status", *arguments])
        with pytest.raises(SystemExit) as ended:
            run()
        return (int(ended.value.code or 0), *capsys.readouterr())

    return call


def test_a_release_that_runs(server: Server, status: Status) -> None:
    """Exit code 0, and every part in a table."""
    code, out, _ = status("--namespace", "mlcore")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["state", "running"] in lines
    assert ["shared", "active", "RUNNING", "2", "-"] in lines
    assert ["control-loop", "-", "ml-ml-platform-control-loop-75579757f-tx8sp"] in [line[:3] for line in lines]
    assert out.endswith("Nothing that is known holds it back.\n")


def test_what_holds_a_release_back(server: Server, status: Status) -> None:
    """Exit code 1; the commands of the remedies go where this one went."""
    wait(server.release.pods("head")[0], "CrashLoopBackOff", exit_code=1)
    code, out, _ = status("-n", "mlcore", "--context", CONTEXT)
    assert code == 1
    cause, remedy = out.splitlines()[-2:]
    assert "exit code 1" in cause
    assert f"kubectl --context {CONTEXT} -n mlcore logs ml-ml-platform-" in remedy


def test_json_has_the_same(server: Server, status: Status) -> None:
    """For scripts."""
    wait(server.release.pods("head")[0], "ErrImagePull", "no such image")
    code, out, _ = status("--namespace", "mlcore", "--json")
    found = json.loads(out)
    assert (code, found["state"], [each["code"] for each in found["causes"]]) == (1, "degraded", ["image_missing"])
    assert found["clusters"][0]["workers_ready"] == 2


def test_jobs_and_other_releases_are_left_out(server: Server, status: Status) -> None:
    """Their pods and clusters are no part of it."""
    objects = server.release.objects
    for kind in ("Pod", "RayCluster"):
        other = json.loads(json.dumps(objects[kind][0]))
        other["metadata"]["labels"] |= {
            "app.kubernetes.io/instance": "other",
            "ray.io/originated-from-cr-name": "other",
        }
        job = json.loads(json.dumps(objects[kind][0]))
        job["metadata"]["labels"] |= {"app.kubernetes.io/component": "job", "ray.io/originated-from-crd": "RayJob"}
        objects[kind] += [other, job]
    _, out, _ = status("--namespace", "mlcore", "--json")
    assert (len(json.loads(out)["clusters"]), len(json.loads(out)["pods"])) == (1, 6)


def test_a_cluster_without_kuberay(server: Server, status: Status) -> None:
    """It is what holds the release back, not an error of the command."""
    server.knows_kuberay = False
    for kind in ("Pod", "Job"):
        server.release.objects[kind].clear()
    code, out, _ = status("--namespace", "mlcore")
    assert (code, "KubeRay's operator is not installed" in out) == (1, True)


def test_what_is_not_there_is_named(server: Server, status: Status) -> None:
    """A release, with those that are there; a namespace; a context."""
    server.release.objects["Pod"].clear()
    server.release.objects["Job"].clear()
    for arguments, words in (
        (
            ("--namespace", "mlcore", "--release", "other"),
            ("no release other in the namespace mlcore", "There is: ml."),
        ),
        (("--namespace", "other"), ("no namespace other", "kubectl get namespaces")),
        (("--namespace", "mlcore", "--context", "other"), ("other", "kubectl config get-contexts")),
    ):
        code, _, err = status(*arguments)
        assert code == 1
        assert all(each in err for each in words), err


@pytest.mark.parametrize(("kind", "code", "words"), [("pods", 403, "right"), ("rayservices", 401, "credentials")])
def test_a_refusal_is_repeated(server: Server, status: Status, kind: str, code: int, words: str) -> None:
    """With what the server says."""
    server.refusals[kind] = code
    ended, _, err = status("--namespace", "mlcore")
    assert (ended, f"{kind} is refused" in err, words in err) == (1, True, True)


def test_who_may_not_read_namespaces_is_told_of_the_release(server: Server, status: Status) -> None:
    """A list of a namespace that does not exist is empty; nobody can tell the difference then."""
    server.refusals["other"] = 403
    _, _, err = status("--namespace", "other")
    assert "no release ml in the namespace other" in err


def test_a_server_that_does_not_answer(kubeconfig: Path, status: Status) -> None:
    """Nobody listens on the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    write_kubeconfig(kubeconfig, port)
    code, _, err = status("--namespace", "mlcore")
    assert (code, "does not answer" in err, "context" in err) == (1, True, True)


@pytest.mark.parametrize("text", [None, "", "clusters: [", "\tx"])
def test_a_kubeconfig_that_can_not_be_used(kubeconfig: Path, status: Status, text: str | None) -> None:
    """There is none, or it is no YAML."""
    if text is not None:
        kubeconfig.write_text(text, encoding="utf-8")
    code, _, err = status("--namespace", "mlcore")
    assert (code, "The kubeconfig can't be used" in err, "Traceback" in err) == (1, True, False)


def test_without_the_extra(status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    """How to install it."""
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    monkeypatch.delitem(sys.modules, "k8s.cluster", raising=False)
    code, _, err = status("--namespace", "mlcore")
    assert (code, "pip install 'ml-core-platform[kubernetes]'" in err) == (1, True)
