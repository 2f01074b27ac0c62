"""Rollouts: what an environment serves, the moves that change it, and which side of a canary answers a request.

The stable version answers; a canary answers a share of the requests instead of it; a shadow is asked what the stable
version is asked, and nobody gets its answers. ``TRANSITIONS`` says what may follow what. Nothing here does I/O.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ml_core.exceptions import InvalidRequestError, InvalidTransitionError, shown
from ml_core.ids import VersionId

MIN_PERCENT, MAX_PERCENT = 1, 99
"""Of a canary: 0 is no canary, and 100 is ``finish``."""
MAX_STICKY_CHARACTERS = 200
BUCKETS = 10_000
"""Keys are spread over so many buckets: a percent is 100 of them."""


class Phase(StrEnum):
    """Which of the three versions there are."""

    NOTHING = "nothing"
    STABLE = "stable"
    CANARY = "canary"
    SHADOW = "shadow"
    CANARY_AND_SHADOW = "canary_and_shadow"


class Trigger(StrEnum):
    """What moves a pointer; the action of its history row."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    WITHDRAW = "withdraw"
    START_CANARY = "start_canary"
    STEP = "step"
    FINISH = "finish"
    ABORT = "abort"
    START_SHADOW = "start_shadow"
    STOP_SHADOW = "stop_shadow"


class Side(StrEnum):
    """Who answers a request."""

    STABLE = "stable"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Canary:
    """A version on trial.

    Attributes:
        version: The version.
        percent: Of the keys that it answers, 1 to 99.
        sticky: The column whose value in the first row is a request's key where the request names none.
    """

    version: VersionId
    percent: int
    sticky: str | None = None


@dataclass(frozen=True, slots=True)
class RolloutState:
    """What an environment serves. Without a stable version there is neither a canary nor a shadow."""

    stable: VersionId | None = None
    canary: Canary | None = None
    shadow: VersionId | None = None

    @property
    def phase(self) -> Phase:
        """Which of the three there are."""
        if self.stable is None:
            return Phase.NOTHING
        if self.canary is None:
            return Phase.STABLE if self.shadow is None else Phase.SHADOW
        return Phase.CANARY if self.shadow is None else Phase.CANARY_AND_SHADOW


@dataclass(frozen=True, slots=True)
class Change:
    """A wanted move: its trigger, and what that trigger needs of ``version``, ``percent`` and ``sticky``."""

    trigger: Trigger
    version: VersionId | None = None
    percent: int | None = None
    sticky: str | None = None


TRANSITIONS: Mapping[tuple[Phase, Trigger], Phase] = {
    (Phase.NOTHING, Trigger.PROMOTE): Phase.STABLE,
    (Phase.NOTHING, Trigger.ROLLBACK): Phase.STABLE,
    (Phase.STABLE, Trigger.PROMOTE): Phase.STABLE,
    (Phase.STABLE, Trigger.ROLLBACK): Phase.STABLE,
    (Phase.STABLE, Trigger.WITHDRAW): Phase.NOTHING,
    (Phase.STABLE, Trigger.START_CANARY): Phase.CANARY,
    (Phase.STABLE, Trigger.START_SHADOW): Phase.SHADOW,
    (Phase.CANARY, Trigger.WITHDRAW): Phase.NOTHING,
    (Phase.CANARY, Trigger.STEP): Phase.CANARY,
    (Phase.CANARY, Trigger.FINISH): Phase.STABLE,
    (Phase.CANARY, Trigger.ABORT): Phase.STABLE,
    (Phase.CANARY, Trigger.START_SHADOW): Phase.CANARY_AND_SHADOW,
    (Phase.SHADOW, Trigger.PROMOTE): Phase.STABLE,
    (Phase.SHADOW, Trigger.ROLLBACK): Phase.STABLE,
    (Phase.SHADOW, Trigger.WITHDRAW): Phase.NOTHING,
    (Phase.SHADOW, Trigger.START_CANARY): Phase.CANARY_AND_SHADOW,
    (Phase.SHADOW, Trigger.STOP_SHADOW): Phase.STABLE,
    (Phase.CANARY_AND_SHADOW, Trigger.WITHDRAW): Phase.NOTHING,
    (Phase.CANARY_AND_SHADOW, Trigger.STEP): Phase.CANARY_AND_SHADOW,
    (Phase.CANARY_AND_SHADOW, Trigger.FINISH): Phase.SHADOW,
    (Phase.CANARY_AND_SHADOW, Trigger.ABORT): Phase.SHADOW,
    (Phase.CANARY_AND_SHADOW, Trigger.STOP_SHADOW): Phase.CANARY,
}
"""What a trigger makes of a phase. A pair that is not here is refused."""


def advance(state: RolloutState, change: Change) -> RolloutState:
    """What an environment serves after a move.

    Raises:
        InvalidTransitionError: The move can't be made in this phase; names both and says what to do first.
        InvalidRequestError: The percent is not one of 1 to 99, or a version would have two parts at once.
    """
    if (state.phase, change.trigger) not in TRANSITIONS:
        raise _refused(state, change.trigger)
    return _MOVES[change.trigger](state, change)


def bucket(pointer: tuple[str, str, str], key: str) -> int:
    """Where a key falls, 0 to 9,999: always the same for a pointer, and independent between pointers.

    Args:
        pointer: Tenant, model and environment; none of them can hold the byte that separates them here.
        key: Whatever a rollout keeps together, such as a customer's number.
    """
    text = "\0".join((*pointer, key)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) % BUCKETS


def choose(pointer: tuple[str, str, str], percent: int, key: str) -> Side:
    """Who answers a key. A key that the canary answers stays with it for as long as the percent only grows."""
    return Side.CANARY if bucket(pointer, key) * 100 < percent * BUCKETS else Side.STABLE


def _serve_alone(_: RolloutState, change: Change) -> RolloutState:
    return RolloutState(_named(change))


def _withdraw(_: RolloutState, __: Change) -> RolloutState:
    return RolloutState()


def _start_canary(state: RolloutState, change: Change) -> RolloutState:
    version = _named(change)
    _refuse_second_part(version, stable=state.stable, shadow=state.shadow)
    canary = Canary(version, _checked_percent(change.percent), _checked_sticky(change.sticky))
    return dataclasses.replace(state, canary=canary)


def _step(state: RolloutState, change: Change) -> RolloutState:
    present, percent = _canary(state), _checked_percent(change.percent)
    if percent == present.percent:
        raise InvalidRequestError(
            f"The canary, version {present.version!s}, answers {percent} percent already.",
            remedy="Give another percent; to serve it to everybody, finish the canary.",
            field="percent",
        )
    return dataclasses.replace(state, canary=dataclasses.replace(present, percent=percent))


def _finish(state: RolloutState, _: Change) -> RolloutState:
    return RolloutState(_canary(state).version, None, state.shadow)


def _abort(state: RolloutState, _: Change) -> RolloutState:
    return dataclasses.replace(state, canary=None)


def _start_shadow(state: RolloutState, change: Change) -> RolloutState:
    version = _named(change)
    _refuse_second_part(version, stable=state.stable, canary=state.canary.version if state.canary else None)
    return dataclasses.replace(state, shadow=version)


def _stop_shadow(state: RolloutState, _: Change) -> RolloutState:
    return dataclasses.replace(state, shadow=None)


_MOVES: Mapping[Trigger, Callable[[RolloutState, Change], RolloutState]] = {
    Trigger.PROMOTE: _serve_alone,
    Trigger.ROLLBACK: _serve_alone,
    Trigger.WITHDRAW: _withdraw,
    Trigger.START_CANARY: _start_canary,
    Trigger.STEP: _step,
    Trigger.FINISH: _finish,
    Trigger.ABORT: _abort,
    Trigger.START_SHADOW: _start_shadow,
    Trigger.STOP_SHADOW: _stop_shadow,
}


def _named(change: Change) -> VersionId:
    if change.version is None:
        raise InvalidRequestError(f"{change.trigger} needs a version.", remedy="Name one.", field="version")
    return change.version


def _canary(state: RolloutState) -> Canary:
    if state.canary is None:  # the table lets nobody come here
        raise _refused(state, Trigger.STEP)
    return state.canary


def _checked_percent(percent: int | None) -> int:
    if type(percent) is not int or not MIN_PERCENT <= percent <= MAX_PERCENT:
        raise InvalidRequestError(
            f"A canary can't answer {shown(percent)} percent of the requests.",
            remedy=f"Give a whole number from {MIN_PERCENT} to {MAX_PERCENT}; for all of them, finish the canary.",
            field="percent",
        )
    return percent


def _checked_sticky(sticky: str | None) -> str | None:
    if sticky is not None and not (0 < len(sticky) <= MAX_STICKY_CHARACTERS and sticky.isprintable()):
        raise InvalidRequestError(
            "The sticky column's name can't be one.",
            remedy=f"Give 1 to {MAX_STICKY_CHARACTERS} printable characters, or leave it out.",
            field="sticky",
        )
    return sticky


_PART_WORDS = {"stable": "stable version", "canary": "canary", "shadow": "shadow"}


def _refuse_second_part(version: VersionId, **parts: VersionId | None) -> None:
    for part, taken in parts.items():
        if version == taken:
            raise InvalidRequestError(
                f"Version {version!s} is the {_PART_WORDS[part]} already.",
                remedy="Stop the shadow first." if part == "shadow" else "Name another version.",
                field="version",
            )


# Where something is served, what a trigger lacks follows from the trigger alone.
_REMEDIES: Mapping[Trigger, str] = {
    **dict.fromkeys((Trigger.PROMOTE, Trigger.ROLLBACK, Trigger.START_CANARY), "Finish or abort the canary first."),
    **dict.fromkeys((Trigger.STEP, Trigger.FINISH, Trigger.ABORT), "Start a canary first."),
    Trigger.START_SHADOW: "Stop the shadow first.",
    Trigger.STOP_SHADOW: "Start a shadow first.",
}
# Who asks a shadow for what only a canary does.
_REMEDIES_OF_A_SHADOW: Mapping[Trigger, str] = {
    Trigger.STEP: "A shadow answers nobody, so it has no share: stop it and start a canary of its version.",
    Trigger.FINISH: "Promote the shadow's version: that ends the shadow.",
    Trigger.ABORT: "Stop the shadow.",
}
_WORDS: Mapping[Trigger, str] = {
    Trigger.START_CANARY: "starting a canary",
    Trigger.START_SHADOW: "starting a shadow",
    Trigger.STOP_SHADOW: "stopping the shadow",
}
_SERVED: Mapping[Phase, str] = {
    Phase.NOTHING: "nothing is served",
    Phase.STABLE: "only a stable version is served",
    Phase.CANARY: "a canary runs",
    Phase.SHADOW: "a shadow runs",
    Phase.CANARY_AND_SHADOW: "a canary and a shadow run",
}


def _refused(state: RolloutState, trigger: Trigger) -> InvalidTransitionError:
    phase = state.phase
    remedy = "Promote a version first." if phase is Phase.NOTHING else _REMEDIES.get(trigger)
    if phase is Phase.SHADOW:
        remedy = _REMEDIES_OF_A_SHADOW.get(trigger, remedy)
    return InvalidTransitionError(
        f"{_WORDS.get(trigger, trigger)} is not possible while {_SERVED[phase]}.",
        remedy=remedy,
        phase=phase,
        trigger=trigger,
    )
