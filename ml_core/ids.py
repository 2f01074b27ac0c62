"""Names of tenants, models, versions and other nouns.

Each class is a ``str`` with a grammar; construction parses the text. Paths, routes and labels are derived from parsed
names only, so code that receives a ``TenantId`` does not check it again.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from ml_core.exceptions import InvalidNameError, shown


class Name(str):
    """A string with a grammar; construction parses it."""

    __slots__ = ()
    kind: ClassVar[str]
    pattern: ClassVar[re.Pattern[str]]
    rule: ClassVar[str]

    def __new__(cls, text: str) -> Self:
        """Parse a text.

        Raises:
            InvalidNameError: It is not such a name.
        """
        if not isinstance(text, str):
            raise InvalidNameError(
                f"{shown(text, 60)} is not a valid {cls.kind} name: its type is {type(text).__name__}.",
                remedy=f'Write it as a string, in quotes: "{shown(text, 60)}".',
                kind=cls.kind,
                value=shown(text, 100),
            )
        if not cls.pattern.fullmatch(text):
            is_long = len(text) > 60
            raise InvalidNameError(
                f"{shown(text, 60)}{f' ({len(text)} characters)' if is_long else ''} is not a valid {cls.kind} name.",
                remedy=f"Use {cls.rule}.",
                kind=cls.kind,
                value=str(text)[:100],
            )
        return super().__new__(cls, text)


class _Made(Name):
    """A name that the platform makes: its kind and 16 random hexadecimal digits."""

    __slots__ = ()

    @classmethod
    def new(cls) -> Self:
        """A name that nothing has."""
        return cls(f"{cls.kind}_{secrets.token_hex(8)}")


class TenantId(Name):
    """A tenant: 1 to 40 of ``a-z 0-9 - _``, beginning with a letter."""

    __slots__ = ()
    kind = "tenant"
    pattern = re.compile(r"[a-z][a-z0-9_-]{0,39}")
    rule = "1 to 40 of a-z, 0-9, '-' and '_', beginning with a letter, such as 'acme'"


class ModelId(Name):
    """A model of a tenant: 1 to 80 of ``a-z 0-9 - _``, beginning with a letter."""

    __slots__ = ()
    kind = "model"
    pattern = re.compile(r"[a-z][a-z0-9_-]{0,79}")
    rule = "1 to 80 of a-z, 0-9, '-' and '_', beginning with a letter, such as 'ticket_classifier'"


class VersionId(Name):
    """A version of a model: 1 to 64 of letters, digits and ``. _ + -``, beginning with a letter or digit."""

    __slots__ = ()
    kind = "version"
    pattern = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
    rule = "1 to 64 of letters, digits, '.', '_', '+' and '-', beginning with a letter or digit, such as '1.0.0'"


class EnvironmentName(Name):
    """An environment: 1 to 40 of ``a-z 0-9 - _``, beginning with a letter."""

    __slots__ = ()
    kind = "environment"
    pattern = re.compile(r"[a-z][a-z0-9_-]{0,39}")
    rule = "1 to 40 of a-z, 0-9, '-' and '_', beginning with a letter, such as 'production'"


class GateName(Name):
    """A gate of an environment: 1 to 40 of ``a-z 0-9 - _``, beginning with a letter."""

    __slots__ = ()
    kind = "gate"
    pattern = re.compile(r"[a-z][a-z0-9_-]{0,39}")
    rule = "1 to 40 of a-z, 0-9, '-' and '_', beginning with a letter, such as 'quality'"


class DatasetId(Name):
    """A dataset of a tenant: 1 to 80 of ``a-z 0-9 - _``, beginning with a letter."""

    __slots__ = ()
    kind = "dataset"
    pattern = re.compile(r"[a-z][a-z0-9_-]{0,79}")
    rule = "1 to 80 of a-z, 0-9, '-' and '_', beginning with a letter, such as 'tickets_2026'"


class HoldName(Name):
    """A hold on a version: 1 to 40 of ``a-z 0-9 - _``, beginning with a letter."""

    __slots__ = ()
    kind = "hold"
    pattern = re.compile(r"[a-z][a-z0-9_-]{0,39}")
    rule = "1 to 40 of a-z, 0-9, '-' and '_', beginning with a letter, such as 'legal'"


class RunId(_Made):
    """A run of a tenant: ``run_`` and 16 lower-case hexadecimal digits."""

    __slots__ = ()
    kind = "run"
    pattern = re.compile(r"run_[0-9a-f]{16}")
    rule = "'run_' and 16 lower-case hexadecimal digits, such as 'run_0123456789abcdef'"


class JobId(_Made):
    """A job of a tenant: ``job_`` and 16 lower-case hexadecimal digits."""

    __slots__ = ()
    kind = "job"
    pattern = re.compile(r"job_[0-9a-f]{16}")
    rule = "'job_' and 16 lower-case hexadecimal digits, such as 'job_0123456789abcdef'"


class BatchId(_Made):
    """A batch of jobs of several tenants: ``batch_`` and 16 lower-case hexadecimal digits."""

    __slots__ = ()
    kind = "batch"
    pattern = re.compile(r"batch_[0-9a-f]{16}")
    rule = "'batch_' and 16 lower-case hexadecimal digits, such as 'batch_0123456789abcdef'"


class ScheduleName(Name):
    """A schedule of a tenant: 1 to 40 of ``a-z 0-9 - _``, beginning with a letter."""

    __slots__ = ()
    kind = "schedule"
    pattern = re.compile(r"[a-z][a-z0-9_-]{0,39}")
    rule = "1 to 40 of a-z, 0-9, '-' and '_', beginning with a letter, such as 'nightly'"


class Digest(Name):
    """The sha256 of an artifact: 64 lower-case hexadecimal digits."""

    __slots__ = ()
    kind = "digest"
    pattern = re.compile(r"[0-9a-f]{64}")
    rule = "64 lower-case hexadecimal digits"


@dataclass(frozen=True, slots=True, order=True)
class ModelRef:
    """A model of a tenant."""

    tenant_id: TenantId
    model_id: ModelId

    def __str__(self) -> str:
        return f"{self.tenant_id}/{self.model_id}"

    @property
    def route(self) -> str:
        """The path of the model at the ingress."""
        return f"/t/{self.tenant_id}/models/{self.model_id}"


@dataclass(frozen=True, slots=True, order=True)
class VersionRef:
    """A version of a tenant's model."""

    tenant_id: TenantId
    model_id: ModelId
    version: VersionId

    def __str__(self) -> str:
        return f"{self.tenant_id}/{self.model_id}@{self.version}"

    @property
    def model(self) -> ModelRef:
        """The model."""
        return ModelRef(self.tenant_id, self.model_id)

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of an error about the version."""
        return {"tenant_id": self.tenant_id, "model_id": self.model_id, "version": self.version}
