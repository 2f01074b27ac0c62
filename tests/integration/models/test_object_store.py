"""Artifacts in a bucket: whole or absent, found out when damaged, clear when the store is not there."""

import hashlib
import io
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from ml_core.exceptions import ArtifactIntegrityError, ModelLoadError, ModelSaveError
from ml_core.ids import Digest, TenantId
from ml_core.models.store import objects
from ml_core.models.store.cache import ArtifactCache
from ml_core.models.store.objects import ObjectStore
from support.s3 import s3, s3_server

__all__ = ["s3"]

ACME = TenantId("acme")
DATA = b"the bytes of a model" * 100
DIGEST = Digest(hashlib.sha256(DATA).hexdigest())
KEY = f"some/prefix/acme/{DIGEST[:2]}/{DIGEST}"
BIG = os.urandom(2**20) * 17  # three parts of an upload

READS = {
    "read": lambda store: store.read(ACME, DIGEST, len(DATA)),
    "fetch": lambda store: store.fetch(ACME, DIGEST, len(DATA)),
    "verify": lambda store: store.verify(ACME, DIGEST, len(DATA)),
    "exists": lambda store: store.exists(ACME, DIGEST),
    "list": lambda store: list(store.list(ACME)),
    "tenants": lambda store: list(store.tenants()),
}
WRITES = {
    "put": lambda store: store.put(ACME, DATA, "skops/1"),
    "delete": lambda store: store.delete(ACME, DIGEST),
    "delete_tenant": lambda store: store.delete_tenant(ACME),
}
CALLS = [(call, ModelLoadError) for call in READS.values()] + [(call, ModelSaveError) for call in WRITES.values()]
every_call = pytest.mark.parametrize(("call", "error"), CALLS, ids=[*READS, *WRITES])


@pytest.fixture
def bucket(s3):
    return s3.new_bucket()


@pytest.fixture
def store(s3, bucket, tmp_path):
    return s3.store(tmp_path / "cache", bucket)


def files_of(s3, bucket):
    return [key for key in s3.objects(bucket) if not key.endswith("/")]


class Halting(io.BytesIO):
    """A source that does something after its first 16 MiB."""

    def __init__(self, then):
        super().__init__(BIG)
        self._then = then

    def read(self, size=-1):
        if self.tell() >= 16 * 2**20:
            self._then()
        return super().read(size)


def test_the_layout_is_that_of_a_folder(s3, bucket, store):
    """Prefix, tenant, two digits, digest; the URL says the same."""
    store.put(ACME, DATA, "skops/1")
    assert s3.get(bucket, KEY) == DATA
    assert files_of(s3, bucket) == [KEY]
    assert store.location(ACME, DIGEST) == f"s3://{bucket}/{KEY}"


def test_a_bucket_without_a_prefix_will_do(s3, bucket, tmp_path):
    """Tenants are at the top then."""
    store = ObjectStore(s3.settings(url=f"s3://{bucket}"), ArtifactCache(tmp_path, 10**9))
    store.put(ACME, DATA, "skops/1")
    assert list(store.tenants()) == [ACME]
    assert files_of(s3, bucket) == [KEY.removeprefix("some/prefix/")]


def test_what_is_there_is_not_written_again(s3, bucket, store):
    """The very bytes are proved and left alone."""
    s3.put(bucket, KEY, DATA)
    before = s3.headers(bucket, KEY)
    store.put(ACME, DATA, "skops/1")
    assert s3.headers(bucket, KEY)["content-type"] == before["content-type"] != "application/octet-stream"


def test_writers_of_the_same_bytes_leave_a_whole_object(s3, bucket, tmp_path):
    """Eight at once, several parts each: all succeed, one object, nothing beside it."""
    start = threading.Barrier(8)
    failures = []

    def write(number):
        store = s3.store(tmp_path / f"cache{number}", bucket)
        start.wait()
        try:
            store.put(ACME, BIG, "skops/1")
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    digest = hashlib.sha256(BIG).hexdigest()
    assert failures == []
    assert files_of(s3, bucket) == [f"some/prefix/acme/{digest[:2]}/{digest}"]
    assert s3.get(bucket, f"some/prefix/acme/{digest[:2]}/{digest}") == BIG


@pytest.mark.parametrize("largest_copy", [objects.LARGEST_COPY_BYTES, 1000])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), ModelSaveError("no")])
def test_a_broken_off_upload_leaves_nothing(s3, bucket, store, monkeypatch, largest_copy, interruption):
    """Neither under the digest nor beside it, whichever way the upload goes."""
    monkeypatch.setattr(objects, "LARGEST_COPY_BYTES", largest_copy)

    def interrupt():
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(io, "BytesIO", lambda data: Halting(interrupt))
        with pytest.raises(type(interruption)):
            store.put(ACME, BIG, "skops/1")
    assert files_of(s3, bucket) == []


def test_a_broken_off_upload_leaves_alone_what_another_writer_finished(s3, bucket, store, tmp_path, monkeypatch):
    """The other's object is whole before, while and after this writer gives up."""
    other = s3.store(tmp_path / "other", bucket)

    def overtaken():
        monkeypatch.undo()
        other.put(ACME, BIG, "skops/1")
        raise KeyboardInterrupt

    monkeypatch.setattr(io, "BytesIO", lambda data: Halting(overtaken))
    with pytest.raises(KeyboardInterrupt):
        store.put(ACME, BIG, "skops/1")
    digest = hashlib.sha256(BIG).hexdigest()
    assert files_of(s3, bucket) == [f"some/prefix/acme/{digest[:2]}/{digest}"]
    other.verify(ACME, Digest(digest), len(BIG))


def test_what_is_too_large_to_be_copied_is_stored_all_the_same(s3, bucket, store, monkeypatch):
    """It is uploaded straight to its place."""
    monkeypatch.setattr(objects, "LARGEST_COPY_BYTES", 1000)
    store.put(ACME, DATA, "skops/1")
    assert s3.get(bucket, KEY) == DATA


def test_a_killed_writer_leaves_no_artifact(s3, bucket, store, tmp_path):
    """kill -9 in the middle of an upload: nothing has the digest, and the next put stores it whole."""
    code = f"""
import io, signal, sys
from pathlib import Path
from ml_core.ids import TenantId
from ml_core.models.store.cache import ArtifactCache
from ml_core.models.store.objects import ObjectStore
from ml_core.settings import ArtifactSettings

class Halting(io.BytesIO):
    def read(self, size=-1):
        if self.tell() >= 16 * 2**20:
            print("half", flush=True)
            signal.pause()
        return super().read(size)

io.BytesIO = Halting
settings = ArtifactSettings(url="s3://{bucket}/some/prefix", endpoint="{s3.endpoint}", region="us-east-1")
ObjectStore(settings, ArtifactCache(Path("{tmp_path}"), 10**9)).put(TenantId("acme"), sys.stdin.buffer.read(), "x/1")
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(BIG)
        process.stdin.close()
        assert process.stdout.readline() == b"half\n"
        process.kill()
    assert files_of(s3, bucket) == []
    artifact = store.put(ACME, BIG, "skops/1")
    assert store.read(ACME, artifact.digest, len(BIG)) == BIG


def test_a_deleted_tenant_leaves_no_folder_marker(s3, bucket, store):
    """The empty objects that stand for folders go too."""
    store.put(ACME, DATA, "skops/1")
    store.delete(ACME, DIGEST)
    assert any(key.startswith("some/prefix/acme") for key in s3.objects(bucket))
    store.delete_tenant(ACME)
    assert not any(key.startswith("some/prefix/acme") for key in s3.objects(bucket))


@every_call
def test_a_missing_bucket_is_told_from_a_missing_artifact(s3, tmp_path, call, error):
    """Every call says it; none takes it for an empty store."""
    with pytest.raises(error, match=r"There is no bucket 'nowhere'.*MLCORE_ARTIFACTS_URL") as caught:
        call(s3.store(tmp_path, "nowhere"))
    assert not isinstance(caught.value, ArtifactIntegrityError)


@pytest.fixture(scope="module")
def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield free.getsockname()[1]  # bound, not listening: connections are refused


@pytest.mark.parametrize(("call", "error"), [CALLS[0], CALLS[4], CALLS[6], CALLS[8]])
def test_a_store_that_is_down_is_one_clear_error(s3, closed_port, tmp_path, call, error):
    """It names the address and the settings, and is no integrity error: the artifact may be in order."""
    endpoint = f"http://127.0.0.1:{closed_port}"
    store = s3.store(tmp_path, endpoint=endpoint)
    message = rf"can't be reached: s3:.* at {endpoint}: NETWORK_CONNECTION.*Check the server"
    with pytest.raises(error, match=message) as caught:
        call(store)
    assert not isinstance(caught.value, ArtifactIntegrityError)


@pytest.mark.parametrize("call", [READS["read"], WRITES["put"]], ids=["read", "put"])
def test_a_store_that_hangs_is_given_up(s3, bucket, tmp_path, call):
    """A server that takes connections and answers nothing costs three timeouts, not minutes; then it is used again."""
    store = s3.store(tmp_path, bucket, timeout_s=1.0)
    s3.put(bucket, KEY, DATA)
    started = time.monotonic()
    with s3.paused(), pytest.raises((ModelLoadError, ModelSaveError), match="can't be reached"):
        call(store)
    assert time.monotonic() - started < 20
    call(store)


@pytest.fixture(scope="module")
def strict_s3():
    """A server that checks credentials, after the first request."""
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="1") as server:
        yield server, server.new_bucket()


@every_call
def test_refused_credentials_are_said_to_be_refused(strict_s3, tmp_path, call, error):
    """The remedy names the variables; nothing is taken for missing."""
    server, bucket = strict_s3
    with pytest.raises(error, match=r"refuses the credentials.*AWS_ACCESS_KEY_ID") as caught:
        call(server.store(tmp_path, bucket))
    assert not isinstance(caught.value, ArtifactIntegrityError)


def test_what_was_read_once_needs_no_store(s3, bucket, closed_port, tmp_path):
    """A replica that restarts while the store is down loads what this machine has, proved."""
    s3.store(tmp_path, bucket).put(ACME, DATA, "skops/1")
    s3.store(tmp_path, bucket).read(ACME, DIGEST, len(DATA))
    down = s3.store(tmp_path, bucket, endpoint=f"http://127.0.0.1:{closed_port}")
    assert down.read(ACME, DIGEST, len(DATA)) == DATA
    assert down.fetch(ACME, DIGEST, len(DATA)).read_bytes() == DATA


def test_a_damaged_copy_is_fetched_again(s3, store, caplog):
    """A flipped byte in the cache is noticed, logged and mended."""
    store.put(ACME, DATA, "skops/1")
    path = store.fetch(ACME, DIGEST, len(DATA))
    path.write_bytes(DATA[:-1] + b"!")
    with caplog.at_level(logging.WARNING):
        assert store.read(ACME, DIGEST, len(DATA)) == DATA
    assert "sha256 differs" in caplog.text
    assert path.read_bytes() == DATA


def test_bytes_that_are_not_proved_reach_no_cache(s3, bucket, store, tmp_path):
    """A damaged object leaves no file."""
    s3.put(bucket, KEY, DATA[:-1] + b"!")
    for call in (READS["read"], READS["fetch"]):
        with pytest.raises(ArtifactIntegrityError):
            call(store)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != ".lock"] == []


def test_a_cache_that_can_not_be_written_fails_no_read(s3, bucket, tmp_path, caplog):
    """The bytes are answered from memory and the fault is logged; only a fetch, which needs a file, fails."""
    (tmp_path / "cache").write_text("a file where the folder should be")
    store = s3.store(tmp_path / "cache", bucket)
    store.put(ACME, DATA, "skops/1")
    with caplog.at_level(logging.WARNING):
        assert store.read(ACME, DIGEST, len(DATA)) == DATA
    assert "No copy of an artifact can be kept" in caplog.text
    with pytest.raises(ModelLoadError, match=r"can't keep a copy.*Free disk space"):
        store.fetch(ACME, DIGEST, len(DATA))


def test_a_full_disk_under_the_cache_fails_no_read(s3, bucket, store, tmp_path, caplog):
    """The kernel refuses the write: the bytes are answered from memory and no half file stays."""
    s3.put(bucket, KEY, DATA)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write over the limit fails instead of killing
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert store.read(ACME, DIGEST, len(DATA)) == DATA
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert "No copy of an artifact can be kept" in caplog.text
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != ".lock"] == []


_EXIT = """
import sys
from pathlib import Path
from ml_core.ids import TenantId
from ml_core.models.store.cache import ArtifactCache
from ml_core.models.store.objects import ObjectStore
from ml_core.settings import ArtifactSettings
settings = ArtifactSettings(url=sys.argv[1], endpoint=sys.argv[2], region="us-east-1")
store = ObjectStore(settings, ArtifactCache(Path(sys.argv[3]), 10**9))
artifact = store.put(TenantId("acme"), b"x" * 20_000_000, "x/1")
store.read(TenantId("acme"), artifact.digest, artifact.size_bytes)
"""


def test_a_process_that_used_the_store_ends_cleanly(s3, bucket, tmp_path):
    """Amazon's library neither hangs nor crashes at exit, and says nothing."""
    command = [sys.executable, "-W", "error", "-c", _EXIT, f"s3://{bucket}/p", s3.endpoint, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_MEMORY = """
import os, re, sys
from pathlib import Path
from ml_core.ids import TenantId
from ml_core.models.store.cache import ArtifactCache
from ml_core.models.store.objects import ObjectStore
from ml_core.settings import ArtifactSettings
home = Path(sys.argv[3])

def peak_kb():  # of this program; what getrusage says was inherited from the one that started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

store = ObjectStore(
    ArtifactSettings(url=sys.argv[1], endpoint=sys.argv[2], region="us-east-1"), ArtifactCache(home / "cache", 10**9)
)
acme = TenantId("acme")
store.put(acme, b"x", "x/1")
with (home / "big").open("wb") as file:
    for _ in range(96):
        file.write(os.urandom(2**20))
before_kb = peak_kb()
artifact = store.put_file(acme, home / "big", "x/1")
store.fetch(acme, artifact.digest, artifact.size_bytes)
print((peak_kb() - before_kb) // 1024)
"""


def test_a_large_file_is_never_whole_in_memory(s3, bucket, tmp_path):
    """96 MiB out and in again take less than half of that at the peak."""
    command = [sys.executable, "-c", _MEMORY, f"s3://{bucket}/p", s3.endpoint, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 48


def test_the_client_is_loaded_with_the_first_call():
    """Neither the package nor a store of a bucket loads pyarrow before it is used."""
    code = (
        "import sys\nfrom ml_core.models.store import platform_store\n"
        "from ml_core.settings import Settings\n"
        "store = platform_store(Settings.from_environment({'MLCORE_ARTIFACTS_URL': 's3://bucket/prefix'}))\n"
        "print(store, 'pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ObjectStore('s3://bucket/prefix') False\n"
