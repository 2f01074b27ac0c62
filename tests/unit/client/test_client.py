"""The HTTP client against a small server of the test's own, where a real platform can't be made to misbehave."""

from __future__ import annotations

import inspect
import json
import pydoc
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest

from ml_core.client import AsyncMLClient, MLClient
from ml_core.exceptions import (
    AuthenticationError,
    ConfigurationError,
    DeadlineExceededError,
    InvalidNameError,
    InvalidRequestError,
    MLFrameworkError,
    ModelNotFoundError,
    PlatformError,
    QueueFullError,
    SignatureMismatchError,
)

ANSWER = {"predictions": ["a"], "model": "m", "version": "1", "rollout": "stable", "request_id": "r"}


@contextmanager
def server(*replies: tuple[int, object] | None) -> Iterator[str]:
    """Answers each connection with the next reply: status and JSON body; None hangs up without a word."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for reply in replies:
            connection, _ = listener.accept()
            with connection:
                read_request(connection)
                if reply is None:
                    continue
                status, body = reply
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + content)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(5)
        assert not thread.is_alive(), "the client sent fewer requests than there are replies"
    finally:
        listener.close()


def read_request(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
    while len(body) < length:
        body += connection.recv(65536)


def ask(url, rows=({"x": 1},), **options):
    with MLClient(url, api_key="mlk_x", tenant_id="acme", timeout_s=2) as client:
        return client.predict("m", list(rows), **options)


def test_an_answer_is_read():
    """Every field of the contract."""
    with server((200, {**ANSWER, "probabilities": [{"a": 1.0}]})) as url:
        result = ask(url, proba=True)
    assert (result.predictions, result.version, result.rollout) == (["a"], "1", "stable")
    assert result.probabilities == [{"a": 1.0}]


def test_a_lost_connection_is_tried_once_more():
    """The replica that held the request died, or the ingress reloaded: a prediction may be asked twice."""
    with server(None, (200, ANSWER)) as url:
        assert ask(url).version == "1"


def test_a_keyword_that_a_move_has_not_is_refused():
    """Before anything is sent, with the nearest that it has."""
    near = "Did you mean reason"
    with MLClient("http://127.0.0.1:1", tenant_id="acme") as client, pytest.raises(TypeError, match=near):
        client.environments.rollback("m", reasn="worse")


def test_a_keyword_that_a_training_has_not_is_refused():
    """As one of a move is."""
    near = "Did you mean target"
    with MLClient("http://127.0.0.1:1", tenant_id="acme") as client, pytest.raises(TypeError, match=near):
        client.jobs.train("m", "tickets", training={"traget": "category"})


def test_a_value_that_a_field_does_not_take_is_refused_as_an_error_of_the_platform():
    """Before anything is sent, as the class and with the attributes that the server's own refusal has."""
    with MLClient("http://127.0.0.1:1", tenant_id="acme") as client:
        with pytest.raises(InvalidRequestError, match="Field 'percent': Input should be less than") as raised:
            client.rollouts.start("m", "2", 150)
        assert raised.value.field == "percent"
        with pytest.raises(InvalidRequestError, match=r"Field 'tags\.reviewed'"):
            client.versions.update("m", "1", tags={"reviewed": 1})


def test_a_platform_on_this_machine_is_asked_past_a_proxy(monkeypatch):
    """Whose network has one sets it for every program; it can't reach 127.0.0.1."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with server((200, ANSWER)) as url:
        assert ask(url).version == "1"


def test_it_is_not_tried_for_ever():
    """Twice, then the error says what to look at."""
    with server(None, None) as url, pytest.raises(PlatformError, match="can't be reached") as raised:
        ask(url)
    assert raised.value.action is not None
    assert raised.value.action.operation == "status"


@pytest.mark.parametrize(
    ("status", "code", "details", "kind"),
    [
        (404, "not_found", {"model_id": "m"}, ModelNotFoundError),
        (401, "unauthenticated", {}, AuthenticationError),
        (422, "signature_mismatch", {"row": 3, "column": "x"}, SignatureMismatchError),
        (429, "queue_full", {"retry_after_s": 1.0}, QueueFullError),
        (504, "deadline_exceeded", {"deadline_ms": 5}, DeadlineExceededError),
        (400, "something_newer", {}, MLFrameworkError),
    ],
)
def test_an_error_becomes_its_class(status, code, details, kind):
    """With message, attributes and request id; a code that this client does not know is the base class."""
    body = {"error": {"code": code, "message": "No. Do this.", "details": details, "request_id": "r1"}}
    with server((status, body)) as url, pytest.raises(kind, match="Do this") as caught:
        ask(url)
    assert type(caught.value) is kind
    assert details.items() <= caught.value.attributes().items()
    assert caught.value.details["request_id"] == "r1"


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b'{"error": "x"}'])
def test_an_answer_of_somebody_else_is_told(body):
    """The address is not that of a platform."""
    with server((502, body)) as url, pytest.raises(PlatformError, match="502"):
        ask(url)


def test_nobody_listens():
    """The message says how to look."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PlatformError, match="can't be reached"):
        ask(f"http://127.0.0.1:{port}")


def test_nothing_is_sent_that_can_not_be_right():
    """Bad names, what is no table, and texts that are none are refused here."""
    with pytest.raises(InvalidNameError):
        ask("http://127.0.0.1:9", environment="../x")
    for rows in ([{"x": "\ud800"}], [{1: 2, "1": 3}], [pd.Series([1, 2], index=["x", "x"])]):
        with pytest.raises(InvalidRequestError, match=r"equal as strings|valid Unicode"):
            ask("http://127.0.0.1:9", rows=rows)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("url", "127.0.0.1:8000"),
        ("url", ""),
        ("url", "http://127.0.0.1:port"),
        ("url", "http://"),
        ("api_key", ""),
        ("api_key", "mlk_é"),
        ("api_key", "mlk_x\n"),
        ("timeout_s", 0),
        ("timeout_s", float("nan")),
    ],
)
def test_what_no_request_can_be_made_with_is_refused(setting, value):
    """At once, by its name."""
    given = {"url": "http://127.0.0.1:9", "api_key": "mlk_x", "timeout_s": 1.0, setting: value}
    with pytest.raises(ConfigurationError) as caught:
        MLClient(given.pop("url"), tenant_id="acme", **given)
    assert caught.value.setting == setting


@pytest.mark.parametrize(
    "data",
    [
        7,
        "row",
        None,
        [1, 2],
        [{"x": 1}, [2]],
        pd.Series([1.0]),
        pd.Series(["a", "b"], index=[7, 8], name="x"),
        next(pd.DataFrame({"a b": [1]}).itertuples()),
        np.zeros((2, 2)),
        [[1.0]],
        list(pd.DataFrame({"a b": [1]}).itertuples()),
    ],
)
def test_what_has_no_names_is_refused(data):
    """The client does not know the model's columns, so it can't name values."""
    with (
        MLClient("http://127.0.0.1:9", api_key="mlk_x", tenant_id="acme") as client,
        pytest.raises(InvalidRequestError, match="neither a table nor a row"),
    ):
        client.predict("m", data)


def test_plain_rows_need_no_pandas():
    """So a small program starts fast."""
    send = "import sys, ml_core.client.rows as c; c.rows_to_send([{'x': 1.5, 'y': None}]);"
    code = f"{send} sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_client_needs_neither_server_nor_database_nor_numerics():
    """Each of them takes longer to load than an answer takes."""
    heavy = ["fastapi", "starlette", "uvicorn", "sqlalchemy", "psycopg", "pandas", "numpy", "sklearn", "ray"]
    nouns = "[client.models, client.versions, client.environments, client.runs, client.datasets, client.tenants]"
    code = (
        "import sys; from ml_core.client import AsyncMLClient, MLClient;"
        f"client = MLClient('http://127.0.0.1:9', tenant_id='acme'); {nouns};"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_key_is_in_no_text():
    """Of a client, its connection, and an error."""
    with MLClient("http://127.0.0.1:9", api_key="mlk_secret", tenant_id="acme") as client:
        texts = [repr(client), str(client), repr(client._connection), repr(client._connection._http.headers)]
        with pytest.raises(PlatformError) as raised:
            list(client.models.list())
    texts += [repr(raised.value), str(raised.value), repr(raised.value.__cause__)]
    assert "mlk_secret" not in "".join(texts)


def test_help_shows_what_an_operation_does():
    """Of the class and of a client, with its arguments."""
    with MLClient("http://127.0.0.1:9", tenant_id="acme") as client:
        for shown in (MLClient.predict, AsyncMLClient.predict, client.predict):
            text = pydoc.render_doc(shown, renderer=pydoc.plaintext)
            assert "Predict raw rows." in text
            assert "proba: 'bool' = False" in text
        assert "Args:" in inspect.getdoc(client.versions.register)
        assert "newest first" in inspect.getdoc(client.versions.list)


def test_an_answer_that_does_not_come_is_waited_for_only_so_long():
    """Then the error says how to wait longer; the request is not sent again."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(65536))
                connection.recv(1)  # until the client leaves

        thread = threading.Thread(target=serve)
        thread.start()
        started = time.monotonic()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (
            MLClient(url, api_key="mlk_x", tenant_id="acme", timeout_s=0.2) as client,
            pytest.raises(DeadlineExceededError, match=r"within 0\.2 s"),
        ):
            client.runs.start("m")
        assert time.monotonic() - started < 5
        thread.join()
    assert len(asked) == 1
    assert b"x-request-timeout-ms: 200" in asked[0].lower()


def test_files_that_can_not_be_read_or_written_are_refused(tmp_path):
    """Before anything is sent."""
    (tmp_path / "there").write_text("x")
    with MLClient("http://127.0.0.1:9", tenant_id="acme") as client:
        for field, ask in (
            ("file", lambda: client.datasets.create("d", tmp_path / "none.csv")),
            ("file", lambda: client.versions.register("m", tmp_path / "none.skops")),
            ("file", lambda: client.runs.log_file("r", "none", tmp_path)),
            ("path", lambda: client.datasets.download("d", tmp_path / "there")),
        ):
            with pytest.raises(InvalidRequestError) as refused:
                ask()
            assert refused.value.field == field


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.tenants.create("acme"),
        lambda client: client.keys.create("predict"),
        lambda client: client.runs.compare("run_0123456789abcdef"),
        lambda client: client.runs.list(metrics="loss<=0.1"),
        lambda client: client.versions.list("tickets", metrics="accuracy>=0.8"),
        lambda client: client.jobs.predict("tickets", "inbox", output="answers", keep="number"),
    ],
)
def test_one_text_is_not_taken_for_its_characters(call) -> None:
    """Where several are taken: it would create the tenants a, c, e and m."""
    with MLClient("http://127.0.0.1:1", tenant_id="acme") as client, pytest.raises(InvalidRequestError, match="a list"):
        call(client)
