"""Names as text: whatever a name is made of, its text is no other name's, and gives it back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import call, end, process, start, text_record

from bedrock.trace.export import Format, export
from bedrock.trace.paths import bytes_of, resolve, text_of
from bedrock.tracer.format import RecordType, TextFlag
from bedrock.tracer.operations import Op

# What escapes are made of, many times over, so that names come close to looking like them.
RAW = st.lists(
    st.sampled_from([b"\\", b"x", b"5c", b"ff", b"\\xff", b"\xff", b"\xc3", b"\xa9", b"\xed\xa0\x80", b"a", b"F"])
    | st.binary(max_size=4)
).map(b"".join)


@given(raw=RAW)
def test_the_text_of_a_name_gives_the_name_back(raw: bytes) -> None:
    text = text_of(raw)
    assert bytes_of(text) == raw
    text.encode()


@given(one=RAW, other=RAW)
def test_two_names_never_have_the_same_text(one: bytes, other: bytes) -> None:
    assert (text_of(one) == text_of(other)) == (one == other)


@given(name=st.text().filter(lambda name: "\\x" not in name))
def test_a_name_that_is_utf_8_stands_for_itself_unless_it_looks_like_an_escape(name: str) -> None:
    assert text_of(name.encode()) == name


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"caf\xe9", "caf\\xe9"),
        (b"caf\\xe9", "caf\\x5cxe9"),
        ("café".encode(), "café"),
        (b"C:\\x", "C:\\x"),
        (b"a\\b", "a\\b"),
        (b"\\\xff", "\\\\xff"),
    ],
)
def test_the_text_of_some_names(raw: bytes, text: str) -> None:
    assert text_of(raw) == text
    assert bytes_of(text) == raw


DANGEROUS = [b"=1+1", b"+1", b"-1", b"@x", b"\t=1", b"\r=1", b"\n=1", "＝1".encode(), b"\\x3d1", b"'=1", b"", b"x=1"]


def test_no_cell_of_a_csv_is_a_formula_and_all_can_be_undone(write: Callable[..., Path]) -> None:
    records = [start(), process()]
    for n, raw in enumerate(DANGEROUS):
        records += [
            text_record(RecordType.STRING, b"/x", tid=7, time_ns=10 + n),
            text_record(RecordType.STRING, raw, tid=7, time_ns=10 + n, flags=TextFlag.SECOND),
            call(Op.SYMLINK, 10 + n, result=-2),
        ]
    about = {"command": "sh -c ',=HYPERLINK(1);+2,@3,-4'"}
    content = b"".join(export(write([*records, end()]), Format.CSV, about)).decode()
    first, rest = content.split("\n", 1)
    assert json.loads(first.removeprefix("# "))["command"] == about["command"]
    for separator in ",;":
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in first.split(separator))
    rows = list(csv.DictReader(io.StringIO(rest, newline="")))
    assert [bytes_of(row["second"]) for row in rows] == DANGEROUS
    for row in rows:
        for name, cell in row.items():
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝")), name


@pytest.mark.parametrize(
    ("base", "raw", "path"),
    [
        (None, b"/a/../b", b"/b"),
        (None, b"b", None),
        (b"/jail", b"/a", b"/jail/a"),
        (b"/jail", b"/../../a", b"/jail/a"),
        (b"/jail", b"//..//a", b"/jail/a"),
        (b"/work", b"../a", b"/a"),
        (b"/work", b"../../a", b"/a"),
        (b"/work", b"", b"/work"),
    ],
)
def test_a_path_never_leads_above_the_root_from_which_it_counts(
    base: bytes | None, raw: bytes, path: bytes | None
) -> None:
    assert resolve(base, raw) == path
