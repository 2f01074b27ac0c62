"""A replica without its registry: it comes up, says that it is not ready, and is not restarted for that."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from ml_core.exceptions import ConfigurationError, PlatformError
from ml_core.inference.edge.app import build_app
from ml_core.inference.replica import Replica
from ml_core.settings import DatabaseSettings, PlatformSettings, ServingSettings, Settings
from support.predictions import spooled

NOWHERE = "postgresql://mlcore_app@127.0.0.1:1/mlcore"


def test_it_needs_to_know_the_registry(tmp_path):
    """It never starts a database of its own."""
    with pytest.raises(ConfigurationError, match="MLCORE_DATABASE_URL"):
        Replica(Settings(platform=PlatformSettings(home=tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_without_the_registry_it_is_alive_and_not_ready(tmp_path):
    """503 with Retry-After, health says why, and the follower goes on trying."""
    replica = Replica(Settings(DatabaseSettings(url=NOWHERE), platform=PlatformSettings(home=tmp_path)))
    assert replica.start(wait_s=0.3) is False
    try:
        replica.check_health()
        ready = ask(replica, "/readyz")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
        assert ask(replica, "/healthz").json()["registry"]["error"] == "registry_unavailable"
        assert ask(replica, "/t/acme/v2").status_code == 503
    finally:
        replica.stop()
    with pytest.raises(PlatformError, match="follower"):
        replica.check_health()


def test_it_can_be_told_to_fail_without_the_registry(tmp_path):
    """So that an upgrade with a wrong password never replaces replicas that answer; the operator reads why."""
    settings = Settings(
        DatabaseSettings(url=NOWHERE),
        serving=ServingSettings(require_assignment=True),
        platform=PlatformSettings(home=tmp_path),
    )
    replica = Replica(settings)
    with pytest.raises(PlatformError, match="could not be read within") as caught:
        replica.start(wait_s=0.5)
    assert "127.0.0.1" in str(caught.value)
    assert "refused" in str(caught.value)
    assert not replica.follower.is_alive


@pytest.mark.parametrize(
    ("other", "finds"),
    [
        (DatabaseSettings(url=NOWHERE.replace("@", ":new@")), True),
        (DatabaseSettings(url=NOWHERE.replace("@", ":old@") + "2"), False),
        (DatabaseSettings(url=NOWHERE.replace("@", ":old@"), tenant_key="0" * 64), False),
    ],
)
def test_it_takes_no_answers_of_another_registry(tmp_path, other, finds):
    """Although both platforms have one folder, and tenants of the same name."""
    home = PlatformSettings(home=tmp_path)
    replica = Replica(Settings(DatabaseSettings(url=NOWHERE.replace("@", ":old@")), platform=home))
    replica.recorder.log.append(spooled("acme"))
    replica.stop()
    following = Replica(Settings(other, platform=home))
    found = [(contents.rows, file.leave()) for contents, file in following.recorder.log._spool.abandoned()]
    following.stop()
    assert found == ([(1, None)] if finds else [])


def ask(replica, path):
    async def send():
        transport = httpx.ASGITransport(build_app(replica.service))
        async with httpx.AsyncClient(transport=transport, base_url="http://cell") as client:
            return await client.get(path)

    return asyncio.run(send())
