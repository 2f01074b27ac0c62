"""``mlcore predict`` with a key asks the running platform; without one it answers itself, the same."""

import json
import subprocess
import sys

import pytest

from support.tables import tickets

ROW = json.dumps(tickets(1, seed=7).drop(columns=["category"]).iloc[0].dropna().to_dict(), default=str)


@pytest.fixture
def predict(platform, acme, monkeypatch):
    """Runs the command in a process of its own, at the platform's home."""
    monkeypatch.setenv("MLCORE_HOME", str(platform.settings.platform.home))
    monkeypatch.delenv("MLCORE_API_KEY", raising=False)

    def call(*options):
        words = ["predict", "--tenant", "acme", "--model", "tickets", "--row", ROW, "--proba", "--json", *options]
        return subprocess.run([sys.executable, "-m", "ml_core.cli", *words], capture_output=True, text=True)

    return call


def test_both_ways_give_the_same_answer(predict, acme):
    """Labels, probabilities and version."""
    here, served = predict(), predict("--key", acme.key)
    assert (here.returncode, served.returncode) == (0, 0), here.stderr + served.stderr
    mine, theirs = json.loads(here.stdout), json.loads(served.stdout)
    assert (mine["predictions"], mine["version"]) == (theirs["predictions"], theirs["version"])
    assert mine["probabilities"][0] == pytest.approx(theirs["probabilities"][0])


def test_a_key_of_nobody_is_refused(predict):
    """The server's own words reach the user."""
    refused = predict("--key", f"mlk_{'0' * 16}_{'a' * 32}")
    assert refused.returncode == 1
    assert json.loads(refused.stderr)["error"]["code"] == "unauthenticated"
