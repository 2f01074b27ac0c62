"""What every artifact store promises, asked of each: a folder, a folder beside the platform's, a bucket."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_core.exceptions import ArtifactIntegrityError, InvalidNameError, InvalidRequestError, ModelSaveError
from ml_core.ids import Digest, TenantId
from ml_core.models.store import ArtifactStore, LocalStore, Removed, StoredBlob, Stray
from ml_core.models.store.local import MirroredStore
from support.s3 import S3Server, s3

__all__ = ["s3"]

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
DATA = b"the bytes of a model" * 100
DIGEST = Digest(hashlib.sha256(DATA).hexdigest())


@dataclass
class Place:
    """A store, and ways to its bytes that are not the store's. Names are ``<tenant>/<file>``."""

    store: ArtifactStore
    write: Callable[[str, bytes], None]
    names: Callable[[], set[str]]


def folder_place(store: ArtifactStore, root: Path) -> Place:
    def write(name: str, data: bytes) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)

    def names() -> set[str]:
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}

    return Place(store, write, names)


def bucket_place(server: S3Server, cache: Path) -> Place:
    bucket, prefix = server.new_bucket(), "some/prefix/"

    def names() -> set[str]:
        return {key.removeprefix(prefix) for key in server.objects(bucket) if not key.endswith("/")}

    store = server.store(cache, bucket)
    return Place(store, lambda name, data: server.put(bucket, prefix + name, data), names)


@pytest.fixture(params=["folder", "mirrored", "bucket"])
def place(request, tmp_path) -> Place:
    """Each kind of store, empty."""
    root = tmp_path / "artifacts"
    if request.param == "bucket":
        return bucket_place(request.getfixturevalue("s3"), tmp_path / "cache")
    if request.param == "mirrored":
        return folder_place(MirroredStore(tmp_path / "mine", LocalStore(root)), root)
    return folder_place(LocalStore(root), root)


def at(digest: str, tenant: str = "acme") -> str:
    return f"{tenant}/{digest[:2]}/{digest}"


def flipped(data: bytes) -> bytes:
    damaged = bytearray(data)
    damaged[17] ^= 1
    return bytes(damaged)


def test_what_is_put_is_read_back(place):
    """The digest is the sha256 of the bytes, computed by the store, and names their place."""
    artifact = place.store.put(ACME, DATA, "skops/1")
    assert (artifact.digest, artifact.size_bytes, artifact.format) == (DIGEST, len(DATA), "skops/1")
    assert place.names() == {at(DIGEST)}
    assert place.store.read(ACME, DIGEST, len(DATA)) == DATA
    assert place.store.exists(ACME, DIGEST)


def test_no_bytes_are_an_artifact_too(place):
    """The empty artifact is stored and read."""
    artifact = place.store.put(ACME, b"", "x/1")
    assert place.store.read(ACME, artifact.digest, 0) == b""


def test_a_file_is_stored_like_its_bytes(place, tmp_path):
    """A file of several pieces has the same digest and place as its bytes."""
    data = bytes(range(256)) * 80_000
    (tmp_path / "data.parquet").write_bytes(data)
    artifact = place.store.put_file(ACME, tmp_path / "data.parquet", "parquet")
    assert (artifact.digest, artifact.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert place.store.read(ACME, artifact.digest, len(data)) == data
    assert place.names() == {at(artifact.digest)}


def test_a_file_that_is_not_there_is_said_to_be_unreadable(place, tmp_path):
    """The error is about the source, not about the store."""
    with pytest.raises(ModelSaveError, match="file to store can't be read: No such file"):
        place.store.put_file(ACME, tmp_path / "nowhere", "parquet")


def test_a_file_that_changes_meanwhile_is_not_stored(place, tmp_path, monkeypatch):
    """Bytes that differ from the digest computed at first reach no place of that digest."""
    path = tmp_path / "data.parquet"
    path.write_bytes(DATA)
    digest_of = hashlib.file_digest

    def then_changed(file, name):
        found = digest_of(file, name)
        path.write_bytes(flipped(DATA))
        return found

    monkeypatch.setattr(hashlib, "file_digest", then_changed)
    with pytest.raises(ModelSaveError, match="changed while it was being stored"):
        place.store.put_file(ACME, path, "parquet")
    assert place.names() == set()


def test_fetch_gives_a_local_file(place):
    """The file holds the bytes."""
    place.store.put(ACME, DATA, "skops/1")
    assert place.store.fetch(ACME, DIGEST, len(DATA)).read_bytes() == DATA


@pytest.mark.parametrize("damaged", [DATA[:10], flipped(DATA), DATA + b"more"])
def test_damage_is_mended_by_a_put(place, damaged):
    """What is there is proved, not trusted: training again mends a damaged artifact."""
    place.write(at(DIGEST), damaged)
    place.store.put(ACME, DATA, "skops/1")
    assert place.store.read(ACME, DIGEST, len(DATA)) == DATA


@pytest.mark.parametrize("how", ["read", "fetch", "verify"])
@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (flipped(DATA), r"sha256 differs.*backup"),
        (DATA[:-1], r"has 1,999 bytes instead of 2,000"),
        (DATA + b"!", r"has 2,001 bytes instead of 2,000"),
        (None, r"is missing"),
    ],
)
def test_damage_is_noticed(place, how, damaged, message):
    """Size and sha256 are compared before anybody sees the bytes; the error carries tenant and digest."""
    if damaged is not None:
        place.write(at(DIGEST), damaged)
    with pytest.raises(ArtifactIntegrityError, match=message) as caught:
        getattr(place.store, how)(ACME, DIGEST, len(DATA))
    assert (caught.value.tenant_id, caught.value.digest) == (ACME, DIGEST)


def test_verify_proves_what_is_stored_not_what_is_cached(place):
    """An artifact that was read before and then damaged is found out."""
    place.store.put(ACME, DATA, "skops/1")
    place.store.fetch(ACME, DIGEST, len(DATA))
    place.store.verify(ACME, DIGEST, len(DATA))
    place.write(at(DIGEST), flipped(DATA))
    with pytest.raises(ArtifactIntegrityError):
        place.store.verify(ACME, DIGEST, len(DATA))


def test_another_tenant_has_nothing_of_it(place):
    """Tenants share no bytes, not even equal ones, and no cache."""
    place.store.put(ACME, DATA, "skops/1")
    place.store.read(ACME, DIGEST, len(DATA))
    assert not place.store.exists(GLOBEX, DIGEST)
    with pytest.raises(ArtifactIntegrityError):
        place.store.read(GLOBEX, DIGEST, len(DATA))


@pytest.mark.parametrize("tenant", ["../acme", "/etc", "", "a/b"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda store, tenant: store.put(tenant, DATA, "x/1"),
        lambda store, tenant: store.exists(tenant, DIGEST),
        lambda store, tenant: store.delete(tenant, DIGEST),
        lambda store, tenant: list(store.list(tenant)),
        lambda store, tenant: store.delete_tenant(tenant),
        lambda store, tenant: store.location(tenant, DIGEST),
    ],
)
def test_a_location_needs_a_tenants_name(place, tenant, ask):
    """Text that is no tenant reaches no place."""
    with pytest.raises(InvalidNameError):
        ask(place.store, tenant)


def test_deleting_is_idempotent(place):
    """What is gone stays gone, without an error, and is not read from a cache either."""
    place.store.put(ACME, DATA, "skops/1")
    place.store.read(ACME, DIGEST, len(DATA))
    place.store.delete(ACME, DIGEST)
    place.store.delete(ACME, DIGEST)
    assert not place.store.exists(ACME, DIGEST)
    assert place.names() == set()
    with pytest.raises(ArtifactIntegrityError, match="is missing"):
        place.store.read(ACME, DIGEST, len(DATA))


def test_the_list_has_artifacts_and_the_strays_are_the_rest(place):
    """A digest in the wrong folder is no artifact either; other tenants' files are in no list of this one."""
    before = datetime.now(UTC) - timedelta(seconds=2)
    place.store.put(ACME, DATA, "skops/1")
    place.write(f"acme/{DIGEST[:2]}/.writing-abc", b"half")
    place.write(f"acme/zz/{DIGEST}", DATA)
    place.write(f"acme2/{DIGEST[:2]}/{DIGEST}", DATA)
    (blob,) = place.store.list(ACME)
    assert blob == StoredBlob(DIGEST, len(DATA), blob.modified_at)
    assert before <= blob.modified_at <= datetime.now(UTC) + timedelta(seconds=2)
    strays = {(stray.name, stray.size_bytes) for stray in place.store.strays(ACME)}
    assert strays == {(f"{DIGEST[:2]}/.writing-abc", 4), (f"zz/{DIGEST}", len(DATA))}


def test_a_tenant_without_a_folder_has_nothing(place):
    """Nothing is listed and removing it removes nothing."""
    assert list(place.store.list(ACME)) == list(place.store.strays(ACME)) == list(place.store.tenants()) == []
    assert place.store.delete_tenant(ACME) == Removed(0, 0)


def test_a_stray_is_removed(place):
    """The artifacts stay."""
    place.store.put(ACME, DATA, "skops/1")
    place.write(f"acme/{DIGEST[:2]}/.writing-abc", b"half")
    (stray,) = place.store.strays(ACME)
    place.store.delete_stray(ACME, stray)
    place.store.delete_stray(ACME, stray)
    assert place.names() == {at(DIGEST)}


@pytest.mark.parametrize("name", ["../globex/file", "/etc/passwd", "", f"{DIGEST[:2]}/{DIGEST}"])
def test_no_artifact_and_no_other_tenants_file_is_removed_as_a_stray(place, name):
    """The name must be that of a stray inside the tenant's folder."""
    with pytest.raises(InvalidRequestError):
        place.store.delete_stray(ACME, Stray(name, 0, datetime.now(UTC)))


def test_the_tenants_are_those_with_a_folder(place):
    """Folders that are no tenant's are left out."""
    place.store.put(ACME, DATA, "skops/1")
    place.store.put(GLOBEX, DATA, "skops/1")
    place.write("Not-A-Tenant/file", b"x")
    assert set(place.store.tenants()) == {ACME, GLOBEX}


def test_a_deleted_tenant_leaves_no_byte(place):
    """Artifacts and strays go and are counted; other tenants keep theirs."""
    place.store.put(ACME, DATA, "skops/1")
    place.store.put(GLOBEX, DATA, "skops/1")
    place.store.fetch(ACME, DIGEST, len(DATA))
    place.write(f"acme/{DIGEST[:2]}/.writing-abc", b"half")
    removed = place.store.delete_tenant(ACME)
    mirrored = isinstance(place.store, MirroredStore)  # the caller's folder has the artifact too
    assert removed == (Removed(3, 2 * len(DATA) + 4) if mirrored else Removed(2, len(DATA) + 4))
    assert place.names() == {at(DIGEST, "globex")}
    assert list(place.store.tenants()) == [GLOBEX]
    with pytest.raises(ArtifactIntegrityError):
        place.store.fetch(ACME, DIGEST, len(DATA))


def test_a_location_names_tenant_and_digest(place):
    """People find the artifact by it."""
    assert place.store.location(ACME, DIGEST).endswith(at(DIGEST))
