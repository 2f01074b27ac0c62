"""Ports: free ones are found, taken ones are named."""

import os
import socket
from pathlib import Path

import pytest

from ml_core.exceptions import Action, PlatformError
from ml_core.platform.ports import free_ports, require_free


def test_free_ports_are_distinct():
    """Each can be bound, all at the same time."""
    assert len(set(free_ports(20))) == 20


def test_free_ports_are_none_that_a_program_gets_by_chance():
    """Linux says from which range it takes ports for connections, and for servers that ask for any."""
    lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not [port for port in free_ports(200) if lowest <= port <= highest]


def test_free_ports_are_none_that_serve_gives_to_replicas():
    """A replica, of this or of another platform of the machine, would take it from the ingress."""
    of_replicas = range(30_000, 31_000)  # RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT and …_MAX_…, unless they are set
    assert not [port for port in free_ports(2_000) if port in of_replicas]


def test_a_taken_port_names_its_holder_and_the_way_out():
    """The message says which process listens there and how to pick another port."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(PlatformError) as caught:
            require_free(port)
    assert f"Port {port}" in caught.value.message
    assert f"process {os.getpid()}" in caught.value.message
    assert str(port + 1) in caught.value.remedy
    assert caught.value.action == Action("up", {"port": port + 1})


def test_a_free_port_is_accepted():
    """Nothing is left behind by the look."""
    (port,) = free_ports(1)
    require_free(port)
    require_free(port)
