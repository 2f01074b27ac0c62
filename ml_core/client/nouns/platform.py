"""The platform itself."""

from __future__ import annotations

from ml_core.api.schemas.platform import PlatformHealth
from ml_core.client.calls import Call, Mode, Noun, operation


class Platform(Noun[Mode]):
    """The platform itself; takes a key of the platform."""

    @operation
    def health(self) -> Call[PlatformHealth]:
        """The cells with their replicas and what these serve, and whether registry and store are usable."""
        return Call("GET", "/api/v1/platform", PlatformHealth)
