"""Signatures as JSON."""

import json

from ml_core.domain.columns import ColumnKind, DateOrder
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature

SIGNATURE = Signature(
    (
        InputColumn("when", ColumnKind.DATETIME, nullable=True, date_order=DateOrder.DAY_FIRST),
        InputColumn("country", ColumnKind.CATEGORY, nullable=False, categories=("NA", "DE")),
    ),
    Output(OutputKind.CLASSES, ("no", "yes")),
)


def test_a_signature_survives_json():
    """With the order of its dates."""
    assert Signature.from_json(json.loads(json.dumps(SIGNATURE.to_json()))) == SIGNATURE


def test_a_signature_from_before_there_were_orders_is_read():
    """It has none."""
    data = SIGNATURE.to_json()
    del data["inputs"][0]["date_order"]
    assert Signature.from_json(data).inputs[0].date_order is None


def test_a_column_without_an_order_is_described_as_before():
    """So the signatures of versions that need none stay the same."""
    assert SIGNATURE.to_json()["inputs"][1] == {
        "name": "country",
        "kind": "category",
        "nullable": False,
        "categories": ["NA", "DE"],
    }
