"""Opening a model that was saved with joblib or pickle, in the caller's own process.

A pickle runs code of its author, so no server imports this module: it is for ``ModelManager``, in a process that could
run the file itself. The object is written in the platform's format and audited before it is stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib

from ml_core.exceptions import ModelLoadError

SUFFIXES = (".joblib", ".pkl", ".pickle")


def read_joblib(path: Path) -> Any:
    """The object of a joblib or pickle file. This runs the file's code: only for the caller's own files.

    Raises:
        ModelLoadError: The file is missing, or does not fit the libraries of this process.
    """
    try:
        return joblib.load(path)
    except FileNotFoundError as error:
        raise ModelLoadError(f"The file {path} does not exist.", remedy="Check the path.") from error
    except Exception as error:
        raise ModelLoadError.wrap(
            error,
            f"{path} can't be opened",
            remedy="Save it again with joblib.dump, with the library versions of this process.",
        ) from error
