"""A model that misbehaves is a problem of the rows that it misbehaves on: never of other rows, models or tenants."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta
from ml_core.domain.signature import Output, OutputKind
from ml_core.domain.version import RequiredModule
from ml_core.exceptions import PredictionError
from ml_core.models.loading import LoadedModel, load_version
from ml_core.models.own_types import Trust
from ml_core.models.store import LocalStore
from ml_core.settings import ServingSettings
from support import acme, broken
from support.http_server import served
from support.inprocess_cell import ACME, GLOBEX, Cell, make_cell, promote, servable
from support.load import Connection, load, prediction
from support.tables import measures
from support.waiting import wait_until

ROWS = measures(8, seed=4).drop(columns=["outcome"]).to_dict("records")
BAD = {**ROWS[0], "m0": -999.0}


@pytest.fixture(scope="module")
def module(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """The operator's module, installed and trusted."""
    with acme.installed(tmp_path_factory.mktemp("site"), module=broken.MODULE):
        import acme_models  # type: ignore[import-not-found]

        yield acme_models
        acme_models.release.set()


@pytest.fixture(scope="module")
def cell(module, tmp_path_factory) -> Iterator[Cell]:
    """A cell that trusts it, and knows two tenants."""
    store = LocalStore(tmp_path_factory.mktemp("artifacts"))
    made = make_cell(store, ServingSettings(), lambda version: load_version(store, version, Trust(("acme_models",))))
    made.assignment.apply(AssignmentDelta(1, True, {ACME: True, GLOBEX: True}, {}, {}))
    yield made
    made.table.close()
    made.service.close()


@pytest.fixture(scope="module")
def port(cell) -> Iterator[int]:
    """It answers over HTTP."""
    with served(cell.app, keep_alive_s=60) as port:
        yield port


@pytest.fixture(scope="module")
def key(cell) -> str:
    return cell.key(ACME, Scope.PREDICT)


@pytest.fixture(scope="module")
def right(fitted_measures) -> list[str]:
    """The right answers for the rows."""
    return fitted_measures.pipeline.predict(measures(8, seed=4)).tolist()


@pytest.fixture(scope="module")
def neighbour(cell, fitted_measures) -> bytes:
    """A request of another tenant, whose model is sound."""
    promote(cell.table, servable(cell.store, fitted_measures, tenant=GLOBEX))
    return prediction("globex", "measures", cell.key(GLOBEX, Scope.PREDICT), *ROWS)


def serve(cell, module, fitted, how, *, is_own=True):
    """Promote a model of acme that misbehaves in one way; its name."""
    name = f"{how.replace(' ', '_')}_{'own' if is_own else 'listed'}"
    pipeline = broken.broken(fitted, module.Broken, how)
    version = servable(cell.store, dataclasses.replace(fitted, model_id=type(fitted.model_id)(name), pipeline=pipeline))
    if is_own:  # as the registry records it
        version = dataclasses.replace(version, modules=(RequiredModule("acme_models", "acme-models", "1.2"),))
    promote(cell.table, version)
    return name


def ask(port, request):
    connection = Connection(port)
    try:
        reply = connection.ask(request)
        return reply.status, orjson.loads(reply.body)
    finally:
        connection.close()


# Whether a marked row is answered all the same.
DEEDS = {
    "raise": False,
    "key": False,
    "exit": False,
    "interrupt": False,
    "generator exit": False,
    "cancelled": False,
    "memory": False,
    "memory of a terabyte": False,
    "stop": False,
    "unprintable": False,
    "long text": False,
    "recursion": False,
    "print": True,
    "mutate": True,
}
LABELS = [
    *("short", "long", "column", "square", "none", "generator", "object", "lists", "sparse", "text"),
    *("unknown", "number", "nan"),
]
PROBABILITIES = [
    f"proba {how}" for how in ("short", "long", "narrow", "wide", "flat", "nan", "infinite", "sums", "text")
]


@pytest.mark.parametrize("is_own", [True, False], ids=["on a thread", "on the loop"])
@pytest.mark.parametrize("how", [*DEEDS, *LABELS, *PROBABILITIES])
def test_only_marked_rows_are_refused(cell, module, fitted_measures, port, key, neighbour, right, how, is_own):
    """With 422, whatever the model does; other rows of the same model, asked at the same time, and other tenants get
    their own right answers, and the replica lives."""
    model = serve(cell, module, fitted_measures, how, is_own=is_own)
    asked = [(ROWS[index % 8], index % 3 == 2, index % 2 == 0) for index in range(24)]
    requests = [
        prediction("acme", model, key, {**row, "m0": -999.0} if is_marked else row, proba=proba)
        for row, is_marked, proba in asked
    ]
    with load(port, neighbour, connections=2, expected=right) as others, ThreadPoolExecutor(8) as pool:
        ask(port, prediction("acme", model, key, *ROWS))  # so that its cost is known
        outcomes = list(pool.map(lambda request: ask(port, request), requests))
        others.goes_on(10)
    assert others.failures == []
    for index, (status, body) in enumerate(outcomes):
        _, is_marked, proba = asked[index]
        if is_marked and not DEEDS.get(how) and (proba or how not in PROBABILITIES):
            assert (status, body["error"]["code"]) == (422, "prediction_failed")
            assert len(body["error"]["message"]) < 2_000
        else:
            assert status == 200, body
            assert is_marked or body["predictions"] == [right[index % 8]]


SLEEPING = 3


def test_sleeping_models_delay_their_own_callers_only(cell, module, fitted_measures, port, key, neighbour, right):
    """Their callers get 504 at the deadline, others are answered: the processor time of such a call is short, but it
    never runs on the event loop."""
    models = [serve(cell, module, fitted_measures, f"sleep{' ' * count}") for count in range(SLEEPING)]
    late = [
        prediction("acme", model, key, BAD, lines=("x-request-timeout-ms: 300",)) for model in models for _ in range(4)
    ]
    with load(port, neighbour, connections=2, expected=right) as others, ThreadPoolExecutor(len(late)) as pool:
        ask(port, prediction("acme", models[0], key, *ROWS))
        for _ in range(2):
            outcomes = list(pool.map(lambda request: ask(port, request), late))
            assert {status for status, _ in outcomes} == {504}
        others.goes_on(50)
    assert others.failures == []
    assert others.p99_s() < 1
    assert module.calls
    assert all(name.startswith("mlcore-predict") for name in module.calls)
    module.release.set()
    wait_until(lambda: ask(port, prediction("acme", models[0], key, ROWS[0]))[0] == 200)


ANSWERS = st.one_of(
    st.none(),
    st.sampled_from([iter([]), {}, "yes", b"no", 1.5, object()]),
    st.lists(st.sampled_from(["yes", "no", "maybe", None, 1, 0.5])),
    arrays(st.sampled_from([np.dtype(each) for each in ("f8", "f4", "i8", "?", "U3", "O", "c16", "M8[s]")]),
           array_shapes(max_dims=2, max_side=4)),
)  # fmt: skip


class Says:
    """An estimator that answers with given values."""

    def __init__(self, labels, probabilities, classes):
        self.predict = lambda X: labels
        if classes is not None:
            self.predict_proba = lambda X: probabilities
            self.classes_ = np.array(classes)


@given(labels=ANSWERS, probabilities=ANSWERS, rows=st.integers(1, 4), kind=st.sampled_from(list(OutputKind)))
def test_a_model_answers_each_row_once_or_fails(fitted_measures, tmp_path_factory, labels, probabilities, rows, kind):
    """Whatever the estimator returns: as many values as rows, of the signature's kind, or a PredictionError."""
    classes = ("no", "yes") if kind is OutputKind.CLASSES else ()
    signature = dataclasses.replace(fitted_measures.signature, output=Output(kind, classes))
    version = SimpleNamespace(signature=signature, ref=SimpleNamespace(tenant_id="a", model_id="m", version="1"))
    model = LoadedModel(version, Says(labels, probabilities, classes or None))
    columns = signature.columns_from_rows(ROWS[:rows])
    for proba in (False, True):
        try:
            found, chances = model.predict_both(columns, proba=proba)
        except PredictionError:
            continue
        assert found.shape == (rows,)
        assert set(found.tolist()) <= set(classes) if classes else found.dtype.kind in "fiub"
        if chances is not None:
            assert chances.shape == (rows, len(classes))
            assert chances.sum() == pytest.approx(rows, rel=1e-3)


def numbers(fitted):
    """A version with the columns of a fitted one, whose answers are numbers."""
    return SimpleNamespace(signature=dataclasses.replace(fitted.signature, output=Output(OutputKind.NUMBER)))


def test_an_answer_is_kept_while_the_estimator_makes_the_next(fitted_measures):
    """Also if it writes each one into the same array."""
    version = numbers(fitted_measures)
    buffer = np.zeros(1)
    model = LoadedModel(version, Says(buffer, None, None))
    first = model.predict(version.signature.columns_from_rows(ROWS[:1]))
    buffer[:] = 1
    assert first.tolist() == [0]


def test_an_estimator_that_changes_its_input_changes_no_other_row(module, fitted_measures, right):
    """Neither the labels after the probabilities, nor what the log gets of the rows."""
    version = SimpleNamespace(signature=fitted_measures.signature)
    model = LoadedModel(version, broken.broken(fitted_measures, module.Broken, "mutate"))
    columns = version.signature.columns_from_rows([*ROWS, BAD])
    before = {name: values.copy() for name, values in columns.items()}
    assert model.predict_both(columns)[0][:-1].tolist() == right
    for name, values in columns.items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), ValueError("no")])
def test_a_model_that_ends_its_process_when_it_is_loaded_is_refused(cell, port, fitted_measures, error, neighbour):
    """The load fails as any other, and requests get 503."""
    good = servable(cell.store, fitted_measures)
    version = dataclasses.replace(good, ref=dataclasses.replace(good.ref, model_id="eager"))
    key = cell.key(ACME, Scope.PREDICT)

    def stop(_):
        raise error

    loader, cell.table._loader = cell.table._loader, stop
    try:
        promote(cell.table, version)
        assert ask(port, prediction("acme", "eager", key, *ROWS))[0] == 503
    finally:
        cell.table._loader = loader
    assert ask(port, neighbour)[0] == 200


def test_ctrl_c_of_the_user_is_not_taken_for_an_error_of_the_model(fitted_measures):
    """In the main thread of a program of their own."""
    version = numbers(fitted_measures)
    model = LoadedModel(version, Says(None, None, None))

    def stop(_):
        raise KeyboardInterrupt

    model._estimator.predict = stop
    with pytest.raises(KeyboardInterrupt):
        model.predict(version.signature.columns_from_rows(ROWS[:1]))
