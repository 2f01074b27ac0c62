"""The ingress of one node without Ray: a real HAProxy, configured as Ray does it, before any servers."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from ml_core.platform.ports import free_ports
from support.waiting import wait_until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own, at import
    from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
    from ray.serve.config import HTTPOptions


class Node:
    """What Ray's proxy actor does on one node: writes a configuration, starts what it takes for HAProxy."""

    def __init__(self, folder: Path) -> None:
        self.port, self.stats, self.metrics = free_ports(3)
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def write(self, *replicas: int, control: int | None = None, **dedicated: int) -> None:
        """Write the configuration as Ray does.

        Args:
            *replicas: Ports of the shared cell's replicas; none: there is no route.
            control: The port of the control API.
            **dedicated: Tenant → port of its dedicated cell.
        """
        config = HAProxyConfig(
            socket_path=str(self.folder / "admin.sock"),
            server_state_base=str(self.folder),
            server_state_file=str(self.folder / "server-state"),
            http_options=HTTPOptions(host="127.0.0.1", port=self.port),
            stats_port=self.stats,
            metrics_port=self.metrics,
            metrics_enabled=False,
            is_head=True,
        )
        servers = [ServerConfig(f"replica-{port}", "127.0.0.1", port) for port in replicas]
        backends = {"http-shared": BackendConfig("http-shared", "/", servers=servers, app_name="shared")}
        others = {f"/t/{tenant}": (f"cell-{tenant}", port) for tenant, port in dedicated.items()}
        if control is not None:
            others["/api"] = ("control", control)
        for prefix, (app, port) in others.items():
            server, name = ServerConfig(app, "127.0.0.1", port), f"http-{app}"
            backends[name] = BackendConfig(name, prefix, servers=[server], app_name=app)
        api = HAProxyApi(config, backends if servers else {}, str(self.config))
        api._generate_config_file_internal()

    @property
    def config(self) -> Path:
        return self.folder / "haproxy.cfg"

    def start(self, *replicas: int, control: int | None = None, **dedicated: int) -> subprocess.Popen[bytes]:
        """Write and start, and wait as Ray does: until the administration socket reports the process started."""
        self.write(*replicas, control=control, **dedicated)
        log = (self.folder / "log").open("ab")
        command = [sys.executable, "-Im", "deployments.haproxy", "-db", "-f", str(self.config), "-dR"]
        with log:
            process = subprocess.Popen(command, stderr=log)
        self.started.append(process)
        wait_until(lambda: self.reported_pid() == process.pid, 20)
        return process

    def reported_pid(self) -> int | None:
        try:
            with socket.socket(socket.AF_UNIX) as admin:
                admin.connect(str(self.folder / "admin.sock"))
                admin.sendall(b"show info\n")
                text = b"".join(iter(lambda: admin.recv(65_536), b""))
        except OSError:
            return None
        found = re.search(rb"^Pid: (\d+)", text, re.MULTILINE)
        return int(found[1]) if found else None

    def haproxies(self) -> list[psutil.Process]:
        """The running HAProxy processes of this node."""
        mine = str(self.folder / "served.cfg")
        found = psutil.process_iter(["name", "cmdline"])
        return [p for p in found if p.info["name"] == "haproxy" and mine in (p.info["cmdline"] or [])]

    def get(self, path: str = "/", *, timeout: float = 20, **options: object) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=timeout, trust_env=False, **options)

    def answers(self) -> bool:
        try:
            return self.get().status_code == 200
        except httpx.TransportError:
            return False

    def send(self, data: bytes, drip: bytes = b"") -> bytes:
        """Send bytes, then a few more twice a second; what comes back until the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
            connection.sendall(data)
            received, deadline = [b"?"], time.monotonic() + 20
            while received[-1] and time.monotonic() < deadline:
                try:
                    received.append(connection.recv(65_536))
                except TimeoutError:
                    connection.sendall(drip)
            return b"".join(received[1:])


@contextmanager
def haproxy_node() -> Iterator[Node]:
    """A node on which nothing runs yet."""
    # Not pytest's folder: the path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="mlcore-") as folder:
        node = Node(Path(folder))
        try:
            yield node
        finally:
            for process in [*node.started, *node.haproxies()]:
                process.kill()
                process.wait()
