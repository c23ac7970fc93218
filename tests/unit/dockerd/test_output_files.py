"""A session's output on its way into its files: cut, counted, continued and compared."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock.dockerd.engine_values import EngineError
from bedrock.dockerd.output_files import OutputFiles, Replay
from bedrock.dockerd.output_stream import Frames

_OUT, _ERR = 1, 2
_PIECE = 16 << 10


def _files(directory: Path, limit: int = 1 << 20) -> OutputFiles:
    files = OutputFiles({_OUT: directory / "out", _ERR: directory / "err"}, directory / "over", limit)
    files.open()
    return files


def _entries(printed: bytes) -> list[bytes]:
    """How the engine logs what was printed, and hands it out again: it forgets the newline of a line in pieces."""
    entries = []
    lines = printed.split(b"\n")
    for line in lines[:-1]:
        pieces = [line[at : at + _PIECE] for at in range(0, len(line) + 1, _PIECE)]
        entries += pieces if len(pieces) > 1 else [line + b"\n"]
    last = lines[-1]
    return entries + [last[at : at + _PIECE] for at in range(0, len(last), _PIECE)]


def _replay(files: OutputFiles, entries: list[bytes], stream: int = _OUT) -> Replay:
    replay = Replay(files)
    for entry in entries:
        if not replay.feed(stream, memoryview(entry)):
            break
    return replay


def test_what_is_over_the_limit_of_both_streams_together_is_counted(tmp_path: Path) -> None:
    files = _files(tmp_path, limit=10)
    files.append(_OUT, memoryview(b"123456"))
    files.append(_ERR, memoryview(b"abcdef"))
    files.append(_OUT, memoryview(b"789"))
    files.close()
    assert ((tmp_path / "out").read_bytes(), (tmp_path / "err").read_bytes(), files.over) == (b"123456", b"abcd", 5)


def test_nothing_is_kept_after_the_cut_by_a_successor_who_goes_on_counting(tmp_path: Path) -> None:
    files = _files(tmp_path, limit=4)
    files.append(_OUT, memoryview(b"123456"))
    files.close()
    successor = _files(tmp_path, limit=4)
    successor.append(_ERR, memoryview(b"abc"))
    successor.close()
    assert ((tmp_path / "out").read_bytes(), (tmp_path / "err").read_bytes(), successor.over) == (b"1234", b"", 5)


def test_a_disk_that_is_full_is_said_and_the_reader_goes_on(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/dev/full")
    files = _files(tmp_path)
    assert files.append(_OUT, memoryview(b"123"))
    assert files.append(_OUT, memoryview(b"456"))
    files.close()
    assert (files.error, files.sizes[_OUT], files.over) == ("No space left on device", 0, 6)


def test_output_that_begins_anew_has_nothing_of_an_earlier_attempt(tmp_path: Path) -> None:
    files = _files(tmp_path, limit=2)
    files.append(_OUT, memoryview(b"123"))
    files.close()
    files.clear()
    again = _files(tmp_path, limit=2)
    assert (again.sizes[_OUT], again.over) == (0, 0)
    again.close()


_LINES = st.lists(
    st.binary(max_size=20)
    | st.integers(-2, 2).map(lambda more: b"x" * (_PIECE + more))
    | st.integers(-1, 1).map(lambda more: b"y" * (2 * _PIECE + more)),
    max_size=6,
)


@settings(deadline=None)
@given(lines=_LINES, known=st.integers(0, 1 << 17))
def test_a_replay_adds_what_is_missing_and_no_byte_else(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], known: int
) -> None:
    directory = tmp_path_factory.mktemp("replay")
    # The last line is a short one: of a longer one the log does not say whether it has an end.
    printed = b"\n".join([*lines, b"end"])
    files = _files(directory)
    files.append(_OUT, memoryview(printed[:known]))
    replay = _replay(files, _entries(printed))
    files.close()
    assert not replay.differs
    assert (directory / "out").read_bytes() == printed


def test_a_line_without_an_end_that_is_logged_in_pieces_gets_none(tmp_path: Path) -> None:
    files = _files(tmp_path)
    _replay(files, _entries(b"x" * (3 * _PIECE + 5)))
    files.close()
    assert (tmp_path / "out").read_bytes() == b"x" * (3 * _PIECE + 5)


def test_a_log_that_has_lost_its_beginning_is_seen_and_nothing_is_added(tmp_path: Path) -> None:
    files = _files(tmp_path)
    files.append(_OUT, memoryview(b"1\n2\n3\n"))
    replay = _replay(files, [b"7\n", b"8\n", b"9\n", b"10\n"])
    files.close()
    assert replay.differs
    assert (tmp_path / "out").read_bytes() == b"1\n2\n3\n"


def test_a_replay_ends_at_the_cut(tmp_path: Path) -> None:
    files = _files(tmp_path, limit=3)
    replay = Replay(files)
    assert replay.feed(_OUT, memoryview(b"1\n"))
    assert not replay.feed(_OUT, memoryview(b"2\n"))
    files.close()
    assert ((tmp_path / "out").read_bytes(), files.over) == (b"1\n2", 1)


@settings(deadline=None)
@given(
    frames=st.lists(st.tuples(st.sampled_from([_OUT, _ERR]), st.binary(max_size=300)), max_size=8),
    cuts=st.lists(st.integers(0, 2500), max_size=8),
)
def test_frames_are_the_same_however_they_arrive(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = b"".join(struct.pack(">BxxxL", stream, len(content)) + content for stream, content in frames)
    reader, seen = Frames(), []
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for begin, end in pairwise(edges):
        seen += [(stream, bytes(content)) for stream, content in reader.feed(data[begin:end])]
    assert seen == frames


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (struct.pack(">BxxxL", 3, 11) + b"no such log", "can't be read: no such log"),
        (b"HTTP/1.1 200", "stream 72 is neither stdout nor stderr"),
    ],
)
def test_what_is_no_output_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(EngineError, match=sentence):
        list(Frames().feed(data))
