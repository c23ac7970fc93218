"""Files, their names and processes that look alike in the numbers of a trace, and are not the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from traces import HAS_FILE, WITH_OFFSET, call, end, file, process, record, start, text_record

from bedrock.trace.events import read_events
from bedrock.trace.page import page_of
from bedrock.trace.report import report_of
from bedrock.trace.summary import summarise
from bedrock.tracer.format import CallFlag, Mode, RecordType, TextFlag
from bedrock.tracer.operations import Op

each_block_size = pytest.mark.parametrize("per_block", [1, 2, 3, 100])


def read(time_ns: int, *, inode: int = 9, link: int = 0, size: int = 1, **fields: object) -> bytes:
    return call(Op.READ, time_ns, result=size, inode=inode, device=4, link=link, flags=WITH_OFFSET, **fields)


def exited(time_ns: int, tid: int, status: int) -> bytes:
    return call(Op.EXIT, time_ns, tid=tid, tgid=tid, result=status, flags=CallFlag.GROUP_DEAD)


# -- files


@each_block_size
def test_two_hard_links_that_are_open_have_each_its_own_path_and_are_one_file(
    write: Callable[..., Path], per_block: int
) -> None:
    path = write(
        [
            file("/a", inode=9, link=1, generation=5), read(1, link=1),
            file("/b", inode=9, link=2, generation=5), read(2, link=2), read(3, link=1), read(4, link=2), read(5),
        ],
        per_block=per_block,
    )  # fmt: skip
    events = list(read_events(path))
    assert [event.path for event in events] == ["/a", "/b", "/a", "/b", "/b"]
    assert len({event.file for event in events}) == 1
    (use,) = summarise(path).files
    assert (use.path, use.aliases, use.reads) == ("/b", ["/a"], 5)


@each_block_size
def test_a_name_that_was_never_introduced_has_no_path_but_its_file(write: Callable[..., Path], per_block: int) -> None:
    path = write([file("/a", inode=9, link=1), read(1, link=1), read(2, link=3)], per_block=per_block)
    assert [(event.path, event.file) for event in read_events(path)] == [("/a", 0), (None, 0)]


@each_block_size
def test_a_second_path_counts_from_the_name_of_its_directory(write: Callable[..., Path], per_block: int) -> None:
    path = write(
        [
            file("/mnt/one", inode=2, link=1, mode=0o040755), file("/mnt/two", inode=2, link=2, mode=0o040755),
            text_record(RecordType.STRING, b"/a", tid=7, time_ns=3),
            text_record(RecordType.STRING, b"b", tid=7, time_ns=3, inode=2, device=4, link=1, flags=TextFlag.SECOND),
            call(Op.LINKAT, 3),
        ],
        per_block=per_block,
    )  # fmt: skip
    assert [(event.path, event.second) for event in read_events(path)] == [("/a", "/mnt/one/b")]


@each_block_size
def test_files_that_had_one_inode_number_after_the_other_have_different_numbers(
    write: Callable[..., Path], per_block: int
) -> None:
    records = []
    for n in range(18):
        records += [file("/tmp/x", inode=9, generation=100 + n), read(n + 1), read(n + 1)]
    path = write(records, per_block=per_block)
    numbers = [event.file for event in read_events(path)]
    assert [numbers.count(number) for number in dict.fromkeys(numbers)] == [2] * 18
    uses = summarise(path).files
    assert sorted(use.file for use in uses) == sorted(set(numbers))  # type: ignore[type-var]
    assert [use.reads for use in uses] == [2] * 18


@each_block_size
def test_a_generation_that_comes_back_is_the_file_that_it_was(write: Callable[..., Path], per_block: int) -> None:
    path = write(
        [
            file("/a", inode=9, link=1, generation=5), read(1, link=1),
            file("/b", inode=9, link=2, generation=6), read(2, link=2),
            file("/a", inode=9, link=1, generation=5), read(3, link=1), read(4, link=2),
            file("/b", inode=9, generation=6), read(5), file("/a", inode=9, generation=5), read(6),
        ],
        per_block=per_block,
    )  # fmt: skip
    assert [event.file for event in read_events(path)] == [0, 1, 0, 1, 1, 0]


@each_block_size
@pytest.mark.parametrize("is_first_open", [True, False])
def test_of_an_images_hard_links_the_one_that_is_copied_up_is_another_file(
    write: Callable[..., Path], per_block: int, is_first_open: bool
) -> None:
    """An overlay gives both the lower file's number; the copy has a generation, the other name has none."""
    other_name = [file("/b", inode=9, link=2), read(2, link=2, size=10)]
    path = write(
        [
            file("/a", inode=9, link=1), read(1, link=1), *(other_name if is_first_open else []),
            file("/a", inode=9, link=1, generation=70),
            call(Op.WRITE, 3, result=100, inode=9, device=4, link=1, flags=WITH_OFFSET),
            *([] if is_first_open else other_name), read(5, link=2, size=1000),
        ],
        per_block=per_block,
    )  # fmt: skip
    found = {use.path: (use.read_bytes, use.written_bytes) for use in summarise(path).files}
    # What was read before there were two files was read from the lower one.
    assert found == ({"/b": (1011, 0), "/a": (0, 100)} if is_first_open else {"/a": (1, 100), "/b": (1010, 0)})
    events = list(read_events(path))
    assert events[-1].file != next(event.file for event in events if event.op == "write")


@each_block_size
def test_what_was_counted_in_the_kernel_goes_to_the_same_files(write: Callable[..., Path], per_block: int) -> None:
    def total(link: int, generation: int, size: int) -> bytes:
        return record(
            RecordType.FILE_TOTAL, tgid=7, inode=9, device=4, link=link, generation=generation, reads=1,
            read_bytes=size, first_ns=5, last_ns=9,
        )  # fmt: skip

    path = write(
        [
            start(mode=Mode.SUMMARY), process(), file("/a", inode=9, link=1),
            file("/a", inode=9, link=1, generation=70), file("/b", inode=9, link=2),
            total(1, 0, 1), total(1, 70, 10), total(2, 0, 100), end(),
        ],
        per_block=per_block,
    )  # fmt: skip
    assert {use.path: use.read_bytes for use in summarise(path).files} == {"/a": 11, "/b": 100}


# -- processes


@each_block_size
def test_processes_that_had_one_number_after_the_other_are_not_merged(
    write: Callable[..., Path], per_block: int
) -> None:
    records = [start(), process(7, pid=1, started_ns=1)]
    for n in range(50):
        records += [
            process(8, pid=2 + n % 3, parent=7, started_ns=100 + n),
            text_record(RecordType.STRING, b"/bin/p%d" % n, tid=8, time_ns=1000 + n),
            text_record(RecordType.ARGV, b"p%d\0" % n, tid=8, time_ns=1000 + n),
            call(Op.EXECVE, 1000 + n, tid=8, tgid=8),
            read(1000 + n, tid=8, tgid=8, size=n),
            exited(1000 + n, 8, n << 8),
        ]
    path = write([*records, exited(5000, 7, 0), end()], per_block=per_block)
    children = sorted(summarise(path).processes, key=lambda use: use.process)[1:]
    assert [(use.pid, use.name, use.argv, use.exit_status, use.read_bytes, use.calls) for use in children] == [
        (2 + n % 3, f"/bin/p{n}", [f"p{n}"], n << 8, n, 3) for n in range(50)
    ]
    assert {use.parent_process for use in children} == {0}
    seen = [(event.program, event.process) for event in read_events(path) if event.op == "read"]
    assert seen == [(f"/bin/p{n}", n + 1) for n in range(50)]


@each_block_size
def test_a_thread_keeps_its_process_and_its_number_goes_to_a_thread_of_another(
    write: Callable[..., Path], per_block: int
) -> None:
    path = write(
        [
            process(7, pid=1, started_ns=1), process(20, tgid=7, pid=1, container_tid=2, started_ns=1),
            read(1, tid=20, tgid=7, size=1),
            process(9, pid=3, parent=7, started_ns=5), process(20, tgid=9, pid=3, container_tid=4, started_ns=5),
            read(2, tid=20, tgid=9, size=10), read(3, tid=7, tgid=7, size=100),
        ],
        per_block=per_block,
    )  # fmt: skip
    assert [(event.pid, event.tid) for event in read_events(path)] == [(1, 2), (3, 4), (1, 1)]
    assert [(use.pid, use.read_bytes) for use in summarise(path).processes] == [(1, 101), (3, 10)]


@each_block_size
def test_the_tree_has_children_below_the_process_that_made_them(write: Callable[..., Path], per_block: int) -> None:
    path = write(
        [
            process(7, pid=1, started_ns=1), process(8, pid=2, parent=7, started_ns=2),
            process(9, pid=3, parent=8, started_ns=3), exited(5, 8, 0), exited(6, 9, 0),
            process(8, pid=2, parent=7, started_ns=7), process(9, pid=3, parent=8, started_ns=8),
            read(9, tid=9, tgid=9),
        ],
        per_block=per_block,
    )  # fmt: skip
    parents = {use.process: use.parent_process for use in summarise(path).processes}
    assert parents == {0: None, 1: 0, 2: 1, 3: 0, 4: 3}
    page_of(report_of(path, None))


@each_block_size
def test_a_call_of_a_process_that_was_never_introduced_goes_to_no_other(
    write: Callable[..., Path], per_block: int
) -> None:
    path = write([process(7, pid=1, started_ns=1), read(1), read(2, tid=7, tgid=99)], per_block=per_block)
    assert [(event.pid, event.process) for event in read_events(path)] == [(1, 0), (0, None)]
    assert [use.calls for use in summarise(path).processes] == [1]


@each_block_size
def test_totals_go_to_the_process_that_began_then(write: Callable[..., Path], per_block: int) -> None:
    def totals(started_ns: int, size: int) -> list[bytes]:
        return [
            record(
                RecordType.FILE_TOTAL, tgid=8, started_ns=started_ns, inode=9, device=4, reads=1, read_bytes=size,
                first_ns=5, last_ns=9,
            ),
            record(RecordType.OP_TOTAL, tgid=8, started_ns=started_ns, op=Op.READ, calls=size, duration_ns=1),
        ]  # fmt: skip

    path = write(
        [
            start(mode=Mode.SUMMARY), process(8, pid=2, started_ns=5), process(8, pid=3, started_ns=6),
            file("/x", inode=9), *totals(5, 1), *totals(6, 10), *totals(7, 100), end(),
        ],
        per_block=per_block,
    )  # fmt: skip
    assert [(use.pid, use.calls, use.read_bytes) for use in summarise(path).processes] == [(2, 1, 1), (3, 10, 10)]


def test_a_failed_fork_is_told_with_its_error_and_a_child_with_its_numbers(write: Callable[..., Path]) -> None:
    path = write([process(), call(Op.FORK, 1, result=-11), call(Op.FORK, 2, result=6, arg=5)])
    assert [(event.result, event.error, event.arg) for event in read_events(path)] == [
        (None, "EAGAIN", None),
        (6, None, 5),
    ]
    assert [(use.op, use.calls, use.errors) for use in summarise(path).ops] == [("fork", 2, 1)]


def test_a_call_without_a_file_has_no_number_of_one(write: Callable[..., Path]) -> None:
    path = write(
        [file("/x", inode=9), call(Op.READ, 1, inode=9, device=4, flags=HAS_FILE), call(Op.STAT, 2, result=-2)]
    )
    assert [event.file for event in read_events(path)] == [0, None]
