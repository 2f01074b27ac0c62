"""An ASGI application on a port of its own, as Ray Serve's replicas have it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.ingress import middlewares


@contextmanager
def served(app: ASGIApp, keep_alive_s: int = 1) -> Iterator[int]:
    """The port on the loopback interface at which uvicorn serves an application, until the block ends."""
    middlewares()  # as Serve calls them: they say how uvicorn reads HTTP
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        config = uvicorn.Config(
            lambda: app,
            factory=True,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=keep_alive_s,
            timeout_graceful_shutdown=5,  # a stream of events has no end
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def mounted(app: ASGIApp, root_path: str = "/api") -> ASGIApp:
    """An application under a path, as Ray Serve's ingress has it: the server says the path in ``root_path``."""

    async def under_path(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": root_path}, receive, send)

    return under_path
