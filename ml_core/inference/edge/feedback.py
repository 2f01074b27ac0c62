"""``feedback``: the true label of a predicted row."""

from __future__ import annotations

import difflib
from typing import Any

from ml_core.exceptions import InvalidNameError, RegistryUnavailableError
from ml_core.ids import ModelId, TenantId
from ml_core.inference.edge.http import HttpRequest, HttpResponse
from ml_core.inference.edge.render import json_response
from ml_core.inference.edge.requests import invalid, parse_object
from ml_core.inference.service import PredictionService
from ml_core.inference.target import no_such_name
from ml_core.registry.predictions.labels import check_label

_FIELDS = ("label", "request_id", "row")


class FeedbackRoutes:
    """The route for labels."""

    def __init__(self, service: PredictionService) -> None:
        self._recorder = service.recorder

    async def feedback(self, request: HttpRequest) -> HttpResponse:
        """``POST /t/{tenant}/models/{model}/feedback``: ``{"request_id": …, "row": 0, "label": …}``, scope ``label``.

        200 once the label is stored. A later label for the same row replaces it. The prediction need not exist: it
        may not be written to the prediction log yet.
        """
        body = _parse(request.body)
        try:
            tenant_id, model_id = TenantId(request.tenant), ModelId(request.model)
        except InvalidNameError as error:
            raise no_such_name(error) from None
        if self._recorder is None:
            raise RegistryUnavailableError(
                "This cell does not record predictions.", remedy="Send the label to a cell that does."
            )
        await self._recorder.add_label(tenant_id, model_id, body["request_id"], body["row"], body["label"])
        return json_response({"model": model_id, **body})


def _parse(content: bytes) -> dict[str, Any]:
    """Parse the body.

    Raises:
        InvalidRequestError: The body is malformed; names the field.
    """
    data = parse_object(content)
    for name in data:
        if name not in _FIELDS:
            near = difflib.get_close_matches(name[:40], _FIELDS, n=1)
            known = f"Did you mean {near[0]!r}?" if near else f"Known fields: {', '.join(_FIELDS)}."
            raise invalid(name[:100], "is not known", known)
    for name in ("request_id", "label"):
        if name not in data:
            raise invalid(name, "is missing", 'Send {"request_id": …, "row": 0, "label": …}.')
    label = {"request_id": data["request_id"], "row": data.get("row", 0), "label": data["label"]}
    check_label(label["request_id"], label["row"], label["label"])
    return label
