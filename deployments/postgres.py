"""A PostgreSQL server for try-outs on a cluster: ``python -m deployments.postgres --data FOLDER --password-file FILE``.

It is the server of the embedded database in the foreground of a pod: on TCP, with passwords, and without replication
or backups.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ml_core.database.binaries import Programs, find_programs
from ml_core.database.cluster import SUPERUSER

_INIT_TIMEOUT_S = 120.0
_ACCESS = "local all all scram-sha-256\nhost all all all scram-sha-256\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the data folder if it is missing, and become the server.

    Raises:
        PlatformError: The data folder can't be made.
    """
    parser = argparse.ArgumentParser(prog="deployments.postgres", description="A PostgreSQL server for try-outs.")
    parser.add_argument("--data", type=Path, required=True, help="the data folder; its parent is writable")
    parser.add_argument("--password-file", type=Path, required=True, help="the superuser's password, for a new folder")
    parser.add_argument("--listen", default="*", help="addresses to listen on")
    parser.add_argument("--port", default="5432", help="the port")
    parser.add_argument("--sockets", default="/tmp", help="the folder of the socket")  # noqa: S108 - the pod's own
    given = parser.parse_args(arguments)
    programs = find_programs(given.data.parent)
    if not given.data.exists():
        _make(programs, given.data, given.password_file)
    if programs.account is not None:
        os.setgroups([])
        os.setgid(programs.account.gid)
        os.setuid(programs.account.uid)
    options = {"listen_addresses": given.listen, "port": given.port, "unix_socket_directories": given.sockets}
    server = str(programs.folder / "postgres")  # by its path, from which it finds its libraries
    command = [server, "-D", str(given.data), *(f"--{name}={value}" for name, value in options.items())]
    os.execv(server, command)  # noqa: S606 - it gets the signals of the container


def _make(programs: Programs, data: Path, password_file: Path) -> None:
    """Make the folder beside its place first, so that a killed run leaves none that is half made."""
    fresh = data.with_name(f"{data.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    if programs.account is not None:
        os.chown(fresh, programs.account.uid, programs.account.gid)
    options = ("-U", SUPERUSER, "--encoding=utf8", "--locale=C", "--auth=scram-sha-256")
    arguments = (*options, f"--pwfile={password_file}", "-D", str(fresh))
    programs.run("initdb", *arguments, cwd=data.parent, timeout_s=_INIT_TIMEOUT_S)
    (fresh / "pg_hba.conf").write_text(_ACCESS, encoding="utf-8")
    fresh.rename(data)


if __name__ == "__main__":
    main()
