"""A client of a stream of events, which notes what comes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx


class Listening:
    """What has come on a stream so far."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers = httpx.Headers()
        self.body = ""
        self.is_over = False

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events: ``id``, ``event``, ``data``."""
        found = []
        for block in self.body.split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if "data" in fields:
                found.append({**fields, "data": json.loads(fields["data"])})
        return found

    @property
    def topics(self) -> set[str]:
        """All topics that have changed."""
        return {topic for each in self.events if each["event"] == "changed" for topic in each["data"]["topics"]}

    @property
    def is_open(self) -> bool:
        """Whether the platform has said that it listens."""
        return bool(self.events)


@contextmanager
def listening(url: str, **headers: str) -> Iterator[Listening]:
    """Read a stream on a thread, and close it when the block ends."""
    heard = Listening()
    with httpx.Client(trust_env=False, timeout=30) as client:

        def read(response: httpx.Response) -> None:
            try:
                for text in response.iter_text():
                    heard.body += text
            except (httpx.HTTPError, httpx.StreamError):
                pass  # it was closed here, or cut off
            finally:
                heard.is_over = True

        request = client.build_request("GET", url, headers={name.replace("_", "-"): headers[name] for name in headers})
        response = client.send(request, stream=True)
        heard.status, heard.headers = response.status_code, response.headers
        thread = threading.Thread(target=read, args=(response,), daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            network = response.extensions["network_stream"]
            network.get_extra_info("socket").shutdown(2)  # wakes the thread, as closing does not
            thread.join(10)
            response.close()
