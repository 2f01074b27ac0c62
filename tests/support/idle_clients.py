"""A program: clients that hold connections and send no whole request. Closed ones are opened again.

Arguments: port, own address, how many, kind. Prints a line when all are open; ends when its input does.
"""

from __future__ import annotations

import resource
import selectors
import socket
import sys

KINDS = {
    "silent": b"",
    "half_head": b"POST /t/acme/models/m/predict HTTP/1.1\r\nhost: ingress\r\n",
    "slow_body": b"POST /t/acme/models/m/predict HTTP/1.1\r\nhost: ingress\r\ncontent-length: 9999\r\n\r\n{",
    "idle_after_answer": b"GET /t/acme/models/m HTTP/1.1\r\nhost: ingress\r\n\r\n",
}


def run(port: int, address: str, count: int, kind: str) -> None:
    """Hold that many connections of one kind."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)

    def connect() -> None:
        client = socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(address, 0))
        client.setblocking(False)
        client.send(KINDS[kind])
        selector.register(client, selectors.EVENT_READ)

    for _ in range(count):
        connect()
    print("open", flush=True)  # noqa: T201
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return
            try:
                is_open = bool(key.fileobj.recv(65_536))
            except ConnectionError:
                is_open = False
            if not is_open:
                selector.unregister(key.fileobj)
                key.fileobj.close()
                connect()


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
