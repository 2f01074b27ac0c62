"""Random moves against the real registry: it holds what the rules say, and never what the table forbids."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables.environments import CANARY_RULE, SHADOW_RULE
from ml_core.domain.assignment import PointerRef, Rollout
from ml_core.domain.rollout import TRANSITIONS, Change, RolloutState, Trigger, advance
from ml_core.exceptions import (
    InvalidRequestError,
    InvalidTransitionError,
    ModelNotFoundError,
    PromotionConflictError,
)
from ml_core.ids import VersionId
from ml_core.registry.feed import FeedReader
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.pointers import Pointer
from ml_core.registry.promotion.rollouts import RolloutRepository
from support.registry import TICKETS, new_tenant, register

VERSIONS = [VersionId(name) for name in ("1", "2", "3")]
REFUSALS = (InvalidTransitionError, InvalidRequestError, ModelNotFoundError)


class Moves(RuleBasedStateMachine):
    """One pointer, moved at random; beside it a plain model of what it should be."""

    db: DatabaseConnection

    def __init__(self) -> None:
        super().__init__()
        self.tenant = new_tenant(self.db)
        self.servable = {name: register(self.db, self.tenant, name).servable for name in VERSIONS}
        self.environments = EnvironmentRepository(self.db, self.tenant)
        self.rollouts = RolloutRepository(self.db, self.tenant)
        self.feed = FeedReader(self.db)
        self.ref = PointerRef(self.tenant, TICKETS, PRODUCTION)
        self.seen = self.feed.read(None).generation
        self.followed: Rollout | None = None
        self.state = RolloutState()
        self.moves: list[tuple[Trigger, RolloutState, int]] = []  # with the generation that each brought back

    @rule(data=st.data(), version=st.sampled_from(VERSIONS), percent=st.integers(1, 99))
    def move_as_allowed(self, data: st.DataObject, version: VersionId, percent: int) -> None:
        """A move that the phase allows, whatever may be wrong with its version."""
        allowed = [trigger for phase, trigger in TRANSITIONS if phase is self.state.phase]
        sticky = data.draw(st.sampled_from([None, "customer"]))
        self.move(data.draw(st.sampled_from(allowed)), version, percent, sticky, is_expecting=data.draw(st.booleans()))

    @rule(trigger=st.sampled_from(Trigger), version=st.sampled_from(VERSIONS), percent=st.sampled_from([-5, 0, 1, 100]))
    def move_anyhow(self, trigger: Trigger, version: VersionId, percent: int) -> None:
        """Any move."""
        self.move(trigger, version, percent, None, is_expecting=False)

    def move(
        self, trigger: Trigger, version: VersionId, percent: int, sticky: str | None, *, is_expecting: bool
    ) -> None:
        expected = len(self.moves) if is_expecting else None
        target: VersionId | None = version
        restored = len(self.moves) + 1
        if trigger is Trigger.ROLLBACK and (found := self.back()):
            _, state, restored = self.moves[found - 1]
            target = state.stable
        elif trigger is Trigger.ROLLBACK:
            restored = 0
        change = Change(trigger, target, percent, sticky)
        try:
            after = advance(self.state, change) if restored else None
        except (InvalidTransitionError, InvalidRequestError):
            after = None
        if after is None:
            with pytest.raises(REFUSALS):
                self.do(change, expected)
            return
        self.do(change, expected)
        self.state = after
        self.moves.append((trigger, after, restored))

    @rule(trigger=st.sampled_from(Trigger), version=st.sampled_from(VERSIONS), behind=st.integers(1, 3))
    def move_late(self, trigger: Trigger, version: VersionId, behind: int) -> None:
        """Somebody who saw another generation changes nothing, whatever he wants."""
        with pytest.raises((PromotionConflictError, *REFUSALS)):
            self.do(Change(trigger, version, 50), len(self.moves) + behind)

    def do(self, change: Change, expected: int | None) -> Pointer:
        version, percent = change.version or VERSIONS[0], change.percent or 0
        common: dict[str, Any] = {"expected_generation": expected}
        acting = {**common, "actor": "me"}
        match change.trigger:
            case Trigger.PROMOTE:
                return self.environments.promote(TICKETS, version, PRODUCTION, **acting)
            case Trigger.ROLLBACK:
                return self.environments.rollback(TICKETS, PRODUCTION, **acting)
            case Trigger.WITHDRAW:
                return self.environments.withdraw(TICKETS, PRODUCTION, **acting)
            case Trigger.START_CANARY:
                return self.rollouts.start(TICKETS, version, percent, sticky=change.sticky, **common)
            case Trigger.STEP:
                return self.rollouts.step(TICKETS, percent, **common)
            case Trigger.FINISH:
                return self.rollouts.finish(TICKETS, PRODUCTION, **common)
            case Trigger.ABORT:
                return self.rollouts.abort(TICKETS, PRODUCTION, **common)
            case Trigger.START_SHADOW:
                return self.rollouts.shadow(TICKETS, version, PRODUCTION, **common)
            case Trigger.STOP_SHADOW:
                return self.rollouts.unshadow(TICKETS, PRODUCTION, **common)

    def back(self) -> int:
        """The generation to whose state a rollback goes, 0 if there is none."""
        at = len(self.moves)
        while at:
            _, state, restored = self.moves[at - 1]
            if state.stable is not None and state.stable != self.state.stable:
                return at
            at = restored - 1
        return 0

    @invariant()
    def the_registry_holds_what_the_rules_say(self) -> None:
        """State, generation, and a history without a gap whose last row is the pointer."""
        if not self.moves:
            assert list(self.environments.list(TICKETS).items) == []
            return
        pointer = self.environments.get(TICKETS, PRODUCTION)
        history = self.environments.history(TICKETS, PRODUCTION).items
        assert (pointer.state, pointer.generation) == (self.state, len(self.moves))
        assert [entry.generation for entry in history] == list(range(len(self.moves), 0, -1))
        told = [(e.action, RolloutState(e.version, e.canary, e.shadow)) for e in reversed(history)]
        assert told == [(trigger, state) for trigger, state, _ in self.moves]

    @invariant()
    def the_table_forbids_nothing_of_it(self) -> None:
        """Asked of the row itself, by the table's own rules."""
        rule_of = f"SELECT bool_and(({CANARY_RULE}) AND ({SHADOW_RULE})) FROM mlcore.environments"
        with self.db.tenant(self.tenant) as connection:
            assert connection.scalar(sa.text(rule_of)) in (True, None)

    @invariant()
    def a_replica_that_follows_knows_it(self) -> None:
        """What the deltas brought is what should be served."""
        delta = self.feed.read(self.seen)
        assert not delta.is_snapshot
        self.followed, self.seen = delta.rollouts.get(self.ref, self.followed), delta.generation
        self.check(self.followed)

    def teardown(self) -> None:
        """And so does one that has just begun."""
        self.check(self.feed.read(None).rollouts.get(self.ref))

    def check(self, served: Rollout | None) -> None:
        if served is None:
            assert self.state == RolloutState()
            return
        canary, shadow = self.state.canary, self.state.shadow
        assert self.state.stable is not None
        assert (served.stable, served.generation) == (self.servable[self.state.stable], len(self.moves))
        assert served.shadow == (shadow and self.servable[shadow])
        assert (served.canary is None) == (canary is None)
        if canary and served.canary:
            told = served.canary
            assert (told.version, told.percent, told.sticky) == (
                self.servable[canary.version],
                canary.percent,
                canary.sticky,
            )


def test_no_sequence_of_moves_leaves_the_rules(db: DatabaseConnection) -> None:
    """Twenty sequences of up to twenty moves, some of them refused; other ones in each run."""
    Moves.db = db
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Moves,
        settings=settings(
            max_examples=20,
            stateful_step_count=20,
            deadline=dt.timedelta(seconds=20),
            phases=[Phase.generate],  # to shrink an example would replay it against Postgres for minutes
            suppress_health_check=[HealthCheck.too_slow],
            database=None,
        ),
    )
