"""Datasets from queries: the caller's database is read, never changed, and its words reach the caller."""

import sqlite3
from dataclasses import replace
from decimal import Decimal

import psycopg
import pytest

from ml_core.exceptions import DataProcessingError, RequestTooLargeError
from ml_core.models.store import LocalStore
from ml_core.registry.datasets import DatasetRepository, sql


@pytest.fixture
def datasets(db, tenant_id, tmp_path):
    return DatasetRepository(db, tenant_id, LocalStore(tmp_path / "store"))


@pytest.fixture
def sqlite(tmp_path):
    """A SQLite file with a table of three rows."""
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE orders (id INTEGER, city TEXT, price REAL)")
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", [(1, "Bern", 1.5), (2, None, None), (3, "NA", 2)])
    connection.close()
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
def postgres(db):
    """A Postgres that holds somebody's tables: the embedded one, as its superuser."""
    url = db.urls.owner.replace("mlcore_owner@", "postgres@")
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE SCHEMA IF NOT EXISTS shop")
        session.execute("CREATE TABLE IF NOT EXISTS shop.orders (id int)")
    return url


def test_the_rows_of_a_query_are_a_dataset(datasets, sqlite):
    """Names, values and missing values; query and URL are recorded."""
    made = datasets.from_sql("orders", "SELECT id, city, price FROM orders ORDER BY id", sqlite)
    assert made.columns == (("id", "int64"), ("city", "string"), ("price", "double"))
    assert datasets.read("orders")["city"].tolist()[::2] == ["Bern", "NA"]
    assert made.source == {"kind": "sql", "query": "SELECT id, city, price FROM orders ORDER BY id", "url": sqlite}


def test_parameters_are_bound(datasets, sqlite):
    """And recorded; never pasted into the query."""
    query = "SELECT id FROM orders WHERE city = :city"
    made = datasets.from_sql("orders", query, sqlite, {"city": "Bern"})
    assert made.row_count == 1
    assert made.source["params"] == {"city": "Bern"}
    with pytest.raises(DataProcessingError, match="no row"):
        datasets.from_sql("orders", query, sqlite, {"city": "Bern' OR '1'='1"})


def test_every_type_of_postgres_that_a_dataset_holds(datasets, postgres):
    """Exact numbers stay exact; what has no values at first gets its type from later rows."""
    query = """
        SELECT i, i::numeric / 4 AS quarter, i * 0.5::float8 AS half, i % 2 = 0 AS even, 'it is ' || i || '%' AS words,
               '2026-01-01'::date + i AS day, '2026-01-01 00:00+02'::timestamptz AS moment,
               '00000000-0000-0000-0000-000000000001'::uuid AS code, CASE WHEN i > 60000 THEN i END AS late
        FROM generate_series(1, 70000) i ORDER BY i"""
    made = datasets.from_sql("types", query, postgres)
    assert made.row_count == 70_000
    assert dict(made.columns)["quarter"].startswith("decimal128(")
    assert {name: kind for name, kind in made.columns if name != "quarter"} == {
        "i": "int64",
        "half": "double",
        "even": "bool",
        "words": "string",
        "day": "date32[day]",
        "moment": "timestamp[us, tz=UTC]",
        "code": "string",
        "late": "int64",
    }
    last = datasets.read("types").iloc[-1]
    assert (last["late"], last["words"], last["quarter"]) == (70_000, "it is 70000%", Decimal(17_500))


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO shop.orders VALUES (1) RETURNING id",
        "DELETE FROM shop.orders",
        "WITH gone AS (DELETE FROM shop.orders RETURNING id) SELECT * FROM gone",
        "SELECT setval('shop.counter', 7)",
        "DROP TABLE shop.orders",
    ],
)
def test_postgres_is_not_changed(datasets, postgres, query):
    """Whatever the query is."""
    with psycopg.connect(postgres, autocommit=True) as session:
        session.execute("CREATE SEQUENCE IF NOT EXISTS shop.counter")
        session.execute("TRUNCATE shop.orders")
        session.execute("INSERT INTO shop.orders VALUES (42)")
        with pytest.raises(DataProcessingError):
            datasets.from_sql("orders", query, postgres)
        assert session.execute("SELECT id FROM shop.orders").fetchall() == [(42,)]
        assert session.execute("SELECT is_called FROM shop.counter").fetchone() == (False,)


@pytest.mark.parametrize("query", ["DELETE FROM orders RETURNING id", "DROP TABLE orders"])
def test_sqlite_is_not_changed(datasets, sqlite, query):
    """Nor is a file made where there is none."""
    with pytest.raises(DataProcessingError, match="readonly"):
        datasets.from_sql("orders", query, sqlite)
    assert datasets.from_sql("orders", "SELECT * FROM orders", sqlite).row_count == 3


def test_a_database_file_that_is_not_there_is_not_made(datasets, tmp_path):
    """SQLite alone would."""
    with pytest.raises(DataProcessingError, match="no database file"):
        datasets.from_sql("x", "SELECT 1", f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT 1 AS a, 2 AS a", "Several columns are called 'a'"),
        ("SELECT id FROM orders WHERE id > 9", "no row"),
        ("SELECT x'00ff' AS raw", "binary"),
    ],
)
def test_a_query_that_is_no_table_is_refused(datasets, sqlite, query, words):
    """In the database's words where they are its."""
    with pytest.raises(DataProcessingError, match=words) as caught:
        datasets.from_sql("x", query, sqlite)
    assert caught.value.remedy


def test_a_column_of_changing_types_is_named(datasets, sqlite, monkeypatch):
    """SQLite gives any type in any row; a dataset's column has one."""
    monkeypatch.setattr(sql, "_PIECE_ROWS", 1)
    with pytest.raises(DataProcessingError, match="'x' has values of several types: int64, string") as caught:
        datasets.from_sql("x", "SELECT 1 AS x UNION ALL SELECT 'one'", sqlite)
    assert "CAST(x AS" in caught.value.remedy


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("not a url", "can't be read"),
        ("postgresql://me:secret@127.0.0.1:1/shop?password=secret", "127.0.0.1.*refused"),
        ("oddbase://me:secret@host/shop", "no driver"),
    ],
)
def test_no_password_is_shown(datasets, url, words):
    """Not in the error, wherever in the URL it was."""
    with pytest.raises(DataProcessingError, match=words) as caught:
        datasets.from_sql("x", "SELECT 1", url)
    assert "secret" not in f"{caught.value} {caught.value.attributes()}"


def test_no_password_is_recorded(datasets, postgres):
    """Nor an option that could be one."""
    url = postgres.replace("postgres@", "postgres:secret@") + "&application_name=secret"
    made = datasets.from_sql("x", "SELECT 1 AS n", url)
    assert "secret" not in str(made.source)


def test_rows_beyond_the_limit_are_not_fetched(datasets, postgres):
    """The query could go on for ever; as many rows as permitted are fine."""
    query = "SELECT generate_series(1, {}::bigint) AS i"
    assert datasets.from_sql("x", query.format(2_000), postgres, max_rows=2_000).row_count == 2_000
    with pytest.raises(RequestTooLargeError, match="at most 2,000 are accepted") as caught:
        datasets.from_sql("x", query.format(10**15), postgres, max_rows=2_000)
    assert (caught.value.limit, "LIMIT" in caught.value.remedy) == (2_000, True)


def test_bytes_beyond_the_limit_are_not_fetched(postgres, db, tmp_path):
    """Of the table as it is decoded."""
    limits = replace(db.settings.api, max_upload_bytes=10**7)
    query = "SELECT repeat('x', 10000) AS x FROM (SELECT generate_series(1, 1000000000000)) AS n"
    with pytest.raises(RequestTooLargeError, match="bytes, decoded; at most 10,000,000"):
        sql.write_query(postgres, query, None, tmp_path / "x.parquet", limits)


def test_long_rows_are_fetched_few_at_a_time(sqlite, monkeypatch):
    """So that a piece takes about as much memory as any other."""
    monkeypatch.setattr(sql, "_PIECE_BYTES", 10**6)
    query = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
        "SELECT hex(zeroblob(2000)) AS x FROM n"
    )
    with sql._connected(sqlite) as connection:
        pieces = list(sql._fetched(connection, query, None))
    assert sum(piece.num_rows for piece in pieces) == 3_000
    assert all(piece.nbytes < 1.1 * 10**6 for piece in pieces[1:])


def test_postgres_ends_a_statement_that_takes_too_long(datasets, postgres, monkeypatch):
    """In its words."""
    monkeypatch.setattr(sql, "_STATEMENT_TIMEOUT_S", 1)
    with pytest.raises(DataProcessingError, match="statement timeout"):
        datasets.from_sql("x", "SELECT 1 AS x FROM pg_sleep(60)", postgres)


@pytest.mark.parametrize("trick", ["SELECT 1 AS x; COMMIT; DELETE FROM shop.orders", "COMMIT; DELETE FROM shop.orders"])
def test_no_second_statement_leaves_the_transaction(datasets, postgres, trick):
    """A query is one statement."""
    with psycopg.connect(postgres, autocommit=True) as session:
        session.execute("TRUNCATE shop.orders")
        session.execute("INSERT INTO shop.orders VALUES (42)")
        with pytest.raises(DataProcessingError):
            datasets.from_sql("orders", trick, postgres)
        assert session.execute("SELECT id FROM shop.orders").fetchall() == [(42,)]


def test_a_password_in_the_words_of_a_driver_is_not_shown(datasets):
    """libpq repeats the value of an option that it can't read."""
    with pytest.raises(DataProcessingError) as caught:
        datasets.from_sql("x", "SELECT 1", "postgresql://me@127.0.0.1/shop?sslmode=hunter2")
    assert "hunter2" not in f"{caught.value} {caught.value.attributes()}"
    assert "***" in caught.value.message
