"""Where a table comes from: a file, a folder, a glob, or an address of an object store, as one local file.

An address is opened with the credentials of this process. A server must pass nothing but paths that it made itself.
"""

from __future__ import annotations

import io
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ml_core.exceptions import DataProcessingError, InvalidRequestError, listed, shown

# Google's client repeats a request for 15 minutes where no limit is given.
_STORES = {"s3": "s3://{}", "gs": "gs://{}?retry_limit_seconds=30"}
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WILDCARD = re.compile(r"[*?[]")
_HIDDEN = (".", "_")  # what programs write beside the files of a table, such as _SUCCESS
_OF_STORE = re.compile(r"AWS Error |google::cloud::Status")
_REFUSED = re.compile(
    "ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE_DOES_NOT|MISSING_AUTH|EXPIRED|PERMISSION_DENIED|"
    "UNAUTHENTICATED|access token"
)
_COPIED_BYTES = 2**22
_PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class GatheredTable:
    """A file of this machine that has the whole table of a source.

    Attributes:
        path: The file.
        facts: Where it came from, where the file's own name does not say it: ``kind``, ``file`` and ``files``.
    """

    path: Path
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    Attributes:
        store: The ``pyarrow.fs.FileSystem`` that has it.
        path: Its path there.
        size_bytes: Its size.
        name: What a person calls it.
        copy: Where its copy goes; None where it is on this machine.
    """

    store: Any
    path: str
    size_bytes: int
    name: str
    copy: Path | None

    def local(self) -> Path:
        """The file on this machine, copied when first asked for."""
        if self.copy is None:
            return Path(self.path)
        if not self.copy.exists():
            with self.store.open_input_stream(self.path, compression=None) as stream, self.copy.open("wb") as file:
                shutil.copyfileobj(stream, file, _COPIED_BYTES)
        return self.copy

    def discard(self) -> None:
        """Remove the copy."""
        if self.copy is not None:
            self.copy.unlink(missing_ok=True)


@contextmanager
def gathered(source: Any, encoding: str = "utf-8") -> Iterator[GatheredTable]:
    """The table of a source as one file; what was copied is removed at the end.

    One file of this machine is taken as it is, there or not. Several files are joined in the order of their names, see
    ``ml_core.data.joining``. Names that begin with ``.`` or ``_`` are passed over in a folder and by a wildcard.

    Args:
        source: A path; a folder; a pattern such as ``data/*.parquet``, in which ``**`` is folders of any depth; or one
            of these as ``s3://BUCKET/PATH``, ``gs://BUCKET/PATH`` or ``file:///PATH``. Or a table of pandas, polars or
            pyarrow; levels of an index that have a name are columns, as in a Parquet file of pandas.
        encoding: Of CSV files.

    Raises:
        DataProcessingError: There is no such file, the store can't be read, or the files are not one table; ``stage``
            is ``read``.
    """
    check_encoding(encoding)
    if not isinstance(source, str | Path):
        with tempfile.TemporaryDirectory(prefix="mlcore-source-") as folder:
            yield _written(source, Path(folder) / "frame.parquet")
        return
    path = _only_file(source)
    if path is not None:
        yield GatheredTable(path)
        return
    with tempfile.TemporaryDirectory(prefix="mlcore-source-") as folder:
        name = str(source)
        with explained(name):
            table = _gather(name, encoding, Path(folder))
        try:
            yield table
        except DataProcessingError as error:
            error.message = error.message.replace(str(table.path), table.facts["file"])
            raise


def check_encoding(encoding: str) -> None:
    """Refuse what is no encoding of texts.

    Raises:
        DataProcessingError: It is none; ``stage`` is ``read``.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    except (LookupError, ValueError) as error:
        what = f"{shown(encoding, 40)} is not an encoding."
        raise _refused(what, "Use one such as utf-8, latin-1 or cp1252.") from error


def require_source(source: str, encoding: str) -> None:
    """Refuse a source and an encoding, as for ``gathered``, that can't be right; nothing is copied.

    Raises:
        InvalidRequestError, DataProcessingError: There is no file, it can't be read, or the encoding does not exist.
    """
    check_encoding(encoding)
    path = _only_file(source)
    if path is not None:
        is_parquet(path)
        return
    with explained(source):
        find(source, Path())


def is_parquet(path: Path) -> bool:
    """Whether a file of this machine is a Parquet file.

    Raises:
        InvalidRequestError: It can't be read.
    """
    try:
        with path.open("rb") as opened:
            return opened.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
    except OSError as error:
        raise InvalidRequestError(
            f"{path} can't be read: {error.strerror}.", remedy="Name a CSV or Parquet file.", field="file"
        ) from error


def _written(source: Any, path: Path) -> GatheredTable:
    # Imported late: a client that sends one file needs neither pandas nor pyarrow.
    from ml_core.data.frames import as_frame
    from ml_core.data.reading import with_index
    from ml_core.data.table_file import write_frame

    write_frame(with_index(as_frame(source)), path)
    return GatheredTable(path, {"kind": "frame"})


def _gather(source: str, encoding: str, folder: Path) -> GatheredTable:
    files = find(source, folder)
    if len(files) == 1:
        return GatheredTable(files[0].local(), {"file": files[0].name})
    # Imported late: a client that sends one file needs neither pandas nor pyarrow.
    from ml_core.data.joining import join

    path, kind = join(files, encoding, folder)
    return GatheredTable(path, {"kind": kind, "file": source, "files": str(len(files))})


def _only_file(source: str | Path) -> Path | None:
    """The path of a source that is one file of this machine, there or not."""
    if isinstance(source, str) and _ADDRESS.match(source):
        return None
    try:
        is_folder, is_there = stat.S_ISDIR(Path(source).stat().st_mode), True
    except (OSError, ValueError):
        is_folder, is_there = False, False
    return None if is_folder or (not is_there and _WILDCARD.search(str(source))) else Path(source)


def find(source: str, copies: Path) -> list[SourceFile]:
    """The files that a source names, in the order of their names; at least one.

    Args:
        source: See ``gathered``.
        copies: A folder for the copies of those that are not on this machine.

    Raises:
        DataProcessingError: There is none, or a folder has what is no table.
        OSError: The store can't be read.
    """
    store, start, path = _store_of(source)
    info = store.get_file_info(path)
    if info.is_file:
        infos = [info]
    elif info.type.name == "Directory":
        infos = _tables_in(source, _children(store, path))
    elif _WILDCARD.search(path):
        infos = _matching(store, path.split("/"))
    else:
        raise _refused(f"There is nothing at {source}.", "Check the path.")
    if not infos:
        raise _refused(
            f"{source} names no file.",
            "Check the path. A pattern names files, not folders: those of each folder in data are data/*/*.parquet.",
        )
    files = []
    for n, each in enumerate(sorted(infos, key=lambda each: str(each.path))):
        copy = copies / f"{n}-{each.base_name[-80:]}" if start else None
        files.append(SourceFile(store, each.path, each.size, f"{start}{each.path}", copy))
    return files


def _store_of(source: str) -> tuple[Any, str, str]:
    """The file system of a source, what precedes its paths where it is not this machine's, and the path."""
    from pyarrow import fs

    address = _ADDRESS.match(source)
    scheme, rest = (address[1].lower(), address[2]) if address else ("file", source)
    if scheme == "file":
        path = Path(unquote(rest) if address else rest).expanduser()
        if address and not path.is_absolute():
            raise _refused("A file:// address has no host.", "Write file:///PATH.")
        return fs.LocalFileSystem(), "", str(path)
    if scheme not in _STORES:
        raise _refused(
            f"Tables are not read from {scheme}:// addresses.", "Use a path, s3://, gs:// or file://, or copy the file."
        )
    bucket = rest.partition("/")[0]
    if not _BUCKET.fullmatch(bucket):  # not repeated: it may hold a secret
        raise _refused(
            f"The {scheme}:// address does not begin with the name of a bucket.",
            f"Write {scheme}://BUCKET/PATH; credentials and options come from the environment.",
        )
    return fs.FileSystem.from_uri(_STORES[scheme].format(bucket))[0], f"{scheme}://", rest.rstrip("/")


def _children(store: Any, folder: str, pattern: str = "*") -> list[Any]:
    """What is in a folder and matches; a wildcard at the beginning matches no hidden name."""
    from pyarrow import fs

    found = store.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    if _WILDCARD.match(pattern):
        found = [info for info in found if not info.base_name.startswith(_HIDDEN)]
    return [info for info in found if fnmatchcase(info.base_name, pattern)]


def _tables_in(source: str, infos: list[Any]) -> list[Any]:
    """The files of a folder, which must have nothing else."""
    from ml_core.data.csv_file import SUFFIXES

    others = [each.base_name for each in infos if not (each.is_file and each.base_name.lower().endswith(SUFFIXES))]
    if others:
        names = [each.base_name.lower() for each in infos]
        suffix = next((each for each in SUFFIXES if any(name.endswith(each) for name in names)), ".parquet")
        raise _refused(
            f"{source} has more than the files of a table: {listed(sorted(others), 5)}.",
            f"Name the files with a pattern, such as {source.rstrip('/')}/*{suffix}.",
        )
    return infos


def _matching(store: Any, segments: list[str]) -> list[Any]:
    """The files whose paths match a pattern, segment by segment."""
    fixed = next(n for n, segment in enumerate(segments) if _WILDCARD.search(segment))
    folders, found = ["/".join(segments[:fixed]) or ("/" if fixed else ".")], {}
    for n, segment in enumerate(segments[fixed:], fixed + 1):
        if segment == "**":
            for folder in folders:  # those that are added are visited too
                folders += [info.path for info in _children(store, folder) if not info.is_file]
            continue
        infos = [info for folder in dict.fromkeys(folders) for info in _children(store, folder, segment)]
        folders = [info.path for info in infos if not info.is_file]
        found = {info.path: info for info in infos if info.is_file and n == len(segments)}
    return list(found.values())


@contextmanager
def explained(source: str) -> Iterator[None]:
    """Failures of a store, and of the folder that copies go to, as errors that say what to do."""
    try:
        yield
    except OSError as error:
        text = str(error)
        if not _OF_STORE.search(text):
            reason = (error.strerror or text).splitlines()[0].rstrip(" .:")
            # pyarrow gives no number to what it can't decode.
            what, remedy = f"{source} is damaged", "Write it again."
            if error.errno is not None:
                what = f"{error.filename or source} can't be read or written"
                remedy = f"Check its permissions, and the space in {tempfile.gettempdir()} (TMPDIR)."
            raise _refused(f"{what}: {reason}.", remedy) from error
        remedy = "Check the address and the connection to the store, then try again."
        if _REFUSED.search(text):
            remedy = (
                "The store refuses the credentials of this process. Set those of AWS (AWS_PROFILE, or "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) or Google (GOOGLE_APPLICATION_CREDENTIALS) that may list "
                "the bucket and read its objects."
            )
        elif "NO_SUCH_BUCKET" in text:
            remedy = "There is no such bucket."
        reason = _OF_STORE.split(text, maxsplit=1)[1]
        raise _refused(f"{source} can't be read: {reason.splitlines()[0][:200]}.", remedy) from error


def _refused(message: str, remedy: str) -> DataProcessingError:
    return DataProcessingError(message, remedy=remedy, stage="read")
