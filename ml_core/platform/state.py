"""What the running platform wrote down about itself: ``<home>/platform.json``."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

_FILE = "platform.json"


@dataclass(frozen=True, slots=True)
class PlatformState:
    """Where a started platform is.

    Attributes:
        http_port: Of the ingress.
        dashboard_port: Of Ray's REST interface.
        session_id: The operating system's session that holds Ray's processes.
        replicas: How many replicas the shared cell was declared with.
        started_at: ISO 8601, UTC.
    """

    http_port: int
    dashboard_port: int
    session_id: int
    replicas: int
    started_at: str

    @property
    def url(self) -> str:
        """The address of the ingress."""
        return f"http://127.0.0.1:{self.http_port}"

    def save(self, home: Path) -> None:
        """Write the state, all or nothing."""
        descriptor, temporary = tempfile.mkstemp(dir=home, prefix=".platform-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(self), file)
            Path(temporary).replace(home / _FILE)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, home: Path) -> PlatformState | None:
        """The state that was written last; None if no state can be read."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, json.JSONDecodeError, TypeError):
            return cls(**json.loads((home / _FILE).read_text(encoding="utf-8")))
        return None

    @staticmethod
    def forget(home: Path) -> None:
        """Remove the file."""
        (home / _FILE).unlink(missing_ok=True)
