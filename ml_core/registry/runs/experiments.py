"""``ExperimentRepository``: the runs of each model as an experiment, under a name that may be any text.

An experiment that nobody named has no row: it is there as soon as its model has a run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.engine import Connection

from ml_core.database.strict_json import is_storable
from ml_core.database.tables import experiments, runs, tenants
from ml_core.domain.comparison import Comparison, FieldKind
from ml_core.domain.experiment import Experiment
from ml_core.exceptions import ExperimentExistsError, ExperimentNotFoundError, InvalidRequestError, shown
from ml_core.ids import ModelId, TenantId
from ml_core.registry import journal
from ml_core.registry.limits import check_document, check_filters, check_tags
from ml_core.registry.pages import Page, read_page
from ml_core.registry.records import OfTenant, value_of
from ml_core.registry.runs.comparing import compared

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

DEFAULT: Final = ModelId("default")
"""The experiment of runs that name none, which is always there."""
_DEFAULT_NAME: Final = "Default"
_MAX_NAME: Final = 500
_TRIES: Final = 3
"""Attempts to create one. The second fails only if another with the same letters, and the third only if another of the
same digest is created at the same moment."""
_LETTERS: Final = 80 - 9
"""Of a model's name that is derived: the rest is for a digest, where the name is taken."""


class ExperimentRepository(OfTenant):
    """The experiments of one tenant."""

    def create(self, name: str, tags: Mapping[str, str] | None = None) -> Experiment:
        """Create an experiment. Its model's name is derived from its own.

        Raises:
            ExperimentExistsError: The name is in use.
            InvalidRequestError: The name or a tag can't be stored.
            RequestTooLargeError: The tags are too large.
        """
        kept = check_document(check_tags(tags or {})[0], "tags")
        with journal.writing(self._db, self._tenant_id) as connection:
            for attempt in range(_TRIES):
                if self._named(connection, check_name(name)) is not None:
                    raise self._exists(name)
                model_id = self._derive(connection, name, attempt)
                row = {"tenant_id": self._tenant_id, "model_id": model_id, "name": name, "tags": kept}
                adding = insert(experiments).values(row).on_conflict_do_nothing().returning(experiments.c.name)
                if connection.scalar(adding) is not None:
                    break
            else:
                raise self._exists(name)
            self._record(connection, "experiment.created", model_id, {"name": name})
            return self._get(connection, model_id)

    def get(self, model_id: str) -> Experiment:
        """The experiment of a model, archived or not."""
        with self._db.tenant(self._tenant_id) as connection:
            return self._get(connection, model_id)

    def named(self, name: str) -> Experiment:
        """The experiment of a name, archived or not."""
        with self._db.tenant(self._tenant_id) as connection:
            found = self._named(connection, name)
        if found is None:
            raise self._not_found(name)
        return found

    def list(
        self,
        *,
        is_archived: bool | None = False,
        conditions: Sequence[Comparison] = (),
        sort: str = "created_at",
        is_descending: bool = True,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> Page[Experiment]:
        """A page of the experiments.

        Args:
            is_archived: None: whether they are archived or not.
            conditions: On tags, and on the attributes ``name``, ``created_at``, ``updated_at`` and ``model_id``.
            sort: One of these attributes.
            is_descending: Whether the order is reversed.
            limit: 1 to 1,000.
            cursor: ``next_cursor`` of the page before.

        Raises:
            InvalidRequestError: The limit, the cursor, the order or a condition can't be used.
        """
        check_filters(conditions)
        all_of = _all(self._tenant_id)
        statement = sa.select(all_of)
        if is_archived is not None:
            statement = statement.where(all_of.c.archived_at.is_not(None) == is_archived)
        for of in conditions:
            is_tag = of.field.kind is FieldKind.TAG
            column = all_of.c.tags[of.field.name].as_string() if is_tag else _attribute(all_of, of.field.name)
            statement = statement.where(compared(column, of))
        order = [_attribute(all_of, sort), all_of.c.model_id]
        with self._db.tenant(self._tenant_id) as connection:
            page = read_page(
                connection,
                statement,
                order[: 1 if sort == "model_id" else 2],
                limit=limit,
                cursor=cursor,
                descending=is_descending,
                sorting=f"{sort} {is_descending}",
            )
        return page.map(lambda row: value_of(Experiment, row))

    def rename(self, model_id: str, name: str) -> None:
        """Give an experiment another name.

        Raises:
            ExperimentExistsError: The name is in use.
            InvalidRequestError: The name can't be stored.
        """
        check_name(name)
        with journal.writing(self._db, self._tenant_id) as connection:
            if self._get(connection, model_id).name == name:
                return
            if self._named(connection, name) is not None:
                raise self._exists(name)
            try:
                self._change(connection, model_id, name=name)
            except sa.exc.IntegrityError as error:  # somebody else was faster
                raise self._exists(name) from error

    def tag(self, model_id: str, tags: Mapping[str, str | None]) -> None:
        """Set tags; None removes one.

        Raises:
            InvalidRequestError: A key or value can't be stored.
            RequestTooLargeError: The tags are too large.
        """
        kept, removed = check_tags(tags)
        with journal.writing(self._db, self._tenant_id) as connection:
            changed = {**self._get(connection, model_id, is_locked=True).tags, **kept}
            for key in removed:
                changed.pop(key, None)
            self._change(connection, model_id, tags=check_document(changed, "tags"))

    def archive(self, model_id: str) -> None:
        """Hide an experiment, and refuse runs that a tracking client starts in it. Its runs stay as they are."""
        with journal.writing(self._db, self._tenant_id) as connection:
            self._change(connection, model_id, archived_at=sa.func.now())

    def restore(self, model_id: str) -> None:
        """Show an experiment again."""
        with journal.writing(self._db, self._tenant_id) as connection:
            self._change(connection, model_id, archived_at=None)

    def _change(self, connection: Connection, model_id: str, **values: Any) -> None:
        found = self._get(connection, model_id, is_locked=True)
        changed = experiments.update().filter_by(tenant_id=self._tenant_id, model_id=found.model_id)
        connection.execute(changed.values(updated_at=sa.func.now(), **values))
        said = {name: value for name, value in values.items() if name != "archived_at"}
        if "archived_at" in values:
            said["archived"] = values["archived_at"] is not None
        self._record(connection, "experiment.changed", found.model_id, said)

    def _get(self, connection: Connection, model_id: str, *, is_locked: bool = False) -> Experiment:
        """The experiment; locked, it gets a row if it has none."""
        found = self._row(connection, model_id)
        if found is None:
            raise self._not_found(model_id)
        if is_locked:
            row = {"tenant_id": self._tenant_id, "model_id": found.model_id, "name": found.name}
            connection.execute(insert(experiments).values(row).on_conflict_do_nothing())
            own = sa.select(experiments).filter_by(tenant_id=self._tenant_id, model_id=found.model_id)
            found = connection.execute(own.with_for_update()).one()
        return value_of(Experiment, found)

    def _named(self, connection: Connection, name: str) -> Experiment | None:
        own = sa.select(experiments.c.model_id).filter_by(tenant_id=self._tenant_id, name=name)
        # One without a name of its own has that of its model.
        model_id = connection.scalar(own) or (DEFAULT if name == _DEFAULT_NAME else name)
        row = self._row(connection, model_id)
        return None if row is None or row.name != name else value_of(Experiment, row)

    def _row(self, connection: Connection, model_id: str) -> AnyRow | None:
        return connection.execute(sa.select(_all(self._tenant_id, str(model_id)))).one_or_none()

    def _derive(self, connection: Connection, name: str, attempt: int) -> ModelId:
        """The name of the model: the experiment's in the letters of models, with a digest if another has that.

        Each attempt has another digest: the experiment that had it may have been renamed.
        """
        letters = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")
        letters = re.sub(r"^(?![a-z])", "x-", letters)[:_LETTERS].rstrip("-")
        is_taken = self._row(connection, letters) is not None
        digest = hashlib.sha256(f"{name}\0{attempt}".encode()).hexdigest()[:8]
        return ModelId(f"{letters}-{digest}" if is_taken else letters)

    def _record(self, connection: Connection, action: str, model_id: str, details: Mapping[str, Any]) -> None:
        journal.record(connection, self._tenant_id, action, {"model_id": str(model_id)}, details)

    def _exists(self, name: str) -> ExperimentExistsError:
        return ExperimentExistsError(
            f"There is an experiment {shown(name)} already.",
            remedy="Use it, or choose another name; an archived one can be restored.",
            tenant_id=self._tenant_id,
            experiment=name,
        )

    def _not_found(self, name: str) -> ExperimentNotFoundError:
        return ExperimentNotFoundError(
            f"There is no experiment {shown(name)}.",
            remedy="Create it, or search the experiments.",
            tenant_id=self._tenant_id,
            experiment=str(name)[:_MAX_NAME],
        )


def _all(tenant_id: TenantId, model_id: str | None = None) -> sa.Subquery:
    """The tenant's experiments: those with a row, those of models that have runs, and the default one; or only one."""
    started = sa.select(runs.c.model_id, runs.c.started_at).where(runs.c.tenant_id == tenant_id)
    always = sa.select(sa.literal(str(DEFAULT), sa.Text), sa.null().cast(sa.TIMESTAMP(timezone=True)))
    named = sa.select(experiments).where(experiments.c.tenant_id == tenant_id)
    if model_id is not None:
        started, named = started.where(runs.c.model_id == model_id), named.where(experiments.c.model_id == model_id)
        always = always.where(sa.literal(model_id == DEFAULT))
    run = sa.union_all(started, always).subquery()
    group = sa.select(
        run.c.model_id, sa.func.min(run.c.started_at).label("first"), sa.func.max(run.c.started_at).label("last")
    )
    of_runs = group.group_by(run.c.model_id).subquery()
    own = named.subquery()
    model = sa.func.coalesce(own.c.model_id, of_runs.c.model_id)
    tenant_since = sa.select(tenants.c.created_at).where(tenants.c.tenant_id == tenant_id).scalar_subquery()
    created_at = sa.func.coalesce(own.c.created_at, of_runs.c.first, tenant_since)
    return (
        sa.select(
            model.label("model_id"),
            sa.func.coalesce(own.c.name, sa.case((model == DEFAULT, _DEFAULT_NAME), else_=model)).label("name"),
            sa.func.coalesce(own.c.tags, sa.text("'{}'::jsonb"), type_=JSONB).label("tags"),
            created_at.label("created_at"),
            sa.func.greatest(own.c.updated_at, of_runs.c.last, created_at).label("updated_at"),
            own.c.archived_at,
        )
        .select_from(own.outerjoin(of_runs, own.c.model_id == of_runs.c.model_id, full=True))
        .subquery()
    )


def _attribute(all_of: sa.Subquery, name: str) -> sa.ColumnElement[Any]:
    known = ("name", "created_at", "updated_at", "model_id")
    if name not in known:
        raise InvalidRequestError(
            f"Experiments have no attribute {shown(name, 60)} to search by.",
            remedy=f"Use one of {', '.join(known)}, or a tag.",
            field="attribute",
        )
    return all_of.c[name]


def check_name(name: str) -> str:
    """An experiment's name.

    Raises:
        InvalidRequestError: The name is not valid.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= _MAX_NAME or not name.strip() or not is_storable(name):
        raise InvalidRequestError(
            f"{shown(name, 60)} can't be the name of an experiment.",
            remedy=f"Use a text of 1 to {_MAX_NAME} characters.",
            field="name",
        )
    return name
