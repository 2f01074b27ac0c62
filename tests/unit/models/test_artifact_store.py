"""The artifact store: whole or absent, and proved to be what was stored."""

import errno
import hashlib
import os
import resource
import signal
import stat
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ml_core.exceptions import ArtifactIntegrityError, InvalidNameError, ModelLoadError, ModelSaveError
from ml_core.ids import Digest, TenantId
from ml_core.models.store import LocalStore, platform_store
from ml_core.settings import ArtifactSettings, PlatformSettings, Settings

ACME = TenantId("acme")
DATA = b"the bytes of a model" * 100


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "artifacts")


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_is_put_is_read_back(store):
    """The digest is the sha256 of the bytes, computed by the store."""
    artifact = store.put(ACME, DATA, "skops/1")
    assert artifact.digest == hashlib.sha256(DATA).hexdigest()
    assert (artifact.size_bytes, artifact.format) == (len(DATA), "skops/1")
    assert store.read(ACME, artifact.digest, artifact.size_bytes) == DATA


def test_other_users_can_not_look_inside(store):
    """The folder that holds a tenant's artifact is its owner's alone."""
    path = store.path(ACME, store.put(ACME, DATA, "skops/1").digest)
    assert path.parent.stat().st_mode & 0o077 == 0


def test_the_same_bytes_are_stored_once(store):
    """A second put leaves the first file alone."""
    path = store.path(ACME, store.put(ACME, DATA, "skops/1").digest)
    before = path.stat()
    store.put(ACME, DATA, "skops/1")
    assert path.stat().st_ino == before.st_ino
    assert files_in(store.root) == [path]


def test_a_truncated_file_is_healed_by_a_put(store):
    """A file of another size is written again."""
    artifact = store.put(ACME, DATA, "skops/1")
    store.path(ACME, artifact.digest).write_bytes(DATA[:10])
    store.put(ACME, DATA, "skops/1")
    assert store.read(ACME, artifact.digest, len(DATA)) == DATA


def test_a_flipped_byte_is_healed_by_a_put(store):
    """A file of the right size with other bytes is written again: training again mends a damaged artifact."""
    artifact = store.put(ACME, DATA, "skops/1")
    damaged = bytearray(DATA)
    damaged[17] ^= 1
    store.path(ACME, artifact.digest).write_bytes(damaged)
    store.put(ACME, DATA, "skops/1")
    assert store.read(ACME, artifact.digest, len(DATA)) == DATA


def test_new_folders_are_flushed_to_the_disk(store, monkeypatch):
    """Each new folder's entry is in the folder above it, so all of those are flushed, once."""
    flushed = []
    flush = os.fsync

    def note(descriptor):
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    path = store.path(ACME, store.put(ACME, DATA, "skops/1").digest)
    folders = [store.root.parent, store.root, store.root / ACME, path.parent]
    assert [each for each in flushed if each.is_dir()] == folders


def test_what_a_killed_process_left_is_removed(store):
    """A temporary file that is hours old goes with the next put; one that may be in use stays."""
    path = store.path(ACME, store.put(ACME, DATA, "skops/1").digest)
    abandoned, fresh = path.parent / ".writing-old", path.parent / ".writing-new"
    for file in (abandoned, fresh):
        file.write_bytes(b"half")
    os.utime(abandoned, (time.time() - 3700,) * 2)
    store.put(ACME, DATA, "skops/1")
    assert set(files_in(store.root)) == {path, fresh}


def test_one_flipped_byte_is_noticed(store):
    """The sha256 is compared at each read."""
    artifact = store.put(ACME, DATA, "skops/1")
    damaged = bytearray(DATA)
    damaged[17] ^= 1
    store.path(ACME, artifact.digest).write_bytes(damaged)
    with pytest.raises(ArtifactIntegrityError, match=r"sha256 differs.*backup"):
        store.read(ACME, artifact.digest, artifact.size_bytes)


def test_a_cut_file_is_noticed(store):
    """The size is compared before the bytes are read."""
    artifact = store.put(ACME, DATA, "skops/1")
    store.path(ACME, artifact.digest).write_bytes(DATA[:-1])
    with pytest.raises(ArtifactIntegrityError, match=r"has 1,999 bytes instead of 2,000"):
        store.read(ACME, artifact.digest, artifact.size_bytes)


def test_a_missing_file_is_said_to_be_missing(store):
    """The error carries tenant and digest."""
    digest = Digest("ab" * 32)
    with pytest.raises(ArtifactIntegrityError, match="is missing") as caught:
        store.read(ACME, digest, 1)
    assert (caught.value.tenant_id, caught.value.digest) == (ACME, digest)


def test_another_tenant_has_nothing_of_it(store):
    """Tenants share no bytes, not even equal ones."""
    artifact = store.put(ACME, DATA, "skops/1")
    assert not store.exists(TenantId("globex"), artifact.digest)
    with pytest.raises(ArtifactIntegrityError):
        store.read(TenantId("globex"), artifact.digest, artifact.size_bytes)


@pytest.mark.parametrize("tenant", ["../acme", "/etc", "", "a/b"])
def test_a_location_needs_a_tenants_name(store, tenant):
    """Text that is no tenant reaches no path."""
    with pytest.raises(InvalidNameError):
        store.path(tenant, Digest("ab" * 32))


def test_deleting_is_idempotent(store):
    """What is gone stays gone, without an error."""
    artifact = store.put(ACME, DATA, "skops/1")
    store.delete(ACME, artifact.digest)
    store.delete(ACME, artifact.digest)
    assert not store.exists(ACME, artifact.digest)


@pytest.mark.parametrize("refused", ["write", "fsync"])
def test_a_full_disk_leaves_nothing_behind(store, monkeypatch, refused):
    """The kernel refuses the write, or only the flush: one clear error, no temporary file, no artifact."""

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write over the limit fails instead of killing
    if refused == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ModelSaveError, match=r"nothing was stored: .*(No space left on device|File too large)\."):
            store.put(ACME, DATA, "skops/1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert files_in(store.root) == []


@contextmanager
def closed(folder):
    """A folder that this process may not enter, also where it runs as root."""
    folder.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)


@pytest.mark.parametrize("ask", ["exists", "verify", "read", "fetch"])
def test_what_is_closed_is_not_called_damaged(store, ask):
    """The permissions are to be corrected: no backup would help, and nothing is said of the bytes."""
    artifact = store.put(ACME, DATA, "skops/1")
    how = () if ask == "exists" else (len(DATA),)
    with closed(store.path(ACME, artifact.digest).parent), pytest.raises(ModelLoadError) as caught:
        getattr(store, ask)(ACME, artifact.digest, *how)
    assert not isinstance(caught.value, ArtifactIntegrityError)
    assert "ermission" in caught.value.cause
    assert "permissions" in caught.value.remedy


def test_every_new_folder_is_closed_and_none_above(tmp_path):
    """From the store's root on they are the owner's alone; the platform's home stays as the system makes it."""
    home = tmp_path / "home"
    before = os.umask(0o022)
    try:
        store = LocalStore(home / "artifacts")
        path = store.path(ACME, store.put(ACME, DATA, "skops/1").digest)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (home, *path.parents[2::-1])] == [0o755] + [0o700] * 3


def test_a_tenant_goes_while_others_write(store):
    """Files that come and go meanwhile are no error but that they do; once it is quiet, nothing is left."""
    stop = threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            with suppress(OSError):
                folder = store.root / ACME / f"{number % 3}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f".writing-{number}").write_bytes(b"x")
                (folder / f".writing-{number}").rename(folder / f"{number % 50}")

    writer = threading.Thread(target=write)
    writer.start()
    removed, refusals = 0, []
    try:
        for _ in range(200):
            try:
                removed += store.delete_tenant(ACME).count
            except ModelSaveError as error:  # a writer that never stops may win every sweep
                refusals.append(str(error))
    finally:
        stop.set()
        writer.join()
    removed += store.delete_tenant(ACME).count
    assert removed > 0
    assert all("keeps writing" in refusal for refusal in refusals)
    assert not (store.root / ACME).exists()


def test_a_link_in_place_of_a_tenant_is_not_followed(store, tmp_path):
    """What it leads to is somebody else's."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_bytes(b"x")
    store.root.mkdir()
    (store.root / ACME).symlink_to(tmp_path / "other")
    with pytest.raises(ModelSaveError, match="symbolic link"):
        store.delete_tenant(ACME)
    assert (tmp_path / "other" / "file").exists()


def test_a_tenant_that_can_not_be_removed_is_one_clear_error(store):
    """A file where the folder should be: nothing is said to be removed."""
    store.root.mkdir()
    (store.root / ACME).write_text("")
    with pytest.raises(ModelSaveError, match="can't be removed"):
        store.delete_tenant(ACME)


def test_a_folder_that_can_not_be_listed_is_one_clear_error(store):
    """It is not taken for an empty one."""
    store.root.mkdir()
    (store.root / ACME).write_text("")
    with pytest.raises(ModelLoadError, match="can't be listed"):
        list(store.list(ACME))


def test_a_root_that_is_a_file_is_one_clear_error(tmp_path):
    """The folder can't be made."""
    (tmp_path / "artifacts").write_text("")
    with pytest.raises(ModelSaveError, match="can't be written"):
        LocalStore(tmp_path / "artifacts").put(ACME, DATA, "skops/1")


@pytest.mark.parametrize("url", [None, "s3://bucket/prefix"])
def test_a_process_has_one_store_for_equal_settings(tmp_path, url):
    """So that a client of a bucket, and its connections, are made once; other settings are another store."""

    def settings(home):
        return Settings(platform=PlatformSettings(home=home), artifacts=ArtifactSettings(url=url))

    assert platform_store(settings(tmp_path)) is platform_store(settings(tmp_path))
    assert platform_store(settings(tmp_path)) is not platform_store(settings(tmp_path / "other"))
