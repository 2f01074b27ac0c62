"""``up``, ``down`` and ``status`` where no platform can, or does, run. A running one is in ``tests/chaos``."""

import socket

import pytest

from ml_core.database.embedded import EmbeddedServer


@pytest.fixture
def taken_port():
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_told_before_anything_starts(mlcore, cli_home, taken_port):
    """The message names the port and the way out; the database that another process uses goes on."""
    result = mlcore("up", "--port", taken_port)
    assert result.code == 1
    assert f"Port {taken_port}" in result.err
    assert f"--port {taken_port + 1}" in result.err
    assert "Clearing what is left" not in result.err, "nothing was"
    assert "Starting Ray" not in result.err
    assert EmbeddedServer(cli_home).is_running()


def test_status_of_nothing(mlcore):
    """Exit code 1, and how to start."""
    result = mlcore("status", "--json")
    assert result.code == 1
    assert (result.json["ray"], result.json["ingress"], result.json["url"]) == (False, False, None)


def test_a_home_that_can_not_be_made_is_told(mlcore, monkeypatch, tmp_path):
    """A file is where the folder should be."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLCORE_HOME", str(tmp_path / "file" / "home"))
    for verb in (("up",), ("tenants", "list")):
        result = mlcore(*verb)
        assert result.code == 1
        assert "MLCORE_HOME" in result.err
        assert "Traceback" not in result.err


def test_a_named_database_has_no_embedded_platform(mlcore, monkeypatch):
    """Two databases at once would be a misunderstanding."""
    monkeypatch.setenv("MLCORE_DATABASE_URL", "postgresql://somebody@127.0.0.1:1/mlcore")
    result = mlcore("up")
    assert result.code == 1
    assert "MLCORE_DATABASE_URL" in result.err


def test_a_database_that_does_not_answer_is_told(mlcore, monkeypatch):
    """Which, and what to check; never the password."""
    monkeypatch.setenv("MLCORE_DATABASE_URL", "postgresql://somebody:secret@127.0.0.1:1/mlcore")
    result = mlcore("tenants", "list")
    assert result.code == 1
    assert "127.0.0.1" in result.err
    assert "secret" not in result.err
