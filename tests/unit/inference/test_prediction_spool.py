"""The spool: what is read back is what was appended, whatever happened to the file, and one process takes it."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.prediction_record import Loss, LossReason
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.inference.prediction_spool import Segment, Spool, read
from ml_core.registry.predictions.rendering import RenderedRequest, RenderedRequests
from support.predictions import spooled, today

Row = tuple[str, str, int, PredictionPolicy, int, bytes]

names = st.from_regex(r"[a-z][a-z0-9_-]{0,5}", fullmatch=True)
policies = st.sampled_from([PredictionPolicy.DIGEST, PredictionPolicy.INPUTS])


@st.composite
def rendered(draw: st.DrawFn) -> RenderedRequest:
    """A request as it is spooled, of any text."""
    tenant, model, rows = draw(names), draw(names), draw(st.integers(1, 3))
    texts = [draw(st.text(max_size=30)).replace("\n", "").replace("\t", "") for _ in range(rows)]
    lines = "".join(f"{tenant}\t{model}\t{text}\n" for text in texts).encode("utf-8", "replace")
    return RenderedRequest(tenant, model, draw(st.integers(0, 40_000)), draw(policies), rows, lines)


losses = st.builds(Loss, names, names, st.just(today()), st.sampled_from(list(LossReason)), st.integers(1, 1000))
records = st.lists(rendered() | losses, max_size=15)


def rows_of(groups: list[RenderedRequests]) -> list[Row]:
    """What was spooled, one a request."""
    return [
        (group.tenant_id, group.model_id, group.day, group.policy, rows, part)
        for group in groups
        for part, rows in zip(group.parts, group.row_counts, strict=True)
    ]


def fill(segment: Segment, what: list[RenderedRequest | Loss]) -> tuple[list[Row], dict[tuple[object, ...], int]]:
    """Append records; returns them as they are to be read."""
    counts: dict[tuple[object, ...], int] = {}
    for each in what:
        if isinstance(each, Loss):
            assert segment.note(each)
            key = (each.tenant_id, each.model_id, each.reason)
            counts[key] = counts.get(key, 0) + each.rows
        else:
            assert segment.append(each)
    return [tuple(each) for each in what if isinstance(each, RenderedRequest)], counts


def in_memory() -> tuple[Segment, mmap.mmap]:
    """A segment, and its content."""
    content = mmap.mmap(-1, 2**19)
    return Segment(content, None), content


@given(records)
def test_all_is_read_back(what):
    """Rows in the order of their model, and each loss summed."""
    segment, _ = in_memory()
    requests, counts = fill(segment, what)
    found = segment.read()
    assert sorted(rows_of(found.requests)) == sorted(requests)
    assert {(loss.tenant_id, loss.model_id, loss.reason): loss.rows for loss in found.losses} == counts
    assert (found.rows, segment.is_empty) == (sum(each[4] for each in requests), not what)


@given(records, st.data())
def test_a_torn_segment_has_what_came_before(what, data):
    """Cut off at any byte, it neither raises nor invents anything."""
    segment, content = in_memory()
    requests, _ = fill(segment, what)
    at = data.draw(st.integers(0, segment.end))
    content[at : segment.end] = bytes(segment.end - at)
    found = rows_of(read(content).requests)
    assert set(found) <= set(requests)
    if at == segment.end:
        assert len(found) == len(requests)


@given(records, st.data())
def test_a_damaged_segment_invents_nothing(what, data):
    """Whichever byte is another one: the rows and counts that are read were appended."""
    segment, content = in_memory()
    requests, counts = fill(segment, what)
    at, difference = data.draw(st.integers(0, segment.end)), data.draw(st.integers(1, 255))
    content[at] ^= difference
    found = read(content)
    assert set(rows_of(found.requests)) <= set(requests)
    assert {(loss.tenant_id, loss.model_id, loss.reason): loss.rows for loss in found.losses}.items() <= counts.items()


@given(st.binary(max_size=300), st.booleans())
def test_bytes_that_are_no_segment_are_nothing(tmp_path_factory, noise, has_header):
    """A file that somebody else put there, or a part of one, is removed and nothing of it is written."""
    folder = tmp_path_factory.mktemp("spool")
    header = b"mlcore spool 1 \n0123456789abcdef" if has_header else b""
    (folder / "a.spool").write_bytes(header + noise)
    ((contents, abandoned),) = Spool(folder).abandoned()
    assert (contents.requests, contents.losses) == ([], [])
    abandoned.discard()
    assert list(folder.iterdir()) == []


@given(records)
def test_what_was_written_is_not_kept_in_the_file(what):
    """A tenant may be deleted, or forbid its inputs, before a file that is used again is written over."""
    segment, content = in_memory()
    fill(segment, what)
    segment.begin()
    assert not any(content[32:])


def test_what_was_there_before_is_not_read_again():
    """A segment that begins anew, with fewer records, does not end in those of its last use."""
    segment, _ = in_memory()
    for _ in range(5):
        segment.append(spooled("acme"))
    before = segment.read().batch_id
    segment.begin()
    segment.append(spooled("acme", request_id="new"))
    assert (segment.read().rows, segment.read().batch_id != before) == (1, True)


@pytest.mark.parametrize("lines", [b"acme\ttickets\tx", b"acme\tother\tx\n", b"globex\ttickets\tx\n", b"", b"x\n\n"])
def test_lines_of_another_tenant_or_number_are_not_taken_from_another_process(tmp_path, lines):
    """They are checked again where they come from a file that this process did not write."""
    segment = Spool(tmp_path).segment()
    segment.append(RenderedRequest("acme", "tickets", 1, PredictionPolicy.DIGEST, 1, b"acme\ttickets\t\n"))
    content = segment._content
    segment.append(RenderedRequest("acme", "tickets", 2, PredictionPolicy.DIGEST, 1, lines))
    assert len(read(content).requests) == 2
    segment.leave()
    ((contents, abandoned),) = Spool(tmp_path).abandoned()
    assert [group.day for group in contents.requests] == [1]
    abandoned.discard()


def test_losses_never_take_the_room_of_requests():
    """Nor the other way round: a full segment still counts what does not fit."""
    segment, _ = in_memory()
    request = spooled("acme", [{"text": "x" * 10_000}])
    while segment.append(request):
        pass
    for number in range(1000):
        assert segment.note(Loss("acme", f"model{number}", today(), LossReason.QUEUE_FULL, 1))
    assert len(segment.read().losses) == 1000


def test_a_file_of_a_living_process_is_left_alone(tmp_path):
    """Neither by another object nor by the one that made it; and nobody else may read it."""
    spool = Spool(tmp_path / "spool")
    segment = spool.segment()
    segment.append(spooled("acme"))
    assert [*spool.abandoned(), *Spool(tmp_path / "spool").abandoned()] == []
    (path,) = (tmp_path / "spool").iterdir()
    assert (path.stat().st_mode & 0o777, (tmp_path / "spool").stat().st_mode & 0o777) == (0o600, 0o700)
    segment.discard()
    assert list((tmp_path / "spool").iterdir()) == []


def test_of_two_successors_one_takes_a_file(tmp_path):
    """Also if both look at the same moment."""
    for _ in range(20):
        segment = Spool(tmp_path).segment()
        segment.append(spooled("acme"))
        segment.leave()
        taken, together = [], threading.Barrier(2)

        def look(taken=taken, together=together):
            together.wait(10)
            for contents, abandoned in Spool(tmp_path).abandoned():
                taken.append(contents.rows)
                abandoned.discard()

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert taken == [1]


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_file_is_not_opened(tmp_path, kind):
    """A link could lead anywhere; a pipe would wait for ever."""
    target, path = tmp_path / "target", tmp_path / "spool" / "a.spool"
    path.parent.mkdir()
    target.write_bytes(b"precious")
    {"link": lambda: path.symlink_to(target), "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}[kind]()
    assert list(Spool(path.parent).abandoned()) == []
    assert target.read_bytes() == b"precious"


_FULL = """
import resource, sys
from pathlib import Path
from ml_core.inference.prediction_spool import Spool
from support.predictions import spooled
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
spool = Spool(Path(sys.argv[1]))
segment = spool.segment()
assert segment.append(spooled("acme")) and segment.read().rows == 1
print(segment.survives, spool.fault)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(spool.segment().survives, spool.fault)
"""


def test_without_room_on_the_disk_rows_are_held_in_memory(tmp_path):
    """No half of a file is left, and the next segment is in a file again if there is room."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _FULL, tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False File too large", "True None"]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("folder", ["a file", "missing parent of a file"])
def test_a_folder_that_can_not_be_used_costs_no_answer(tmp_path, folder):
    """Rows are held in memory, and health says why."""
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" if folder == "a file" else tmp_path / "file" / "spool"
    spool = Spool(Path(path))
    assert spool.segment().append(spooled("acme"))
    assert spool.fault
    assert list(spool.abandoned()) == []
