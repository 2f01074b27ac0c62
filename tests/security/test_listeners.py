"""Every port that a platform opens is documented, and only documented ones are open beyond the loopback interface."""

from __future__ import annotations

import contextlib
import re
from ipaddress import ip_address
from pathlib import Path

import psutil

_DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
_ROW = re.compile(r"^\| (`.+`) \| (loopback|all interfaces) \|", re.MULTILINE)


def program_of(name: str, title: str) -> str:
    """What a process is: Ray's title up to the first detail, the script of a Python program, else its name."""
    if found := re.match(r"ray::\w+|ray-dashboard-\w+", title):
        return found[0]
    if name.startswith("python"):
        found = re.search(r" -m (\S+)|(\w+\.py)\b", title)
        return (found[1] or found[2]) if found else title
    return name


def listeners(platform) -> set[tuple[str, str]]:
    """Program and reach of each listening socket of the platform's processes."""
    found = set()
    for process, (name, *arguments) in platform.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((program_of(name, " ".join(arguments)), reach_of(connection.laddr.ip)))
    return found


def reach_of(host: str) -> str:
    """From where an address can be reached."""
    address = ip_address(host)
    return "loopback" if (getattr(address, "ipv4_mapped", None) or address).is_loopback else "all interfaces"


def documented() -> set[tuple[str, str]]:
    """The same of the table in the documentation."""
    rows = _ROW.findall(_DOCUMENT.read_text(encoding="utf-8"))
    return {(program, where) for programs, where in rows for program in re.findall("`([^`]+)`", programs)}


def test_every_listener_is_documented(platform):
    """A release of Ray that opens another port is noticed here."""
    assert listeners(platform) - documented() == set()


def test_what_is_documented_as_open_is_open(platform):
    """Else the firewall rule in the documentation would be of no use to anybody."""
    assert {one for one in documented() if one[1] == "all interfaces"} <= listeners(platform)
