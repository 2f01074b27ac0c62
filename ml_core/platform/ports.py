"""TCP ports on the loopback interface."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import psutil

from ml_core.exceptions import Action, PlatformError

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Distinct free ports, chosen by the system. Another program may take one before it is used."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


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
