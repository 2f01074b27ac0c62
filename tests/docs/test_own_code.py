"""The guide to own code: its module is installed as written, and its blocks are run in order."""

import re
import tomllib
from pathlib import Path

from ml_core.models.model_factory import ModelFactory
from support import acme

GUIDE = (Path(__file__).parents[2] / "docs" / "own_code.md").read_text(encoding="utf-8")


def test_each_block_of_the_guide_runs(db, tenant_id, embedded_home, tmp_path, monkeypatch):
    """With the module installed and trusted; what is promoted answers."""
    project = tomllib.loads(re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)[0])["project"]
    ((group, points),) = project["entry-points"].items()
    entry_points = f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
    module, *blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLCORE_HOME", str(embedded_home))  # the server of the session, which ``db`` has started
    monkeypatch.setenv("MLCORE_TRUSTED_MODULES", "acme_models")
    names = {}
    try:
        with acme.installed(tmp_path / "site", version=project["version"], module=module, entry_points=entry_points):
            for block in blocks:
                exec(block.replace('"acme"', repr(str(tenant_id))), names)
    finally:
        ModelFactory.unregister("nearest_mean")
        names["system"]._db.close()
    assert names["trained"]["algorithm"] == "NearestMean"
    assert not any("No server loads" in note for note in names["trained"]["notes"])
