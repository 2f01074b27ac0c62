"""TCP ports on the loopback interface."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress

import psutil

from ml_core.exceptions import Action, PlatformError

HOST = "127.0.0.1"


# Below the ports that a system gives to whoever asks for any. Ray's processes take many of those between the choice and
# the start of the ingress ten seconds later, which then failed now and then. From 30,000 on,
# Serve gives ports to the replicas of each platform.
_CHOSEN_FROM = range(20_000, 30_000)


def free_ports(count: int) -> list[int]:
    """Distinct free ports that no program gets by chance. One that asks for such a port may take it before it is used.

    Raises:
        PlatformError: There are not so many.
    """
    found: list[int] = []
    for port in secrets.SystemRandom().sample(_CHOSEN_FROM, len(_CHOSEN_FROM)):
        if len(found) == count:
            break
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            found.append(port)
    if len(found) < count:
        raise PlatformError(
            f"{count} ports are needed, and {len(found)} of {_CHOSEN_FROM.start} to {_CHOSEN_FROM.stop - 1} are free.",
            remedy="Stop programs that listen there.",
            component="ports",
        )
    return found


def require_free(port: int) -> None:
    """Check that a port is free.

    Raises:
        PlatformError: The port is in use; names the process if the system shows it.
    """
    with socket.socket() as probe:
        # Permits a port with connections in TIME_WAIT, which a stopped server leaves.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PlatformError(
                f"Port {port} can't be used for the platform: {_holder(port) or error.strerror}.",
                remedy=f"Stop that program, or choose another port, such as {port + 1}.",
                action=Action.of("up", port=port + 1),
                component="ingress",
            ) from error


def _holder(port: int) -> str | None:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        address = connection.laddr
        if connection.status == psutil.CONN_LISTEN and address and address[1] == port and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid}) listens there"
            except psutil.NoSuchProcess:
                return None
    return None
