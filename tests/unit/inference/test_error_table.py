"""The one table from errors to statuses."""

from __future__ import annotations

import orjson
import pytest

from ml_core import exceptions
from ml_core.exceptions import STATUS, status_of
from ml_core.inference.edge.http import error_response


def subclasses(cls):
    return [cls, *(found for sub in cls.__subclasses__() for found in subclasses(sub))]


@pytest.mark.parametrize("cls", subclasses(exceptions.MLFrameworkError))
def test_every_error_has_a_status_and_renders(cls):
    """None is left to chance: a new error needs an entry or a listed base other than the root."""
    error = cls("Something happened.", remedy="Do this.")
    assert cls in STATUS or cls.__mro__[1] in STATUS
    response = error_response(error, "/t/acme/models/m/predict", "id")
    assert response.status == status_of(error)
    assert b'"request_id":"id"' in response.body


@pytest.mark.parametrize("status", [429, 503])
def test_a_pause_is_named_where_trying_again_helps(status):
    """Each 429 and 503 has Retry-After."""
    for cls in (cls for cls, mapped in STATUS.items() if mapped == status):
        response = error_response(cls("Busy."), "/healthz", "id")
        assert int(response.headers[b"retry-after"]) >= 1


def test_details_that_json_lacks_are_told_as_text():
    """An error never fails to render."""
    error = exceptions.PredictionError("No.", details={"odd": {1, 2}.__class__})
    assert b"class" in error_response(error, "/t/acme/models/m/predict", "id").body


@pytest.mark.parametrize("path", ["/v2", "/v2/models/m/infer", "/t/acme/v2", "/t/acme/v2/health/live", "/t//v2/\n"])
@pytest.mark.parametrize("error", [exceptions.SignatureMismatchError("No.", remedy="Do.", row=1), ValueError("secret")])
def test_under_v2_an_error_is_a_text(path, error):
    """Clients of the Open Inference Protocol fail on anything else."""
    told = orjson.loads(error_response(error, path, "id").body)
    assert told.keys() == {"error"}
    assert isinstance(told["error"], str)
    assert "secret" not in told["error"]


@pytest.mark.parametrize("path", ["/", "/t/acme/v20", "/t/acme/models/v2/predict", "/t/v2", "/models/v2"])
def test_elsewhere_an_error_is_an_object(path):
    """A model or tenant may be called v2."""
    told = orjson.loads(error_response(exceptions.AuthenticationError("No."), path, "id").body)
    assert told["error"].keys() == {"code", "message", "details", "request_id"}
