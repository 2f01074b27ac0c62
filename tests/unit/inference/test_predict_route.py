"""``predict`` over ASGI: answers, refusals, deadlines, limits, versions."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta, Rollout
from ml_core.exceptions import RegistryUnavailableError
from ml_core.inference.edge import routes as predict_routes
from ml_core.inference.edge.routes import parse_predict
from ml_core.models.loading import load_version
from ml_core.settings import ServingSettings
from support.inprocess_cell import ACME, GLOBEX, MEASURE, TICKET, make_cell, pointer, promote, renamed, servable
from support.tables import measures

PATH = "/t/acme/models/measures/predict"


def test_a_raw_row_is_answered(cell, key):
    """Text, a date and a boolean as they are; what is missing is missing."""
    answer = cell.predict("tickets", [TICKET], key=key)
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("request_id") == answer.headers["x-request-id"]
    assert body == {"predictions": ["billing"], "model": "tickets", "version": "1", "rollout": "stable"}


def test_probabilities_are_one_object_a_row(cell, key):
    """Class to probability, adding up to one, the largest for the prediction."""
    body = cell.predict("tickets", [TICKET, TICKET], key=key, proba=True).json()
    for label, row in zip(body["predictions"], body["probabilities"], strict=True):
        assert sum(row.values()) == pytest.approx(1.0)
        assert max(row, key=row.get) == label


def test_many_rows_come_back_in_order(cell, key, fitted_measures):
    """Each answer in its row's place."""
    frame = measures(100, seed=11).drop(columns=["outcome"])
    body = cell.predict("measures", frame.to_dict("records"), key=key).json()
    assert body["predictions"] == list(fitted_measures.pipeline.predict(frame))


def test_an_unknown_column_is_ignored_and_counted_or_refused(cell, key):
    """As the request says."""
    row = {**MEASURE, "colour": "red"}
    ignored = cell.predict("measures", [row, MEASURE], key=key)
    assert (ignored.status_code, ignored.json()["unknown_values"]) == (200, 1)
    refused = cell.predict("measures", [row], key=key, strict=True)
    assert (refused.status_code, refused.json()["error"]["details"]["column"]) == (422, "colour")


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({}, "Known columns: m0, m1"),
        ({"row": MEASURE}, "The value of 'row' has them"),
        ({name.upper(): value for name, value in MEASURE.items()}, "Did you mean 'm0' instead of 'M0'"),
        ({**{name: MEASURE[name] for name in list(MEASURE)[1:]}, "M0": 1.0}, "no column 'm0'. Did you mean"),
        ({"x" * 9000: None, **{f"y{number}": 1 for number in range(5000)}}, "Known columns"),
    ],
    ids=["empty", "nested", "other case", "one in other case", "huge"],
)
def test_a_row_without_the_models_columns_is_refused(cell, key, row, hint):
    """It would be answered as if all were missing; the other rows don't hide it."""
    answer = cell.predict("measures", [MEASURE, row], key=key)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]["row"]) == (422, "signature_mismatch", 1)
    assert hint in error["message"]
    assert len(error["message"]) < 1000


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"", 400, "invalid_request", "body"),
        (b"{", 400, "invalid_request", "body"),
        (b"\xff\xfe", 400, "invalid_request", "body"),
        (b"[" * 3000, 400, "invalid_request", "body"),
        (b'{"rows": [{"m0": NaN}]}', 400, "invalid_request", "body"),
        (b"[]", 400, "invalid_request", "body"),
        (b"{}", 400, "invalid_request", "rows"),
        (b'{"rows": []}', 400, "invalid_request", "rows"),
        (b'{"rows": {}}', 400, "invalid_request", "rows"),
        (b'{"rows": [{}, 3]}', 400, "invalid_request", "rows[1]"),
        (b'{"rows": [{}], "proba": 1}', 400, "invalid_request", "proba"),
        (b'{"rows": [{}], "strict": "yes"}', 400, "invalid_request", "strict"),
        (b'{"rows": [{}], "prob": true}', 400, "invalid_request", "prob"),
        (b'{"rows": [{}], "key": 7}', 400, "invalid_request", "key"),
        (b'{"rows": [{}], "environment": "../x"}', 400, "invalid_name", "environment"),
        (b'{"rows": [{}], "environment": 7}', 400, "invalid_name", "environment"),
        (b'{"rows": [{}], "version": "a b"}', 400, "invalid_name", "version"),
        (b'{"rows": [{}], "version": 1}', 400, "invalid_name", "version"),
    ],
)
def test_a_malformed_body_names_the_field(cell, key, body, status, code, field):
    """Each is 400 with the path of what is wrong."""
    answer = cell.ask("POST", PATH, key=key, content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]["field"]) == (status, code, field)
    assert error["request_id"] == answer.headers["x-request-id"]


def test_a_misspelt_field_is_corrected(cell, key):
    """The nearest known one is named."""
    error = cell.predict("measures", [MEASURE], key=key, enviroment="staging").json()["error"]
    assert "Did you mean 'environment'?" in error["message"]


def test_a_row_that_does_not_fit_is_named(cell, key):
    """422 with row and column."""
    answer = cell.predict("measures", [MEASURE, {**MEASURE, "m3": "many"}], key=key)
    details = answer.json()["error"]["details"]
    assert (answer.status_code, details["row"], details["column"]) == (422, 1, "m3")


def test_too_many_rows_are_refused(cell, key):
    """413 with the limit and what was sent."""
    answer = cell.predict("measures", [{}] * 101, key=key)
    details = answer.json()["error"]["details"]
    assert (answer.status_code, details["limit"], details["actual"]) == (413, 100, 101)


@pytest.mark.parametrize("chunks", [1, 40])
def test_a_body_over_the_limit_is_refused_with_or_without_its_length(cell, key, chunks):
    """413, also while it streams in without a content-length."""

    async def stream():
        for _ in range(chunks):
            yield b"x" * (80_000 // chunks)

    content = b"x" * 80_000 if chunks == 1 else stream()
    answer = cell.ask("POST", PATH, key=key, content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_an_endless_body_is_not_read_to_its_end(cell, key):
    """Reading stops at a multiple of the limit."""
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 10_000
            yield b"x" * 10_000

    assert cell.ask("POST", PATH, key=key, content=endless()).status_code == 413
    assert sent < 10 * cell.service.limits.max_body_bytes


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer nonsense"}, {"authorization": "Basic YTpi"}])
def test_without_a_valid_key_there_is_no_answer(cell, header):
    """401, also for a tenant that does not exist."""
    for tenant in ("acme", "nobody"):
        answer = cell.ask("POST", f"/t/{tenant}/models/measures/predict", headers=header, json={"rows": [{}]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_without_the_scope_is_refused(cell):
    """403 names the scope."""
    answer = cell.predict("measures", [MEASURE], key=cell.key(ACME, Scope.TRAIN))
    assert (answer.status_code, answer.json()["error"]["details"]["scope"]) == (403, "predict")


def test_another_tenants_key_finds_what_a_tenant_that_is_not_there_has(cell):
    """The same 404, to the letter."""
    theirs = cell.key(GLOBEX, Scope.PREDICT, Scope.ADMIN)
    answers = [
        cell.ask(
            "POST",
            f"/t/{tenant}/models/measures/predict",
            key=theirs,
            json={"rows": [MEASURE]},
            headers={"x-request-id": "same"},
        )
        for tenant in ("acme", "nobody", "No Such")
    ]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert len({answer.text for answer in answers}) == 1


@pytest.mark.parametrize("model", ["nothing", "UPPER", "..%2F..%2Fetc", "m" * 300, "%F0%9F%90%88", "%00"])
def test_an_unknown_model_is_not_found(cell, key, model):
    """Whether or not the name is one that a model could have."""
    answer = cell.ask("POST", f"/t/acme/models/{model}/predict", key=key, json={"rows": [{}]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    if model == "nothing":
        assert "does not exist or has no version in production. Check its name" in answer.json()["error"]["message"]


def test_an_environment_without_a_version_says_how_to_get_one(cell, key):
    """404 with the environments that there are."""
    answer = cell.predict("measures", [MEASURE], key=key, environment="staging")
    message = answer.json()["error"]["message"]
    assert answer.status_code == 404
    assert "has no version in staging" in message
    assert "Use production" in message


@pytest.mark.parametrize("text", ["soon", "0", "-5", "1.5", "", "9" * 30, "\u0661"])
def test_a_timeout_that_is_no_whole_number_is_refused(cell, key, text):
    """400 names the header."""
    headers = {"x-request-timeout-ms": text.encode()}
    answer = cell.ask("POST", PATH, key=key, json={"rows": [MEASURE]}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "x-request-timeout-ms")


def test_a_body_that_does_not_come_ends_at_the_deadline(cell, key):
    """408: the deadline covers reading, too."""

    async def never():
        yield b'{"rows": '
        await asyncio.Event().wait()

    answer = cell.ask("POST", PATH, key=key, content=never(), headers={"x-request-timeout-ms": "50"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "request_timeout")


def test_a_sane_request_id_is_kept_and_another_replaced(cell, key):
    """So that a client can't write into our logs."""
    for sent, kept in (("abc-123", True), ("a b", False), ("x" * 200, False)):
        answer = cell.ask("POST", PATH, key=key, json={"rows": [MEASURE]}, headers={"x-request-id": sent})
        assert (answer.headers["x-request-id"] == sent) is kept
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_version_can_be_asked_by_name(cell, key, fitted_measures):
    """One that no environment names is found in the registry and loaded; an unknown one is 404."""
    version = renamed(servable(cell.store, fitted_measures), "2")
    cell.registered[version.ref] = version
    assert cell.predict("measures", [MEASURE], key=key, version="2").json()["version"] == "2"
    answer = cell.predict("measures", [MEASURE], key=key, version="3")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_without_the_registry_pointed_versions_answer_and_others_say_why_not(cell, key, monkeypatch):
    """503 with Retry-After, and without the database's address."""

    def unreachable(ref):
        raise RegistryUnavailableError("postgresql://db.internal:5432 is gone")

    monkeypatch.setattr(cell.service.router._versions, "_find", unreachable)
    assert cell.predict("measures", [MEASURE], key=key, version="1").status_code == 200
    answer = cell.predict("measures", [MEASURE], key=key, version="7")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "registry_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert "internal" not in answer.text


@pytest.fixture
def held(store):
    """A cell whose loads wait until the event is set."""
    go_on = threading.Event()

    def load(version):
        assert go_on.wait(10)
        return load_version(store, version)

    cell = make_cell(store, ServingSettings(), load)
    cell.assignment.apply(AssignmentDelta(1, True, {ACME: True}, {}, {}))
    yield cell, go_on
    go_on.set()
    cell.table.close()
    cell.service.close()


def test_a_request_waits_for_a_load_within_its_deadline(held, fitted_measures):
    """503 with Retry-After when it takes longer; the answer when it does not."""
    cell, go_on = held
    version = servable(cell.store, fitted_measures)
    key = cell.key(ACME, Scope.PREDICT)
    cell.table.apply({pointer(version): Rollout(version, 1)})
    early = cell.ask("POST", PATH, key=key, json={"rows": [MEASURE]}, headers={"x-request-timeout-ms": "60"})
    assert (early.status_code, early.json()["error"]["code"]) == (503, "not_ready")
    assert early.headers["retry-after"] == "1"
    go_on.set()
    assert cell.predict("measures", [MEASURE], key=key).status_code == 200


def test_a_version_that_can_not_be_loaded_is_not_ready(cell, key, fitted_measures):
    """503 with the cause and without the path of the file, when there is no last good one."""
    broken = renamed(servable(cell.store, fitted_measures), "9")
    cell.store.path(ACME, broken.digest).write_bytes(b"damaged")
    cell.table.apply({pointer(broken, "staging"): Rollout(broken, 1)})
    assert cell.table.wait_idle(10)
    answer = cell.predict("measures", [MEASURE], key=key, environment="staging")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]["cause"]) == (503, "not_ready", "artifact_corrupt")
    assert str(cell.store.root) not in answer.text
    assert cell.ask("GET", "/healthz").json()["failed_loads"] == 1


def test_no_answer_mixes_versions_while_one_is_promoted(cell, key, fitted_measures):
    """Requests before, during and after a flip are all answered, each by one of the two."""
    second = renamed(servable(cell.store, fitted_measures), "2")

    async def main():
        seen = []
        while "2" not in seen[-5:]:
            if len(seen) == 20:
                cell.table.apply({pointer(second): Rollout(second, 2)})
            answer = await cell.ask_async(PATH, key, {"rows": [MEASURE] * 3})
            assert answer.status_code == 200, answer.text
            seen.append(answer.json()["version"])
        return seen

    seen = asyncio.run(asyncio.wait_for(main(), 20))
    assert seen == sorted(seen)


def test_before_the_assignment_is_known_nothing_is_refused_for_good(bare_cell):
    """503 with Retry-After, also for a key that will turn out to be good; live but not ready."""
    answer = bare_cell.predict("measures", [MEASURE], key=f"mlk_{'0' * 16}_{'x' * 32}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert bare_cell.ask("GET", "/healthz").status_code == 200
    assert bare_cell.ask("GET", "/readyz").status_code == 503


def test_health_names_no_tenant_and_no_model(cell):
    """Anybody may ask, so it tells counts."""
    answer = cell.ask("GET", "/healthz")
    assert answer.json()["models"]["loaded"] == 2
    assert answer.json()["assignment"]["generation"] >= 1
    assert "acme" not in answer.text
    assert "tickets" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", PATH, 405),
        ("POST", "/healthz", 405),
        ("GET", "/", 404),
        ("GET", "/t/acme", 404),
        ("HEAD", "/healthz", 200),
    ],
)
def test_other_paths_and_methods(cell, method, path, status):
    """In the one error shape; 405 says what is allowed."""
    answer = cell.ask(method, path)
    assert answer.status_code == status
    if status == 405:
        assert "allow" in answer.headers
        assert answer.json()["error"]["code"] == "method_not_allowed"


def test_a_bug_is_500_with_the_request_id_and_nothing_else(cell, key, monkeypatch, caplog):
    """The text of the exception goes to the log only."""

    def broken(*_, **__):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(cell.service._assignment, "principal", broken)
    answer = cell.predict("measures", [MEASURE], key=key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text
    assert answer.headers["x-request-id"] in caplog.text


def test_promoting_again_after_a_failure_recovers(cell, key, fitted_measures):
    """Once the artifact is whole again, the retry serves it."""
    good = renamed(servable(cell.store, fitted_measures), "2")
    path = cell.store.path(ACME, good.digest)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    promote(cell.table, good, 2)
    assert cell.predict("measures", [MEASURE], key=key).json()["version"] == "1"
    path.write_bytes(data)
    third = renamed(good, "3")
    promote(cell.table, third, 3)
    assert cell.predict("measures", [MEASURE], key=key).json()["version"] == "3"


def test_a_large_body_is_parsed_on_a_thread(cell, key, monkeypatch):
    """It is answered, or refused with its field, like a small one that is parsed on the event loop."""
    monkeypatch.setattr(predict_routes, "PARSE_ON_LOOP_BYTES", 1_000)
    threads = []

    def parse(body, max_rows):
        threads.append(threading.current_thread() is threading.main_thread())
        return parse_predict(body, max_rows)

    monkeypatch.setattr(predict_routes, "parse_predict", parse)
    few, many = cell.predict("measures", [MEASURE], key=key), cell.predict("measures", [MEASURE] * 50, key=key)
    assert many.json()["predictions"] == few.json()["predictions"] * 50
    refused = cell.predict("measures", [MEASURE] * 50 + [7], key=key)
    assert (refused.status_code, refused.json()["error"]["details"]["field"]) == (400, "rows[50]")
    assert threads == [True, False, False]
