"""The public API as an existing program calls it, on the breast cancer table of scikit-learn."""

import pytest
from sklearn.datasets import load_breast_cancer


@pytest.fixture(scope="session")
def tumours():
    """``(X, y)``: 569 rows of 30 measures and a label of text."""
    bunch = load_breast_cancer(as_frame=True)
    return bunch.data, bunch.target.map({0: "malignant", 1: "benign"})
