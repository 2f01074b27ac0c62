"""Live quality and drift."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from ml_core.api.access import TenantAccess
from ml_core.api.operation import operations
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.quality import DriftReport, QualityReport
from ml_core.domain.api_key import Scope
from ml_core.domain.quality import MAX_DAYS
from ml_core.monitoring import Quality

router = operations("quality", "/tenants/{tenant}/models/{model}")

EnvironmentQuery = Annotated[str, Query(description="Whose requests.")]
DaysQuery = Annotated[int, Query(ge=1, le=MAX_DAYS, description="Whole days (UTC), the present one included.")]


@operation(router, "GET", "/quality", "quality.report", Scope.READ)
def report_quality(
    access: TenantAccess, model: str, environment: EnvironmentQuery = "production", days: DaysQuery = 7
) -> QualityReport:
    """Metrics per version and day from the labels that arrived, beside those of the held-out rows of training."""
    return QualityReport.model_validate(access.of(Quality).report(model, environment, days=days))


@operation(router, "GET", "/drift", "quality.drift", Scope.READ)
def report_drift(
    access: TenantAccess, model: str, environment: EnvironmentQuery = "production", days: DaysQuery = 7
) -> DriftReport:
    """The inputs and predictions of the stable version, compared with the profile of its training."""
    return DriftReport.model_validate(access.of(Quality).drift(model, environment, days=days))
