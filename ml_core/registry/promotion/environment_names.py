"""Which environments there are, so that a typo makes no other."""

from __future__ import annotations

from collections.abc import Sequence

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import ConfigurationError, InvalidNameError, InvalidRequestError
from ml_core.ids import EnvironmentName, TenantId
from ml_core.registry.missing import did_you_mean
from ml_core.settings import Settings

PRODUCTION = EnvironmentName("production")


def environments_of(settings: Settings) -> tuple[EnvironmentName, ...]:
    """The environments of an installation, in the order of its setting.

    Raises:
        ConfigurationError: A name is not valid, or the list is empty.
    """
    names = [name.strip() for name in settings.registry.environments.split(",") if name.strip()]
    try:
        found = tuple(EnvironmentName(name) for name in names)
    except InvalidNameError as error:
        raise ConfigurationError(
            f"MLCORE_ENVIRONMENTS={settings.registry.environments!r}: {error.message}",
            remedy=error.remedy,
            setting="MLCORE_ENVIRONMENTS",
        ) from error
    if not found:
        raise ConfigurationError(
            "MLCORE_ENVIRONMENTS names no environment.",
            remedy="Name at least one, or unset it.",
            setting="MLCORE_ENVIRONMENTS",
        )
    return found


def check_environment(
    db: DatabaseConnection,
    tenant_id: TenantId,
    environment: EnvironmentName,
    allowed: Sequence[EnvironmentName] | None = None,
) -> None:
    """Refuse an environment that does not exist.

    Args:
        db: Whose settings say which exist.
        tenant_id: For the error.
        environment: What a caller asks for.
        allowed: Those that exist, instead of the settings'.

    Raises:
        InvalidRequestError: Names those that exist, and the nearest.
    """
    known = environments_of(db.settings) if allowed is None else tuple(allowed)
    if environment in known:
        return
    raise InvalidRequestError(
        f"There is no environment {environment!s}.",
        remedy=f"{did_you_mean(environment, known)}Environments are: {', '.join(known)}.",
        tenant_id=tenant_id,
        field="environment",
    )
