"""``one_thread``: every pool, whenever its library was loaded."""

from __future__ import annotations

import os
import subprocess
import sys

_PROGRAM = """
import sklearn.linear_model
from threadpoolctl import threadpool_info
from ml_core.training.one_thread import one_thread

def threads():
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}

with one_thread():
    before = threads()
import lightgbm
with one_thread():
    after = threads()
assert len(after) > len(before), "LightGBM has a pool of its own"
assert set(before.values()) == set(after.values()) == {1}, after
assert max(threads().values()) == 2, "as before"
"""


def test_a_pool_that_is_loaded_later_has_one_thread_too() -> None:
    """The pools are looked for again, and have as many threads as before when the block has ended."""
    two = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], env=two, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
