"""The local Ray cluster: one head node on the loopback interface, with token authentication.

Ray reads its flags from the environment of its processes, which this module sets.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_core.exceptions import PlatformError
from ml_core.platform.ports import HOST, free_ports
from ml_core.platform.processes import MARK

NODE_ENVIRONMENT: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # A Python actor would parse one log line per request. The replicas count requests themselves.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # Ray replaces the actor that configures HAProxy after three failed checks in a row.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # With Ray's 5 it is killed while it starts on busy cores, and Serve then refuses its first configuration.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # With Ray's default of 15, a training on the same machine would have priority over the replicas.
    "RAY_worker_niceness": "0",
    # Removes headers that Serve answers with 500 or that make it repeat work of the platform.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.ingress:middlewares",
}
"""The variables of Ray, Serve and the ingress on every node, of one machine or of a cluster."""

# Limit for ``ray start``, which takes about 12 s on two idle cores.
_START_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class RayPorts:
    """Ports for the parts of Ray and its ingress whose default ports would conflict on a machine with two platforms."""

    gcs: int
    client: int
    dashboard: int
    agent: int
    fallback_http: int
    fallback_grpc: int
    haproxy_stats: int
    haproxy_metrics: int

    @classmethod
    def choose(cls) -> RayPorts:
        """Choose free ports."""
        return cls(*free_ports(8))


def read_token(home: Path) -> str:
    """Ray's authentication token of a home folder; generated on first use and readable by its owner only."""
    path = token_path(home)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32))
    return path.read_text(encoding="utf-8").strip()


def ray_environment(home: Path, ports: RayPorts) -> dict[str, str]:
    """The environment variables of Ray, Serve and the ingress on one machine, which may have several platforms."""
    haproxy = temporary_folder(home) / "ha"
    return {
        **NODE_ENVIRONMENT,
        MARK: str(home),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path(home)),
        # Applies to every system, despite its name: with 0 Ray binds its servers to 127.0.0.1.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_haproxy_path(home)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.haproxy_stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.haproxy_metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
    }


def start_head(home: Path, ports: RayPorts, extra_environment: Mapping[str, str]) -> int:
    """Start the head node and wait until it runs.

    Args:
        home: The platform's home folder.
        ports: From ``RayPorts.choose``.
        extra_environment: Variables for the replicas.

    Returns:
        The session (of the operating system) of Ray's processes.

    Raises:
        PlatformError: Ray did not start; has the end of its output.
    """
    _own_folder(temporary_folder(home))
    read_token(home)  # creates the file, without which Ray does not start
    targets = metrics_targets(home)
    targets.unlink(missing_ok=True)
    targets.symlink_to(temporary_folder(home) / "r" / "prom_metrics_service_discovery.json")  # which Ray updates
    haproxy = _haproxy_path(home)
    haproxy.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -Im deployments.haproxy "$@"\n', encoding="utf-8"
    )
    haproxy.chmod(0o700)
    log = home / "logs" / "ray-start.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **ray_environment(home, ports), **extra_environment}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter with arguments made here
            _command(home, ports),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            start_new_session=True,  # identifies the processes of this Ray, see processes.py
        )
        try:
            code = process.wait(_START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    if code != 0:
        raise PlatformError(
            f"Ray did not start (exit {code}): {_tail(log)}", remedy=f"See the output in {log}.", component="ray"
        )
    return process.pid


def _command(home: Path, ports: RayPorts) -> list[str]:
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head"),
        f"--node-ip-address={HOST}",
        f"--port={ports.gcs}",
        f"--ray-client-server-port={ports.client}",
        "--include-dashboard=true",
        f"--dashboard-host={HOST}",
        f"--dashboard-port={ports.dashboard}",
        f"--dashboard-agent-listen-port={ports.agent}",
        # 0: each worker takes any free port, so no port range can overlap with the ports above.
        *("--min-worker-port=0", "--max-worker-port=0"),
        # A subfolder, because Ray makes its folder accessible to all users.
        f"--temp-dir={temporary_folder(home) / 'r'}",
        "--disable-usage-stats",
    ]


def metrics_targets(home: Path) -> Path:
    """The file with the addresses of Ray's metrics agents, for ``file_sd_configs`` of Prometheus."""
    return home / "run" / "metrics-targets.json"


def temporary_folder(home: Path) -> Path:
    """The folder of the sessions, sockets and logs of Ray and its ingress."""
    # In /tmp, because the paths of sockets are limited: HAProxy permits 97 characters and the kernel 103 or 107, of
    # which about 70 follow this folder. The system's temporary folder is too long on macOS.
    return Path("/tmp") / f"mlcore-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"  # noqa: S108 - see _own_folder


def _own_folder(folder: Path) -> None:
    """Create a folder that is closed to other users.

    Raises:
        PlatformError: The folder exists and belongs to another user, or others have access.
    """
    # Checked, because the name is predictable: another user may have created the folder.
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PlatformError(
            f"{folder} belongs to another user, or others have access to it.",
            remedy="Remove it, or set MLCORE_HOME to another folder.",
            component="ray",
        )


def token_path(home: Path) -> Path:
    """The file with Ray's authentication token."""
    return home / "run" / "ray-token"


def _haproxy_path(home: Path) -> Path:
    """The program that Ray starts as HAProxy."""
    # Not under /tmp, which may be mounted noexec.
    return home / "run" / "haproxy"


def _tail(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
