"""``mlcore login``: what is kept, for whom, and what has precedence over it."""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.registry.platform_keys import PlatformKeyRepository
from support.registry import settings_for


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlcore) -> Path:
    """Where the login is kept; each test has its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "mlcore" / "login.json"


@pytest.fixture
def key(mlcore, tenant, config) -> str:
    """A key of the tenant."""
    return mlcore("keys", "create", "-t", tenant, "--scope", "admin", "--json").json["key"]


@pytest.fixture
def logged_in(mlcore, tenant, key, control_api, config, monkeypatch, tmp_path) -> Path:
    """The file of a login; the machine has no registry of its own."""
    result = mlcore("login", control_api, "--tenant", tenant, "--key", key)
    assert result.code == 0, result.err
    monkeypatch.setenv("MLCORE_HOME", str(tmp_path / "empty"))
    return config


def test_what_is_kept_is_the_users_own(mlcore, tenant, key, control_api, logged_in):
    """Mode 600, in a folder of mode 700."""
    assert json.loads(logged_in.read_text()) == {"url": control_api, "key": key, "tenant": tenant, "model": None}
    assert logged_in.stat().st_mode & 0o777 == 0o600
    assert logged_in.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in logged_in.parent.iterdir()] == ["login.json"]


def test_later_commands_need_no_options(mlcore, logged_in, tmp_path):
    """Neither address nor tenant nor, once it is kept, the model; and no registry is made on this machine."""
    assert mlcore("models", "list", "--json").json["items"] == []
    assert "--model" in mlcore("models", "archive").err
    assert mlcore("login", "--model", "tickets").code == 0
    assert "tickets" in mlcore("models", "archive").err
    assert not (tmp_path / "empty").exists()


def test_another_tenant_drops_the_model(mlcore, logged_in, tenant):
    """It is the model of the one before."""
    mlcore("login", "--model", "tickets")
    mlcore("login", "--tenant", tenant)
    assert json.loads(logged_in.read_text())["model"] is None


@pytest.mark.parametrize("ending", ["\n", "", "\r\n"])
def test_the_key_may_come_from_standard_input(mlcore, tenant, key, control_api, config, monkeypatch, ending):
    """So that it is in no list of processes."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{key}{ending}"))
    assert mlcore("login", control_api, "-t", tenant, "--json").json["tenant"] == tenant
    assert json.loads(config.read_text())["key"] == key


def test_a_wrong_key_is_not_kept(mlcore, tenant, control_api, config):
    """The platform says so before anything is written."""
    refused = mlcore("login", control_api, "-t", tenant, "--key", f"mlk_{'0' * 16}_{'a' * 32}")
    assert refused.code == 1
    assert "not valid" in refused.err
    assert not config.exists()
    assert "whole key" in mlcore("login", control_api, "-t", tenant, "--key", "").err


def test_a_key_without_read_is_kept(mlcore, tenant, control_api, config):
    """It is the tenant's; what it may do is asked when it does something."""
    key = mlcore("keys", "create", "-t", tenant, "--scope", "train", "--json").json["key"]
    assert mlcore("login", control_api, "-t", tenant, "--key", key).code == 0


def test_a_platform_key_has_no_tenant(mlcore, tenant, key, control_api, config, cli_home):
    """A tenant's key needs one, and the refusal says so."""
    with DatabaseConnection(settings=settings_for(cli_home)) as db:
        of_platform = str(PlatformKeyRepository(db).create("operator", ["read"]))
    assert mlcore("login", control_api, "--key", of_platform).code == 0
    assert json.loads(config.read_text())["tenant"] is None
    refused = mlcore("login", control_api, "--key", key)
    assert refused.code == 1
    assert "--tenant" in refused.err


@pytest.mark.parametrize(
    ("url", "said"), [("nonsense", "is not an address"), ("http://127.0.0.1:{port}", "can't be reached")]
)
def test_an_address_without_a_platform(mlcore, tenant, key, config, url, said):
    """One that is none, and one where nobody listens."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        refused = mlcore("login", url.format(port=nobody.getsockname()[1]), "-t", tenant, "--key", key)
    assert refused.code == 1
    assert said in refused.err
    assert not config.exists()


def test_a_given_address_has_precedence(mlcore, logged_in, tenant, key, monkeypatch):
    """And the kept key is sent to no other address, nor is the kept tenant meant for it."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        elsewhere = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setenv("MLCORE_URL", elsewhere)
        assert "--tenant" in mlcore("models", "list").err
        assert f"no API key for {elsewhere}" in mlcore("models", "list", "-t", tenant).err
        assert "can't be reached" in mlcore("models", "list", "-t", tenant, "--key", key).err


@pytest.mark.parametrize("content", ["", "[]", "{", '{"url": "http://a", "key": 5}', '{"address": "http://a"}'])
def test_a_damaged_file_is_named(mlcore, logged_in, control_api, tenant, key, content):
    """With the way out; logging in again is one."""
    logged_in.write_text(content)
    refused = mlcore("models", "list")
    assert refused.code == 1
    assert str(logged_in) in refused.err
    assert "mlcore logout" in refused.err
    assert mlcore("login", control_api, "-t", tenant, "--key", key).code == 0
    assert mlcore("models", "list", "--json").json["items"] == []


def test_a_folder_that_can_not_be_written_is_named(mlcore, tenant, key, control_api, monkeypatch, tmp_path):
    """A file is where the folder should be."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    assert "XDG_CONFIG_HOME" in mlcore("login", control_api, "-t", tenant, "--key", key).err


def test_logout_forgets(mlcore, logged_in, tenant, cli_home, monkeypatch):
    """Commands use the registry of this machine again."""
    assert mlcore("logout", "--json").json == {"logged_out": True}
    assert not logged_in.exists()
    assert mlcore("logout", "--json").json == {"logged_out": False}
    assert "no login to change" in mlcore("login", "--model", "m").err
    monkeypatch.setenv("MLCORE_HOME", str(cli_home))
    assert mlcore("models", "list", "-t", tenant, "--json").json["items"] == []
