"""MLflow's model registry, populated and measured; ``registry.py`` runs this with an interpreter that has MLflow.

    python registry_mlflow.py URL MODELS VERSIONS

Uses MLflow's ``SqlAlchemyStore`` as its tracking server does, with its tables and defaults. MLflow has no tenants: each
tenant is one registered model. After populating, it prints its versions; then, for each line on standard input with an
operation, a seed and a number of calls, it prints the measurement. All output is JSON.
"""

from __future__ import annotations

import json
import platform
import random
import sys

import mlflow
import psycopg2
import sqlalchemy
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.search_utils import SearchUtils
from timing import Operation

PAGE = 50
ALIAS = "production"
_SLOW_CALLS = 20
_TAGS = ("algorithm", "C", "accuracy", "f1", "dataset_digest")


def populate(store: SqlAlchemyStore, models: int, versions: int) -> None:
    """Fill MLflow's tables, and run ANALYZE."""
    of = {"models": models, "versions": versions}
    # The first version of each model is written before any second version, as in ``populate.py``.
    numbered = "generate_series(1, :versions) v CROSS JOIN LATERAL generate_series(0, :models - 1 + 0 * v) n"
    name = "'t' || lpad(n::text, 4, '0')"
    statements = (
        f"INSERT INTO registered_models (name, creation_time, last_updated_time) SELECT {name}, 1, 1"
        " FROM generate_series(0, :models - 1) n",
        "INSERT INTO model_versions (name, version, creation_time, last_updated_time, user_id, current_stage, source,"
        " run_id, status)"
        f" SELECT {name}, v, v, v, 'trainer@example.com', 'None', 'mlflow-artifacts:/1/m-' || md5(n || '/' || v),"
        f" md5(v || '/' || n), 'READY' FROM {numbered}",
        "INSERT INTO model_version_tags (name, version, key, value) SELECT"
        f" {name}, v, key, md5(key || v) FROM {numbered} CROSS JOIN unnest(CAST(:tags AS text[])) key",
        f"INSERT INTO registered_model_aliases (name, alias, version) SELECT {name}, alias, :versions"
        " FROM generate_series(0, :models - 1) n CROSS JOIN unnest(ARRAY['staging', 'production']) alias",
    )
    with store.engine.begin() as connection:
        for statement in statements:
            used = {key: value for key, value in {**of, "tags": list(_TAGS)}.items() if f":{key}" in statement}
            connection.execute(sqlalchemy.text(statement), used)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sqlalchemy.text("VACUUM ANALYZE"))


class Registry:
    """The operations, each on random models.

    Args:
        store: MLflow's store.
        models: How many there are.
        versions: How many each has.
        keys: Where they come from.
    """

    def __init__(self, store: SqlAlchemyStore, models: int, versions: int, keys: random.Random) -> None:
        self._store, self._models, self._versions, self._keys = store, models, versions, keys

    def operations(self) -> dict[str, Operation]:
        """What is measured, by the names of ``registry.py``."""
        return {
            "get": Operation(self._key, lambda key: self._store.get_model_version(*key)),
            "list page": Operation(self._key, lambda key: self._page(key[0])),
            "list next page": Operation(self._second, lambda second: self._page(*second)),
            "list models page": Operation(self._offset, self._models_page),
            "promote": Operation(self._key, lambda key: self._store.set_registered_model_alias(key[0], ALIAS, key[1])),
            "assignment delta": Operation(self._promote, lambda _: self._aliases(), calls=_SLOW_CALLS),
            "assignment snapshot": Operation(lambda: None, lambda _: self._aliases(), calls=_SLOW_CALLS),
        }

    def _key(self) -> tuple[str, str]:
        number = self._keys.randrange(self._models)
        return f"t{number:04}", str(self._keys.randint(1, self._versions))

    def _page(self, name: str, token: str | None = None) -> object:
        return self._store.search_model_versions(
            f"name = '{name}'", max_results=PAGE, order_by=["version_number DESC"], page_token=token
        )

    def _second(self) -> tuple[str, str]:
        return self._key()[0], SearchUtils.create_page_token(PAGE)

    def _offset(self) -> str:
        return SearchUtils.create_page_token(self._keys.randint(1, max(1, self._models - PAGE)))

    def _models_page(self, token: str) -> object:
        return self._store.search_registered_models(max_results=PAGE, page_token=token)

    def _promote(self) -> None:
        name, version = self._key()
        self._store.set_registered_model_alias(name, ALIAS, version)

    def _aliases(self) -> dict[tuple[str, str], str]:
        """Read all aliases, in the largest permitted pages: MLflow has no call for changes."""
        found, token = {}, None
        while True:
            page = self._store.search_registered_models(max_results=1000, page_token=token)
            found.update({(model.name, alias): version for model in page for alias, version in model.aliases.items()})
            token = page.token
            if not token:
                return found


def main() -> None:
    """Populate, then measure the requested operations."""
    url, models, versions = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    store, keys = SqlAlchemyStore(url), random.Random()
    populate(store, models, versions)
    operations = Registry(store, models, versions, keys).operations()
    about = {"mlflow": mlflow.__version__, "sqlalchemy": sqlalchemy.__version__, "psycopg2": psycopg2.__version__}
    print(json.dumps({**about, "python": platform.python_version()}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        keys.seed(asked["seed"])
        print(json.dumps(operations[asked["operation"]].measure(asked["calls"])), flush=True)


if __name__ == "__main__":
    main()
