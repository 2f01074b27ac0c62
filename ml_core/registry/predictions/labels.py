"""Labels: the true values of predicted rows, recorded after the prediction.

A label is accepted whether or not its prediction is in the log: a replica writes what it answered about a second later,
and predictions of a tenant that keeps nothing are never written. A label and its prediction are joined when both exist.
"""

from __future__ import annotations

import math
import re
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.strict_json import is_storable
from ml_core.database.tables import feedback, tenants
from ml_core.domain.signature import Label
from ml_core.exceptions import InvalidRequestError, RequestTooLargeError
from ml_core.ids import ModelId, TenantId
from ml_core.registry.missing import model_not_found, tenant_deleted
from ml_core.registry.predictions.ingest import hold_off_removal

MAX_LABEL_CHARACTERS = 1_000
MAX_ROW = 2**31 - 1
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_MODELS_KEY = "fk_feedback_models"


def write_label(
    db: DatabaseConnection, tenant_id: TenantId, model_id: ModelId, request_id: str, row: int, label: Label
) -> None:
    """Store a label as the serving role, which may do so for the tenant that its transaction names.

    Errors as for ``store_label``.
    """
    with db.ingesting(tenant_id) as connection:
        store_label(connection, tenant_id, model_id, request_id, row, label)


def store_label(
    connection: Connection,
    tenant_id: TenantId,
    model_id: ModelId,
    request_id: str,
    row: int,
    label: Label,
    at: datetime | None = None,
) -> None:
    """Store a label in the tenant's transaction; a later one for the same row replaces it.

    Raises:
        MLFrameworkError: As for ``check_label``.
    """
    check_label(request_id, row, label)
    hold_off_removal(connection)
    values = {
        "model_id": sa.literal(model_id),
        "request_id": sa.literal(request_id),
        "row_number": sa.literal(row, sa.Integer),
        "label": sa.literal(label, feedback.c.label.type),
        "at": sa.func.now() if at is None else sa.literal(at, feedback.c.at.type),
    }
    living = sa.select(tenants.c.tenant_id, *values.values()).where(
        tenants.c.tenant_id == tenant_id, tenants.c.deleted_at.is_(None)
    )
    statement = insert(feedback).from_select(["tenant_id", *values], living)
    given = statement.excluded
    replacing = statement.on_conflict_do_update(
        constraint="pk_feedback", set_={"label": given.label, "at": given.at, "updated_at": sa.func.now()}
    )
    try:
        stored = connection.execute(replacing.returning(feedback.c.row_number)).first()
    except sa.exc.IntegrityError as error:
        if _MODELS_KEY not in str(error.orig):
            raise
        raise model_not_found(tenant_id, model_id) from error
    if stored is None:
        raise tenant_deleted(tenant_id)


def check_label(request_id: str, row: int, label: Label) -> None:
    """Refuse what can't be a label of a predicted row.

    Raises:
        InvalidRequestError: Names the field.
        RequestTooLargeError: The label is a longer text than ``MAX_LABEL_CHARACTERS``.
    """
    if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
        raise _invalid("request_id", "is not a request id", "Send the request_id of the answer.")
    if type(row) is not int or not 0 <= row <= MAX_ROW:
        raise _invalid("row", "is not a row of a request", "Send its number, from 0.")
    if isinstance(label, str):
        if len(label) > MAX_LABEL_CHARACTERS:
            raise RequestTooLargeError(
                f"The label has {len(label):,} characters; {MAX_LABEL_CHARACTERS:,} are allowed.",
                remedy="Send the class as the model answers it.",
                limit=MAX_LABEL_CHARACTERS,
                actual=len(label),
            )
        if not is_storable(label):
            raise _invalid("label", "holds characters that can't be stored", "Correct it.")
    elif not isinstance(label, bool | int | float) or (isinstance(label, float) and not math.isfinite(label)):
        raise _invalid("label", "is neither a text, a finite number, true nor false", "Send the true value.")
    elif isinstance(label, int) and not -(2**63) <= label < 2**63:
        raise _invalid("label", "is a number of more than 64 bits", "Send it as a text.")


def _invalid(field: str, what: str, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(f"Field {field!r} {what}.", remedy=remedy, field=field)
