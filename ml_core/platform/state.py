"""The saved state of the platform: ``<home>/platform.json``."""

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
    """The state of a started platform.

    Attributes:
        http_port: The port of the ingress.
        dashboard_port: The port of Ray's REST interface.
        session_id: The session (of the operating system) of Ray's processes.
        started_at: The time of the start, ISO 8601, UTC.
    """

    http_port: int
    dashboard_port: int
    session_id: int
    started_at: str

    @property
    def url(self) -> str:
        """The address of the ingress."""
        return f"http://127.0.0.1:{self.http_port}"

    def save(self, home: Path) -> None:
        """Write the state atomically."""
        # In the same folder, since a rename is atomic within a file system only.
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
        """Read the state; None if there is no readable file."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, json.JSONDecodeError, TypeError):
            return cls(**json.loads((home / _FILE).read_text(encoding="utf-8")))
        return None

    @staticmethod
    def forget(home: Path) -> None:
        """Remove the saved state."""
        (home / _FILE).unlink(missing_ok=True)
