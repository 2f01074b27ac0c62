"""The gate: a bound for all, and one for each tenant."""

from __future__ import annotations

import pytest

from ml_core.exceptions import QueueFullError
from ml_core.inference.gate import TenantGate


def test_one_tenant_can_not_take_every_place():
    """It is refused at its own bound, with a pause to wait; another is let in."""
    gate = TenantGate("requests", total=4, per_tenant=2)
    gate.enter("acme")
    gate.enter("acme")
    with pytest.raises(QueueFullError, match="The tenant has 2 requests") as caught:
        gate.enter("acme")
    assert (caught.value.retry_after_s, caught.value.tenant_id) == (1, "acme")
    gate.enter("globex")
    assert len(gate) == 3


def test_all_together_are_bounded():
    """A tenant that has nothing going on is refused when the others have taken all; the message names no number."""
    gate = TenantGate("requests", total=2, per_tenant=1)
    gate.enter("acme")
    gate.enter("globex")
    with pytest.raises(QueueFullError, match="reached its limit of requests"):
        gate.enter("initech")


def test_who_leaves_makes_room():
    """And a tenant that has nothing going on is not remembered."""
    gate = TenantGate("requests", total=1, per_tenant=1)
    gate.enter("acme")
    gate.leave("acme")
    assert (len(gate), gate._by_tenant) == (0, {})
    gate.enter("globex")
