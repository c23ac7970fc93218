"""What the report computes, of accesses whose order is known, and the page's own safety."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from traces import WITH_OFFSET, call, end, file, process, sample, start, text_record

from bedrock.trace.diff import compare
from bedrock.trace.image_files import ImageFiles, read_image_files, write_image_files
from bedrock.trace.page import page_of
from bedrock.trace.report import Report, report_of
from bedrock.trace.summary import summarise
from bedrock.tracer.format import RecordType
from bedrock.tracer.operations import Op

BLOCK = 4096
COUNT = 1000


def accesses(offsets: list[int], op: Op = Op.PREAD64, size: int = BLOCK) -> list[bytes]:
    """A file that is accessed at these offsets, a millisecond apart."""
    fields = {"inode": 9, "device": 4, "flags": WITH_OFFSET, "fd": 3, "duration_ns": 5_000, "requested": size}
    return [
        start(),
        process(),
        file("/data", inode=9, time_ns=3),
        *(call(op, 1_000_000 * (n + 1), result=size, offset=at, **fields) for n, at in enumerate(offsets)),
        end(),
    ]


@pytest.fixture
def report(write: Callable[..., Path]) -> Callable[..., Report]:
    def make(records: list[bytes], image: ImageFiles | None = None) -> Report:
        return report_of(write(records, per_block=100), None, image)

    return make


def test_reading_from_begin_to_end_is_consecutive_in_darshans_words(report: Callable[..., Report]) -> None:
    found = report(accesses([n * BLOCK for n in range(COUNT)])).shares["reads"]
    assert (found.total, found.followed) == (COUNT, COUNT - 1)
    assert found.consecutive / found.followed > 0.95
    assert found.sequential == found.followed
    assert found.random == 0


def test_reading_here_and_there_is_not_consecutive(report: Callable[..., Report]) -> None:
    offsets = [n * BLOCK for n in range(COUNT)]
    random.Random(7).shuffle(offsets)
    found = report(accesses(offsets)).shares["reads"]
    assert found.consecutive / found.followed < 0.05
    assert 0.4 < found.random / found.followed < 0.6


def test_every_third_block_is_sequential_and_strided_and_not_consecutive(report: Callable[..., Report]) -> None:
    found = report(accesses([n * 3 * BLOCK for n in range(COUNT)])).patterns[0].pattern.reads
    assert (found.consecutive, found.sequential, found.strided) == (0, COUNT - 1, COUNT - 1)
    assert found.strides[0] == (2 * BLOCK, COUNT - 1)


def test_backwards_is_random(report: Callable[..., Report]) -> None:
    found = report(accesses([n * BLOCK for n in reversed(range(COUNT))])).shares["reads"]
    assert (found.sequential, found.random) == (0, COUNT - 1)


def test_pages_are_counted_once_and_time_goes_on(report: Callable[..., Report]) -> None:
    made = report(accesses([n % 10 * BLOCK for n in range(COUNT)], op=Op.PWRITE64))
    assert made.timeline is not None
    assert made.timeline.working_set[0] <= made.timeline.working_set[-1] == 10
    assert sum(made.timeline.written_bytes) == COUNT * BLOCK
    assert sum(made.timeline.calls) == COUNT
    assert made.patterns[0].pattern.pages == 10
    assert made.sizes["writes"]["common"] == [(BLOCK, COUNT)]
    assert made.sizes["writes"]["bins"]["1K-10K"] == COUNT
    assert made.span_s == pytest.approx(0.999)


def test_few_accesses_are_drawn_each_and_many_as_a_grid(report: Callable[..., Report]) -> None:
    few = report(accesses([0, BLOCK])).offsets[0]
    assert [(offset, size, kind) for _, offset, size, kind, _ in few.segments] == [(0, BLOCK, 0), (BLOCK, BLOCK, 0)]
    many = report(accesses([n * BLOCK for n in range(5 * COUNT)])).offsets[0]
    assert many.segments == []
    assert sum(map(sum, many.grid[0])) == 5 * COUNT
    assert sum(map(sum, many.grid[1])) == 0


def test_files_of_the_image_that_were_not_used_are_listed_with_their_bytes(
    report: Callable[..., Report], tmp_path: Path
) -> None:
    listing = ImageFiles(image_id="sha256:1", files=[("/data", 5), ("/big", 100), ("/small", 1)])
    path = tmp_path / "image.files"
    path.write_bytes(write_image_files(listing))
    found = report(accesses([0]), read_image_files(path)).untouched
    assert found is not None
    assert (found.files, found.bytes, found.image_files, found.image_bytes) == (2, 101, 3, 106)
    assert found.largest == [("/big", 100), ("/small", 1)]
    path.write_bytes(b"no zstd")
    assert read_image_files(path) is None


def test_failed_look_ups_are_counted_by_path_and_error(report: Callable[..., Report]) -> None:
    assert report(sample()).failed_lookups == [("/no\\xff", 2, "openat", 1)]


def test_nothing_that_a_file_is_called_gets_out_of_the_page(report: Callable[..., Report]) -> None:
    name = "/</script><script>alert(1)</script>"
    records = accesses([0])
    records[2] = file(name.replace("/script", "|script"), inode=9, time_ns=3)
    records.insert(3, text_record(RecordType.STRING, name.encode(), tid=7, time_ns=4))
    records.insert(4, call(Op.OPENAT, 4, result=-2))
    page = page_of(report(records))
    assert "<script>alert" not in page
    assert page.count("</script>") == 2


def test_a_trace_without_a_call_has_a_page_too(report: Callable[..., Report]) -> None:
    assert 'id="verdict"' in page_of(report([start(), process(), end()]))


def test_two_traces_alike_have_no_difference_and_a_file_more_is_one(tmp_path: Path, write: Callable[..., Path]) -> None:
    a = summarise(write(sample()))
    assert compare(a, a).is_empty
    more = call(Op.READ, 90, result=10, inode=11, device=4, flags=WITH_OFFSET, offset=0)
    b = summarise(write([*sample(5)[:-1], file("/new", inode=11, time_ns=90), more, end()]))
    found = compare(a, b)
    assert [(item.path, item.change, item.read_bytes) for item in found.files] == [
        ("/new", "added", (0, 10)),
        ("/y/x", "changed", (300, 500)),
    ]
    assert [(op.op, op.calls) for op in found.ops if op.calls[0] != op.calls[1]] == [("read", (3, 6))]
    assert [item.change for item in compare(b, a).files] == ["removed", "changed"]
