"""The demo's rows: as different as its table, so that the platform finds no drift in what it answered."""

from __future__ import annotations

from types import SimpleNamespace

from ml_core.cli.demo.data import write_tumours
from ml_core.cli.demo.tenant import DemoTenant
from ml_core.cli.demo.traffic import traffic


class Asked:
    """A client that keeps what it is asked."""

    def __init__(self, rows):
        self.rows = rows

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def predict(self, model, rows):
        """Answer, as version 1 does."""
        self.rows.extend(row["n"] for row in rows)
        return SimpleNamespace(version="1")


def test_sample_rows_are_drawn_from_the_whole_table(tmp_path):
    """Without the target; the same rows each time, and all of them if there are not as many as asked for."""
    count = write_tumours(tmp_path / "tumours.csv")
    tenant = DemoTenant("", "t", "", "m", tmp_path / "tumours.csv", "diagnosis")
    rows = tenant.sample_rows(100)
    assert rows == tenant.sample_rows(100)
    assert len({tuple(row.values()) for row in rows}) == 100
    assert "diagnosis" not in rows[0]
    assert len(tenant.sample_rows(10_000)) == count


def test_traffic_asks_all_rows_in_turn():
    """Each connection begins elsewhere, so that a few requests are of different rows already."""
    asked = []
    with traffic(lambda: Asked(asked), "m", *({"n": n} for n in range(100))) as report:
        report.wait_for("1", 1_000, 30)
    assert report.failures == []
    assert set(asked) == set(range(100))
    assert max(asked.count(n) for n in range(100)) <= 2 * len(asked) / 100
