"""The hooks themselves: they cost their caller nothing but time, whatever a backend does."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys

import pytest

from ml_core.inference.traffic import TrafficCounter
from ml_core.observability import NO_HOOKS, Hooks
from ml_core.observability.hooks import EVENTS, combine
from ml_core.observability.prometheus import PrometheusHooks
from ml_core.observability.tracing import TracingHooks
from support.hooks import Noted


class Broken(Hooks):
    """Raises at every request."""

    def request_ended(self, route, status, seconds, tenant):
        """See ``Hooks``."""
        raise RuntimeError("broken")


def test_a_hook_that_raises_is_logged_once_and_harms_nobody(caplog):
    """Or else each request of a busy replica would log a traceback."""
    hooks = Broken()
    with caplog.at_level(logging.ERROR, "ml_core.observability.hooks"):
        for _ in range(3):
            hooks.request_ended("/readyz", 200, 0.001, None)
    assert len(caplog.records) == 1
    assert "Broken.request_ended" in caplog.text
    assert "RuntimeError: broken" in caplog.text


def test_combined_hooks_are_each_called():
    """In their order; one that raises keeps nothing from the next."""
    noted = Noted()
    combined = combine(Broken(), noted)
    combined.request_ended("/readyz", 200, 0.001, None)
    combined.assignment_applied(3, 0.1, is_new_epoch=True)
    assert noted.events == [
        ("request_ended", ("/readyz", 200, 0.001, None), {}),
        ("assignment_applied", (3, 0.1), {"is_new_epoch": True}),
    ]


def test_one_backend_is_called_directly():
    """With no function in between."""
    noted = Noted()
    assert combine(noted) is noted


def test_events_cost_nothing_of_backends_that_do_not_want_them():
    """A replica counts its traffic beside its metrics, and most events of a request are none of that."""
    noted, traffic = Noted(), TrafficCounter()
    combined = combine(noted, traffic)
    assert combined.rows_queued == noted.rows_queued
    assert combined.request_ended not in (noted.request_ended, traffic.request_ended)
    assert vars(combine(NO_HOOKS, traffic)) == {"request_ended": traffic.request_ended}


@pytest.mark.parametrize("backend", [PrometheusHooks, TracingHooks])
def test_a_backend_takes_what_the_event_gives(backend):
    """With the same names, in the same order."""
    for name in EVENTS:
        expected = inspect.signature(getattr(Hooks, name))
        assert inspect.signature(inspect.unwrap(getattr(backend, name))) == expected, name


def test_prometheus_counts_every_event():
    """None is forgotten when one is added."""
    assert {name for name in EVENTS if getattr(PrometheusHooks, name) is getattr(Hooks, name)} == {"close"}


def test_nobody_listens_by_default():
    """And that has no state."""
    assert vars(NO_HOOKS) == {}


def test_no_backend_is_imported_until_it_is_used():
    """A library user who wants no metrics pays for none; nor does a replica."""
    code = (
        "import sys, ml_core, ml_core.inference.replica; from ml_core import MLSystem\n"
        "print([name for name in ('prometheus_client', 'opentelemetry') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
