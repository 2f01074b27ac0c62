"""Rollouts: what an environment serves, the moves that change it, and which side of a canary answers a request.

The stable version answers; a canary answers a share of the requests instead of it; a shadow predicts the same rows as
the stable version, and its answers are only counted. ``TRANSITIONS`` is the state machine. Nothing here does I/O.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ml_core.exceptions import InvalidRequestError, InvalidTransitionError, shown
from ml_core.ids import VersionId

MIN_PERCENT, MAX_PERCENT = 1, 99
"""The share of a canary: 0 percent would be no canary, and 100 percent is ``finish``."""
MAX_STICKY_CHARACTERS = 200
BUCKETS = 10_000
"""Number of buckets over which keys are spread: one percent is 100 buckets."""


class Phase(StrEnum):
    """Which of the stable version, the canary and the shadow an environment has."""

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


EVALUATED = frozenset({Trigger.PROMOTE, Trigger.START_CANARY, Trigger.FINISH})
"""The triggers that let a version answer (more) requests, so the environment's gates are evaluated first."""


class Side(StrEnum):
    """Which version answers a request."""

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
        """Which of the three it has."""
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
"""The phase after each move. A pair that is not listed is refused."""


def advance(state: RolloutState, change: Change) -> RolloutState:
    """What an environment serves after a move.

    Raises:
        InvalidTransitionError: The move is not possible in this phase; names both and the remedy.
        InvalidRequestError: The percent is not 1 to 99, the sticky column is not valid, or one version would be two of
            stable version, canary and shadow.
    """
    if (state.phase, change.trigger) not in TRANSITIONS:
        raise _refused(state, change.trigger)
    match change.trigger:
        case Trigger.PROMOTE | Trigger.ROLLBACK:
            return RolloutState(_named(change))
        case Trigger.WITHDRAW:
            return RolloutState()
        case Trigger.START_CANARY:
            version = _named(change)
            _refuse_second_part(version, stable=state.stable, shadow=state.shadow)
            canary = Canary(version, _checked_percent(change.percent), _checked_sticky(change.sticky))
            return dataclasses.replace(state, canary=canary)
        case Trigger.STEP:
            return dataclasses.replace(state, canary=_stepped(_canary(state), change.percent))
        case Trigger.FINISH:
            return RolloutState(_canary(state).version, None, state.shadow)
        case Trigger.ABORT:
            return dataclasses.replace(state, canary=None)
        case Trigger.START_SHADOW:
            version = _named(change)
            _refuse_second_part(version, stable=state.stable, canary=state.canary.version if state.canary else None)
            return dataclasses.replace(state, shadow=version)
        case Trigger.STOP_SHADOW:
            return dataclasses.replace(state, shadow=None)


def bucket(pointer: tuple[str, str, str], key: str) -> int:
    """The bucket of a key, 0 to 9,999: always the same for a pointer, and independent between pointers.

    Args:
        pointer: Tenant, model and environment; their grammars exclude the byte that separates them here.
        key: What requests have in common that must get the same version, such as a customer's number.
    """
    text = "\0".join((*pointer, key)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) % BUCKETS


def choose(pointer: tuple[str, str, str], percent: int, key: str) -> Side:
    """Which side answers a key. A key that the canary answers stays with it while the percent grows."""
    return Side.CANARY if bucket(pointer, key) * 100 < percent * BUCKETS else Side.STABLE


def _named(change: Change) -> VersionId:
    if change.version is None:
        raise InvalidRequestError(f"{change.trigger} needs a version.", remedy="Name one.", field="version")
    return change.version


def _canary(state: RolloutState) -> Canary:
    if state.canary is None:
        raise AssertionError("the table allows these triggers only while a canary runs")
    return state.canary


def _stepped(canary: Canary, percent: int | None) -> Canary:
    wanted = _checked_percent(percent)
    if wanted == canary.percent:
        raise InvalidRequestError(
            f"The canary, version {canary.version!s}, answers {wanted} percent already.",
            remedy="Give another percent; to serve it to everybody, finish the canary.",
            field="percent",
        )
    return dataclasses.replace(canary, percent=wanted)


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
            "The name of the sticky column is not valid.",
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


# While something is served, the remedy depends on the trigger alone.
_REMEDIES: Mapping[Trigger, str] = {
    **dict.fromkeys((Trigger.PROMOTE, Trigger.ROLLBACK, Trigger.START_CANARY), "Finish or abort the canary first."),
    **dict.fromkeys((Trigger.STEP, Trigger.FINISH, Trigger.ABORT), "Start a canary first."),
    Trigger.START_SHADOW: "Stop the shadow first.",
    Trigger.STOP_SHADOW: "Start a shadow first.",
}
# For triggers of a canary while only a shadow runs.
_REMEDIES_OF_A_SHADOW: Mapping[Trigger, str] = {
    Trigger.STEP: "A shadow answers no requests, so it has no share: stop it and start a canary of its version.",
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
