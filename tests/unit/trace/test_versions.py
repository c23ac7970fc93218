"""Traces of version 2, which a tracer of that version has written, are read like those of today.

The two files are of one static program on Linux 6.16: once with each call, once in mode ``summary``. It reads
``/srv/verse.txt`` (also through a mapping), appends to ``/tmp/x.tmp`` and renames that to ``/tmp/x``, makes and removes
the hard link ``/tmp/y``, looks for ``/nowhere``, writes a file of ``/tmp/d`` whose name is not UTF-8 and renames it to
``/tmp/e``, uses a pipe, and forks a process that becomes ``cat``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from traces import header

from bedrock.trace.blocks import TraceError
from bedrock.trace.decode import Trace
from bedrock.trace.events import read_events
from bedrock.trace.summary import TraceSummary, summarise
from bedrock.tracer.format import VERSION

_HERE = Path(__file__).parent
EVENTS, SUMMARY = _HERE / "version-2-events.bdt", _HERE / "version-2-summary.bdt"


def _uses(summary: TraceSummary) -> dict[str, tuple[int, int, int, int]]:
    named = {use.path: use for use in summary.files if use.path.startswith("/")}
    return {path: (use.opens, use.read_bytes, use.written_bytes, use.faults) for path, use in named.items()}


def test_the_calls_of_a_version_2_trace_have_their_names_and_numbers() -> None:
    events = list(read_events(EVENTS))
    assert len(events) == 99
    assert Counter(event.op for event in events).most_common(1) == [("fault", 61)]
    written = [event for event in events if event.op == "write"]
    assert [(event.path, event.result, event.append) for event in written] == [
        ("/tmp/x.tmp", 5, True),
        ("/tmp/d/caf\\xe9", 1, False),
        ("pipe:[73175]", 1, False),
    ]
    assert [event.argv for event in events if event.op == "execve"] == [["/bin/prog"], ["cat", "/srv/verse.txt"]]
    assert {(event.pid, event.program) for event in events} == {(1, "/bin/prog"), (6, "/bin/prog"), (6, "/bin/cat")}


def test_the_files_of_a_version_2_trace_have_their_last_names() -> None:
    summary = summarise(EVENTS)
    assert summary.is_whole
    assert _uses(summary) == {
        "/srv/verse.txt": (2, 49, 0, 1),
        "/tmp/x": (1, 0, 5, 0),
        "/tmp/e": (1, 0, 1, 0),
        "/tmp/d": (1, 0, 0, 0),
        "/bin/busybox": (0, 0, 0, 32),
        "/bin/prog": (0, 0, 0, 28),
    }
    assert {use.path: use.aliases for use in summary.files if use.path.startswith("/tmp")} == {
        "/tmp/x": ["/tmp/x.tmp", "/tmp/y"],
        "/tmp/e": ["/tmp/d/caf\\xe9"],
        "/tmp/d": [],
    }
    assert [(process.pid, process.parent, process.exit_status) for process in summary.processes] == [
        (1, 0, 0),
        (6, 1, 0),
    ]


def test_the_counts_of_a_version_2_trace_are_those_that_it_had() -> None:
    summary = summarise(SUMMARY)
    assert (summary.mode, summary.is_whole, summary.unsupported) == ("summary", True, [])
    assert _uses(summary) == {
        "/srv/verse.txt": (2, 49, 0, 1),
        "/tmp/x.tmp": (1, 0, 5, 0),
        "/tmp/d/caf\\xe9": (1, 0, 1, 0),
        "/tmp/d": (1, 0, 0, 0),
        "/bin/busybox": (0, 0, 0, 32),
        "/bin/prog": (0, 0, 0, 25),
    }
    assert [(process.pid, process.name, process.read_bytes) for process in summary.processes] == [
        (1, "/bin/prog", 16),
        (7, "/bin/cat", 34),
    ]


@pytest.mark.parametrize("version", [1, VERSION + 1])
def test_another_version_is_refused_with_those_that_are_read(tmp_path: Path, version: int) -> None:
    path = tmp_path / "trace.bdt"
    path.write_bytes(header(version))
    with pytest.raises(TraceError, match=rf"version {version}, this Bedrock reads versions 2 and 3"):
        Trace(path)
