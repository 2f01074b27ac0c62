"""A typed client of the prediction plane.

>>> client = MLClient("http://127.0.0.1:8000", api_key="mlk_…", tenant_id="acme")  # doctest: +SKIP
>>> client.predict("tickets", [{"subject": "Login fails"}]).predictions            # doctest: +SKIP
['account']
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from ml_core import exceptions
from ml_core.ids import EnvironmentName, ModelId, ModelRef, TenantId, VersionId


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """An answer of the prediction plane.

    Attributes:
        predictions: One for each row sent: a label or a number.
        probabilities: Class → probability for each row, if asked for.
        model: The model that answered.
        version: The version that answered; the same for all rows.
        rollout: Which part of the rollout it was.
        request_id: Names the request in logs.
    """

    predictions: list[Any]
    probabilities: list[dict[str, float]] | None
    model: str
    version: str
    rollout: str
    request_id: str


class MLClient:
    """Asks a platform for predictions; a context manager that keeps its connection.

    Args:
        url: The ingress, such as ``http://127.0.0.1:8000``.
        api_key: Of the tenant, ``mlk_<key id>_<secret>``.
        tenant_id: Whose models to ask.
        timeout_s: Seconds to wait; also sent as the request's deadline.

    Raises:
        InvalidNameError: The tenant's name is not valid.
        ConfigurationError: The address, the key or the timeout can't be used.
    """

    def __init__(self, url: str, *, api_key: str, tenant_id: str, timeout_s: float = 10.0) -> None:
        self._tenant = TenantId(tenant_id)
        _check(url, api_key, timeout_s)
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            base_url=url,
            headers={
                "Authorization": f"Bearer {api_key}",
                "x-request-timeout-ms": str(max(1, round(timeout_s * 1000))),
            },
            # A little longer than the server's own deadline, so that its explanation arrives first.
            timeout=timeout_s + 1.0,
            # A proxy of the environment can't reach this machine's own addresses.
            trust_env=httpx.URL(url).host not in _LOOPBACK,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def predict(
        self,
        model_id: str,
        rows: Any,
        *,
        proba: bool = False,
        environment: str | None = None,
        version: str | None = None,
        key: str | None = None,
    ) -> PredictionResult:
        """Predict raw rows.

        Args:
            model_id: The model.
            rows: A list of mappings from column name to value (or of Series, named tuples or dataclasses), one such
                mapping, or a table: a data frame of pandas, polars or pyarrow, or a mapping from column name to all its
                values. Dates, decimals, UUIDs, NumPy's scalars and missing values of any spelling are sent as
                ``MLSystem.predict`` reads them.
            proba: Also ask for the probability of each class.
            environment: Which pointer to follow; ``production`` if neither this nor ``version`` is given.
            version: A version to ask whatever the pointers say.
            key: What a canary keeps together, such as a customer's number: the same key gets the same version.

        Raises:
            MLFrameworkError: The class of ``ml_core.exceptions`` that the server named.
            InvalidRequestError: The input is neither rows nor a table, or can't be sent as JSON.
            DataProcessingError: The table has two columns of one name.
        """
        ref = ModelRef(self._tenant, ModelId(model_id))
        body: dict[str, Any] = {"rows": _rows(rows), "proba": proba}
        if environment is not None:
            body["environment"] = EnvironmentName(environment)
        if version is not None:
            body["version"] = VersionId(version)
        if key is not None:
            body["key"] = key
        answer = self._post(f"{ref.route}/predict", body)
        return PredictionResult(
            predictions=answer["predictions"],
            probabilities=answer.get("probabilities"),
            model=answer["model"],
            version=answer["version"],
            rollout=answer["rollout"],
            request_id=answer["request_id"],
        )

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        content = _encode(body)
        try:
            response = self._send(path, content)
        except httpx.TimeoutException as error:
            raise exceptions.DeadlineExceededError(
                f"No answer from {self._http.base_url} within {self._timeout_s:g} s.",
                remedy="Send fewer rows at once, or allow more time with timeout_s.",
            ) from error
        except httpx.HTTPError as error:
            raise exceptions.PlatformError(
                f"{self._http.base_url} can't be reached: {error}.",
                remedy="Check the address; `mlcore status` shows whether the local platform runs.",
                component="ingress",
            ) from error
        if response.is_success:
            answer: dict[str, Any] = orjson.loads(response.content)
            return answer
        raise error_from_response(response)

    def _send(self, path: str, content: bytes) -> httpx.Response:
        headers = {"content-type": "application/json"}
        try:
            return self._http.post(path, content=content, headers=headers)
        except _CONNECTION_LOST:
            return self._http.post(path, content=content, headers=headers)


_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# A connection that was kept open may be closed just as it is used again: by an ingress that reloads, or with the
# replica that held the request. A prediction changes nothing, so it may be asked twice.
_CONNECTION_LOST = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


def _check(url: str, api_key: str, timeout_s: float) -> None:
    """Refuse what can't be right before the first request is made with it."""
    try:
        address = httpx.URL(url)
        is_address = address.scheme in ("http", "https") and bool(address.host)
    except httpx.InvalidURL:
        is_address = False
    if not is_address:
        what, remedy, setting = f"{url!r} is not an address", "Give one such as http://127.0.0.1:8000.", "url"
    elif not (api_key.isascii() and api_key.isprintable() and api_key):
        what, remedy, setting = (
            "The key is empty or has characters that no key has",
            "Give the whole key, as it was shown once: mlk_….",
            "api_key",
        )
    elif not 0 < timeout_s < math.inf:
        what, remedy, setting = f"timeout_s is {timeout_s}", "Give a number of seconds above 0.", "timeout_s"
    else:
        return
    raise exceptions.ConfigurationError(f"{what}.", remedy=remedy, setting=setting)


def _rows(data: Any) -> list[Mapping[str, Any]]:
    """One mapping a row, of a table or of rows, whose values JSON can carry."""
    if isinstance(data, Mapping) and not _has_columns(data):
        data = [data]
    if isinstance(data, list) and all(isinstance(row, Mapping) for row in data):
        return [_row(row, index) for index, row in enumerate(data)]
    # Imported late: whoever sends plain rows needs no pandas.
    import pandas as pd

    from ml_core.data.frames import as_frame, as_pandas
    from ml_core.data.reading import rows_from_frame
    from ml_core.inference.inputs import RENAMED, fields_of

    data = as_frame(data) if isinstance(data, Mapping) else as_pandas(data)
    if isinstance(data, pd.DataFrame):
        return list(rows_from_frame(data))
    # A Series with numbers as labels may be a column; a row of such names is sent in a list.
    is_column = isinstance(data, pd.Series) and not all(isinstance(label, str) for label in data.index)
    if fields_of(data) is not None and not is_column:
        data = [data]
    if not isinstance(data, list | tuple):
        raise _nameless(data)
    rows = []
    for index, row in enumerate(data):
        fields = fields_of(row)
        if fields is None or (isinstance(row, tuple) and any(map(RENAMED.fullmatch, fields[0]))):
            raise _nameless(row)
        names, values = fields
        if len({str(name) for name in names}) < len(names):
            raise _twice(index)
        rows.append(_row(dict(zip(names, values, strict=True)), index))
    return rows


def _row(row: Mapping[Any, Any], index: int) -> Mapping[str, Any]:
    if all(type(name) is str and _is_plain(value) for name, value in row.items()):
        return row
    from ml_core.data.reading import json_value

    named = {str(name): json_value(value) for name, value in row.items()}
    if len(named) < len(row):
        raise _twice(index)
    return named


def _nameless(data: Any) -> exceptions.InvalidRequestError:
    return exceptions.InvalidRequestError(
        f"A {type(data).__name__} is neither a table nor a row with names of columns.",
        remedy="Give a data frame, or one dict a row: a server knows values by the names of their columns.",
        field="rows",
    )


def _twice(index: int) -> exceptions.InvalidRequestError:
    return exceptions.InvalidRequestError(
        f"Row {index} has two columns whose names are equal as strings.", remedy="Rename one.", field="rows"
    )


def _is_plain(value: Any) -> bool:
    """Whether JSON carries the value as it is; an infinity would become null, and a longer number an error."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    return kind is str or kind is bool or value is None or (kind is int and -(2**63) <= value < 2**64)


def _has_columns(data: Mapping[str, Any]) -> bool:
    """Whether a mapping holds whole columns: no value of a row has a length, but a string or an object."""
    columns = [hasattr(value, "__len__") and not isinstance(value, str | bytes | Mapping) for value in data.values()]
    return bool(columns) and all(columns)


def _encode(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise exceptions.InvalidRequestError(
            f"The rows can't be sent as JSON: {error}.", remedy="Give texts as valid Unicode.", field="rows"
        ) from error


def error_from_response(response: httpx.Response) -> exceptions.MLFrameworkError:
    """The exception that a server's error response describes."""
    try:
        error = orjson.loads(response.content)["error"]
        code, message, details = error["code"], error["message"], dict(error.get("details") or {})
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return exceptions.PlatformError(
            f"The server answered {response.status_code} without an explanation.",
            remedy="Check that the address is that of an ML Core ingress.",
            component="ingress",
        )
    kind = _BY_CODE.get(code, exceptions.MLFrameworkError)
    own = {name: details.pop(name) for name in kind.fields if name in details}
    action = error.get("action")
    return kind(
        message,
        action=None if action is None else exceptions.Action(action["operation"], action["arguments"]),
        details={**details, "request_id": error.get("request_id")},
        **own,
    )


def _subclasses(cls: type[exceptions.MLFrameworkError]) -> list[type[exceptions.MLFrameworkError]]:
    return [found for child in cls.__subclasses__() for found in (child, *_subclasses(child))]


_BY_CODE: dict[str, type[exceptions.MLFrameworkError]] = {
    **{kind.code: kind for kind in _subclasses(exceptions.MLFrameworkError)},
    # Unknown tenants and unknown models share a code: an answer must not reveal which it was.
    exceptions.ModelNotFoundError.code: exceptions.ModelNotFoundError,
}
