"""A verdict: what all the gates of an environment found about a version, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ml_core.domain.api_key import Scope
from ml_core.domain.gate_outcomes import Outcome
from ml_core.domain.principal import Principal
from ml_core.exceptions import InvalidRequestError, PermissionDeniedError, PromotionRefusedError
from ml_core.ids import VersionId
from ml_core.registry.promotion.gates.rules import Rules


@dataclass(frozen=True, slots=True)
class Verdict:
    """What each gate found.

    Attributes:
        rules: The gates that were asked, and where the pointer stood.
        version: The version that was judged.
        principal: On whose behalf.
        outcomes: One a gate, in the gates' order: all are judged, whatever the first says.
    """

    rules: Rules
    version: VersionId
    principal: Principal
    outcomes: tuple[Outcome, ...]

    @property
    def generation(self) -> int:
        """Where the pointer stood when the gates were judged; 0 if there was none. Move it from there only."""
        return self.rules.generation

    @property
    def passed(self) -> bool:
        """Whether no gate refuses."""
        return all(outcome.passed for outcome in self.outcomes)

    def to_json(self) -> list[dict[str, Any]]:
        """The outcomes, as histories and errors carry them."""
        return [outcome.to_json() for outcome in self.outcomes]

    def enforce(self, override: str | None = None) -> str | None:
        """Let the version pass, or refuse it.

        Args:
            override: Why it may pass although a gate refuses; None for no override.

        Returns:
            The override's reason if it was needed, for the history; else None.

        Raises:
            PromotionRefusedError: A gate refuses, and there is no override. Names each such gate and by how much.
            PermissionDeniedError: The override is needed, and the principal has no ``admin`` scope.
            InvalidRequestError: The override gives no reason.
        """
        check_override(override)
        if self.passed:
            return None
        if override is None:
            raise self._refusal()
        if not self.principal.allows(Scope.ADMIN):
            raise PermissionDeniedError(
                f"{self.principal.name} may not override a gate: it lacks the scope {Scope.ADMIN.value!r}. "
                + self._refusal().message,
                remedy="Ask an admin, or promote a version that passes.",
                tenant_id=self.rules.tenant_id,
                scope=Scope.ADMIN.value,
            )
        return override.strip()

    def _refusal(self) -> PromotionRefusedError:
        failed = [outcome.message for outcome in self.outcomes if not outcome.passed]
        rules = self.rules
        return PromotionRefusedError(
            f"Version {self.version!s} of {rules.model_id!s} may not go to {rules.environment!s}: {'; '.join(failed)}.",
            remedy="Promote a version that passes, or let an admin override the gate with a reason.",
            tenant_id=rules.tenant_id,
            model_id=rules.model_id,
            version=self.version,
            environment=rules.environment,
            gates=self.to_json(),
            details={"refused_by": [str(outcome.name) for outcome in self.outcomes if not outcome.passed]},
        )


def check_override(override: str | None) -> None:
    """Refuse an override without a reason.

    Raises:
        InvalidRequestError: It is blank.
    """
    if override is not None and not override.strip():
        raise InvalidRequestError(
            "An override needs a reason.", remedy="Say why the gates do not count this time.", field="override"
        )
