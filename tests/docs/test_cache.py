"""The guide to the cache is run, block after block, with a real Redis server."""

from __future__ import annotations

import re
from pathlib import Path

from ml_core.cache import CacheConfig, shared
from ml_core.inference.predictor import _MAX_CACHED_ROWS
from support.redis_server import running_redis
from support.tables import measures, split_target

GUIDE = (Path(__file__).parents[2] / "docs" / "cache.md").read_text(encoding="utf-8")


def test_each_block_of_the_cache_guide_runs(db, tenant_id, capsys):
    """In order, in one namespace; the second look of each cache is a hit."""
    X, y = split_target(measures(), "outcome")
    with running_redis() as server:
        names = {"db": db, "X": X, "y": y, "redis_url": server.url}
        for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
            exec(block.replace('"acme"', repr(str(tenant_id))), names)
    here, answers, there = capsys.readouterr().out.splitlines()
    for statistics in (here, there):
        assert "entries=1," in statistics
        assert "hits=1, misses=1, errors=0" in statistics
    assert len(set(answers.split())) == 1


def test_the_cache_guide_has_the_defaults():
    """And the times of the code."""
    config = CacheConfig()
    assert f"| `max_entries` | {config.max_entries:,} |" in GUIDE
    assert f"| `max_bytes` | {config.max_bytes // 2**20} MiB |" in GUIDE
    assert f"| `ttl_s` | {config.ttl_s:g} |" in GUIDE
    assert f"within {shared.TIMEOUT_S} s, is not asked again for {shared.PAUSE_S:g} s" in GUIDE
    assert f"more than {_MAX_CACHED_ROWS} rows" in GUIDE
