"""The cache of artifacts: bounded, shared by processes that know nothing of each other, never trusted."""

import hashlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from ml_core.ids import Digest, TenantId
from ml_core.models.store.cache import ArtifactCache

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
MAX_BYTES = 10_000


def blob(number: int, size_bytes: int = 1000) -> tuple[Digest, bytes]:
    data = str(number).encode().ljust(size_bytes, b".")
    return Digest(hashlib.sha256(data).hexdigest()), data


@pytest.fixture
def cache(tmp_path) -> ArtifactCache:
    return ArtifactCache(tmp_path / "cache", MAX_BYTES)


def keep(
    cache: ArtifactCache, number: int, size_bytes: int = 1000, tenant: TenantId = ACME, used_at: float = 0
) -> Path:
    """Put an artifact into the cache; ``used_at`` in seconds, later ones are used later by default."""
    digest, data = blob(number, size_bytes)
    cache.keep(tenant, digest, data)
    path = cache.path(tenant, digest)
    os.utime(path, (used_at or number + 1,) * 2)
    return path


def copies(cache: ArtifactCache) -> list[Path]:
    return [path for path in cache.folder.rglob("*") if path.is_file() and path.name != ".lock"]


def total_bytes(cache: ArtifactCache) -> int:
    return sum(path.stat().st_size for path in copies(cache))


def test_what_is_kept_is_read(cache):
    """By tenant and digest."""
    digest, data = blob(1)
    keep(cache, 1)
    assert cache.read(ACME, digest, len(data)) == data
    assert cache.find(ACME, digest, len(data)).read_bytes() == data
    assert cache.read(GLOBEX, digest, len(data)) is None


def test_other_users_can_not_look_inside(cache):
    """The folder is its owner's alone."""
    keep(cache, 1)
    assert cache.folder.stat().st_mode & 0o077 == 0


def test_the_bound_holds_after_each_write(cache):
    """Whatever is written, the files together stay under the bound."""
    for number in range(50):
        keep(cache, number, 300 + 97 * (number % 20))
        assert total_bytes(cache) <= MAX_BYTES


def test_the_least_recently_used_go_first(cache):
    """A use counts, not the age: what was read survives what was not."""
    paths = [keep(cache, number) for number in range(10)]
    digest, data = blob(0)
    assert cache.read(ACME, digest, len(data)) == data
    keep(cache, 10)
    assert paths[0].exists()
    assert not paths[1].exists()


def test_two_caches_of_one_folder_keep_one_bound(cache):
    """Each sees what the other wrote."""
    other = ArtifactCache(cache.folder, MAX_BYTES)
    for number in range(30):
        keep((cache, other)[number % 2], number)
        assert total_bytes(cache) <= MAX_BYTES


def test_a_process_looks_again_only_after_it_added_something(tmp_path, monkeypatch):
    """A hundred small writes cost a few looks at the folder, not a hundred."""
    cache = ArtifactCache(tmp_path, 100_000)
    looks = []
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: looks.append(path) or iterdir(path))
    for number in range(100):
        keep(cache, number, 100)
    assert 5 <= len(looks) <= 12
    assert total_bytes(cache) == 10_000


def test_files_that_another_process_removed_are_no_error(cache, monkeypatch):
    """Between the look and the removal all vanish."""
    for number in range(10):
        keep(cache, number)
    unlink = Path.unlink

    def twice(path, missing_ok=False):
        unlink(path, missing_ok=True)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", twice)
    assert keep(cache, 10).exists()


def test_while_another_process_frees_room_nobody_waits(cache):
    """The lock is held elsewhere: the write goes on, and the next one looks."""
    for number in range(10):
        keep(cache, number)
    with FileLock(cache.folder / ".lock"):
        keep(cache, 10)
    assert total_bytes(cache) > MAX_BYTES
    keep(cache, 11)
    assert total_bytes(cache) <= MAX_BYTES


def test_a_damaged_copy_is_removed(cache, caplog):
    """It is no answer, is logged, and makes room."""
    path, (digest, data) = keep(cache, 1), blob(1)
    path.write_bytes(data[:-1] + b"!")
    with caplog.at_level(logging.WARNING):
        assert cache.read(ACME, digest, len(data)) is None
    assert "sha256 differs" in caplog.text
    assert not path.exists()


def test_what_is_larger_than_the_bound_is_not_kept(cache):
    """It would only drive out all the others."""
    keep(cache, 1)
    digest, data = blob(2, MAX_BYTES + 1)
    cache.keep(ACME, digest, data)
    assert [path.stat().st_size for path in copies(cache)] == [1000]


def test_a_file_larger_than_the_bound_is_lent_and_goes_with_the_next(cache, caplog):
    """A caller who needs a file gets one, with a word in the log."""
    digest, data = blob(1, MAX_BYTES + 1)
    path = cache.write(ACME, digest, len(data), [data])
    assert path.read_bytes() == data
    assert "MLCORE_ARTIFACT_CACHE_MB" in caplog.text
    keep(cache, 2)
    assert not path.exists()


def test_an_open_copy_stays_readable(cache):
    """Making room takes away the name, not the bytes that somebody reads."""
    digest, data = blob(1)
    keep(cache, 1)
    with cache.find(ACME, digest, len(data)).open("rb") as file:
        os.utime(file.name, (1, 1))
        keep(cache, 2, MAX_BYTES)
        assert not Path(file.name).exists()
        assert file.read() == data


def test_what_a_killed_process_left_is_removed(cache):
    """A temporary file that is hours old goes; one that may be in use stays."""
    folder = keep(cache, 1).parent
    abandoned, fresh = folder / ".writing-old", folder / ".writing-new"
    for file in (abandoned, fresh):
        file.write_bytes(b"half")
    os.utime(abandoned, (time.time() - 3700,) * 2)
    keep(cache, 2)
    assert not abandoned.exists()
    assert fresh.exists()


def test_bytes_that_break_off_are_not_kept(cache):
    """No file, no temporary file."""

    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("not the artifact")

    with pytest.raises(ValueError, match="not the artifact"):
        cache.write(ACME, blob(1)[0], 1000, chunks())
    assert copies(cache) == []


def test_a_tenants_copies_are_forgotten(cache):
    """Those of a tenant whose name begins alike stay."""
    keep(cache, 1), keep(cache, 2)
    kept = keep(cache, 1, tenant=TenantId("acme2"))
    cache.forget_tenant(ACME)
    assert copies(cache) == [kept]


_FILL = """
import hashlib, sys
from pathlib import Path
from ml_core.ids import Digest, TenantId
from ml_core.models.store.cache import ArtifactCache
cache = ArtifactCache(Path(sys.argv[1]), 10_000)
for number in range(300):
    data = f"{number % 40}".encode().ljust(900, b".")
    digest = Digest(hashlib.sha256(data).hexdigest())
    found = cache.read(TenantId("acme"), digest, 900)
    assert found in (None, data)
    if found is None:
        assert cache.write(TenantId("acme"), digest, 900, [data])
"""


def test_processes_share_a_cache_that_is_too_small_for_them(cache):
    """Four at once read, write and evict each other's files: no error, no wrong byte, and the bound holds after."""
    command = [sys.executable, "-c", _FILL, str(cache.folder)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert said == [""] * 4
    assert [process.returncode for process in processes] == [0] * 4
    keep(cache, 1)
    assert total_bytes(cache) <= MAX_BYTES
