"""Datasets: immutable versions of tables, their Parquet files in the artifact store, their profiles in the registry.

What a table is once it is stored, and how it is profiled, is decided in ``ml_core.data``.
"""

from ml_core.registry.datasets.repository import DatasetRepository

__all__ = ["DatasetRepository"]
