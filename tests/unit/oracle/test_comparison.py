"""The oracle itself: two accounts of one run are alike, and each kind of difference between them is found."""

from __future__ import annotations

import msgspec
import pytest
from oracle.calls import NAMES, SIGNATURES, Call
from oracle.compare import Known, compare
from oracle.traced import calls_by_thread
from oracle.witness import split_output

from bedrock.trace.events import Event

# One run of two threads, as strace 6.1 shows it behind the programs/witness.c of the tests.
STRACE = r"""
== calls.10
execve("/bin/cat", ["cat", "-n"], 0x7ffd2 /* 4 vars */) = 0
openat(-100</srv>, "verse.txt", 0)      = 3</srv/verse.txt>
openat(-100</srv>, "n\303\266", 0)      = -1 ENOENT (No such file or directory)
mmap(NULL, 8192, 0x3, 0x22, -1, 0)      = 0x7f0000
mmap(NULL, 4096, 0x1, 0x2, 3</srv/verse.txt>, 0x1000) = 0x7f1000
read(3</srv/verse.txt>, "Only \"(0) = 1"..., 4096) = 39
read(3</srv/verse.txt>, "", 4096)       = 0
lseek(3</srv/verse.txt>, -9, 0x2)       = 30
--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED} ---
read(3</srv/verse.txt>, "this "..., 5)  = 5
pread64(3</srv/verse.txt>, "y ses", 5, 3) = 5
clone(child_stack=NULL, flags=0x1200000|17) = 11
munmap(0x7f0000, 8192)                  = 0
munmap(0x7f1000, 4096)                  = 0
sendfile(1<pipe:[77]>, 3</srv/verse.txt>, [3] => [7], 4) = 4
rename("/tmp/a", "/tmp/b")              = 0
exit_group(1)                           = ?
+++ exited with 1 +++

== calls.11
pwritev(4</tmp/b>, [{iov_base="ab", iov_len=2}, {iov_base="c", iov_len=1}], 2, 100) = 3
read(5<socket:[9]>,  <unfinished ...>)  = ?
+++ exited with 1 +++

== output
whatever it has printed
"""


def event(op: str, t_ns: int, *, tid: int = 10, **fields: object) -> Event:
    return Event(op=op, t_ns=t_ns, pid=10, tid=tid, program="/bin/cat", **fields)  # type: ignore[arg-type]


VERSE = {"fd": 3, "path": "/srv/verse.txt"}
EVENTS = [
    event("execve", 1, result=0, path="/bin/busybox", raw="/bin/cat", argv=["cat", "-n"]),
    event("openat", 2, result=3, raw="verse.txt", **VERSE),
    event("openat", 3, error="ENOENT", path="/srv/nö", raw="nö"),
    event("mmap", 5, result=0x7F1000, requested=4096, arg=1 | 2 << 32, offset=4096, **VERSE),
    event("fault", 6, path="/srv/verse.txt"),
    event("read", 7, result=39, requested=4096, offset=0, **VERSE),
    event("read", 8, result=0, requested=4096, offset=39, **VERSE),
    event("lseek", 9, result=30, offset=-9, arg=2, **VERSE),
    event("read", 10, result=5, requested=5, offset=30, **VERSE),
    event("pread64", 11, result=5, requested=5, offset=3, **VERSE),
    event("fork", 12, result=11),
    event("munmap", 14, result=0, requested=4096, arg=0x7F1000, path="/srv/verse.txt"),
    event("sendfile", 15, result=4, requested=4, offset=3, **VERSE),
    event("sendfile", 15, result=4, requested=4, fd=1, path="pipe:[77]", to_file=True),
    event("rename", 16, result=0, path="/tmp/a", raw="/tmp/a", second="/tmp/b", second_raw="/tmp/b"),
    event("exit", 18, result=256),
    event("pwritev", 13, tid=11, result=3, requested=3, offset=100, fd=4, path="/tmp/b"),
    event("exit", 17, tid=11, result=256),
]


def differences(events: list[Event], strace: str = STRACE, known: list[Known] | None = None) -> list[tuple[int, str]]:
    theirs, _ = split_output(strace)
    return [(found.tid, found.what) for found in compare(calls_by_thread(events), theirs, known or []).differences]


def changed(op: str, /, **fields: object) -> list[Event]:
    """The events, the last one of an op with other fields."""
    at = max(n for n, item in enumerate(EVENTS) if item.op == op)
    return [msgspec.structs.replace(item, **fields) if n == at else item for n, item in enumerate(EVENTS)]


def test_two_accounts_of_one_run_are_alike() -> None:
    assert differences(EVENTS) == []
    theirs, printed = split_output(STRACE)
    assert printed == "whatever it has printed\n"
    result = compare(calls_by_thread(EVENTS), theirs)
    assert result.compared == 16


def test_a_call_that_is_missing_is_found_whichever_it_is() -> None:
    for at, item in enumerate(EVENTS):
        if item.op != "fault":
            found = differences([*EVENTS[:at], *EVENTS[at + 1 :]])
            assert found, item
            if item.op != "sendfile":  # of which half a call remains
                assert found[0] == (item.tid, "missing"), item


def test_a_call_that_is_there_twice_is_found_whichever_it_is() -> None:
    for at, item in enumerate(EVENTS):
        if item.op != "fault":
            assert (item.tid, "invented") in differences([*EVENTS[: at + 1], *EVENTS[at:]]) or item.op == "sendfile"


def test_calls_in_another_order_are_found() -> None:
    assert differences(list(reversed(EVENTS))) == []  # they are put in order by when they began
    assert sorted(differences(changed("rename", t_ns=9))) == [(10, "invented"), (10, "missing")]


@pytest.mark.parametrize(
    ("op", "fields", "what"),
    [
        ("read", {"result": 4}, "result"),
        ("read", {"result": None, "error": "EIO"}, "error, result"),
        ("openat", {"error": "EACCES"}, "error"),
        ("openat", {"path": "/srv/other"}, "path"),
        ("openat", {"raw": "other"}, "raw"),
        ("rename", {"second": "/tmp/c"}, "second"),
        ("rename", {"second_raw": "b"}, "second_raw"),
        ("read", {"path": "/srv/verse"}, "path"),
        ("read", {"fd": 4}, "fd"),
        ("read", {"requested": 6}, "requested"),
        ("pwritev", {"requested": 2}, "requested"),
        ("read", {"offset": 39}, "offset"),
        ("read", {"offset": None}, "offset"),
        ("pread64", {"offset": 4}, "offset"),
        ("pwritev", {"offset": 0}, "offset"),
        ("lseek", {"offset": 9}, "offset"),
        ("lseek", {"arg": 1}, "arg"),
        ("mmap", {"offset": 0}, "offset"),
        ("mmap", {"arg": 3 | 2 << 32}, "arg"),
        ("munmap", {"requested": 8192}, "requested"),
        ("execve", {"argv": ["cat"]}, "argv"),
        ("execve", {"program": "/bin/sh"}, "program"),
        ("fork", {"result": 12}, "result"),
        ("exit", {"result": 0}, "result"),
    ],
)
def test_a_fact_that_is_otherwise_is_found(op: str, fields: dict[str, object], what: str) -> None:
    events = changed(op, **fields)
    tid = 11 if op in {"pwritev", "exit"} else 10
    assert differences(events) == [(tid, what)]


@pytest.mark.parametrize(
    ("is_target", "fields", "what"),
    [
        (False, {"offset": 4}, "from_offset"),
        (False, {"path": "/srv/other"}, "from"),
        (True, {"path": "pipe:[78]"}, "to"),
        (True, {"result": 5}, "result"),
        (True, {"t_ns": 14}, ""),
    ],
)
def test_either_half_of_a_call_between_two_files_is_compared(
    is_target: bool, fields: dict[str, object], what: str
) -> None:
    events = [
        msgspec.structs.replace(item, **fields) if item.op == "sendfile" and item.to_file is is_target else item
        for item in EVENTS
    ]
    found = differences(events)
    assert found
    assert not what or found == [(10, what)]


def test_a_call_of_another_thread_is_found() -> None:
    assert differences(changed("pwritev", tid=10, t_ns=16)) == [(10, "invented"), (11, "missing")]


def test_a_thread_that_strace_has_not_seen_is_found() -> None:
    assert differences([*EVENTS, event("exit", 19, tid=12, result=0)]) == [(12, "invented")]
    alone = STRACE[: STRACE.index("== calls.11")] + STRACE[STRACE.index("== output") :]
    assert differences(EVENTS, alone) == [(11, "invented"), (11, "invented")]


def test_memory_without_a_file_need_not_be_in_a_trace_and_must_be_right_if_it_is() -> None:
    unmapped = event("munmap", 13, result=0, requested=8192, arg=0x7F0000, path="/srv/verse.txt")
    assert differences([*EVENTS, unmapped]) == []
    assert differences([*EVENTS, msgspec.structs.replace(unmapped, arg=0x7E0000)]) == [(10, "invented")]


def test_a_call_that_never_returned_need_not_be_in_a_trace_and_must_be_right_if_it_is() -> None:
    waiting = event("read", 14, tid=11, error="512", fd=5, path="socket:[9]")
    assert differences([*EVENTS, waiting]) == []
    assert differences([*EVENTS, msgspec.structs.replace(waiting, fd=6)]) == [(11, "invented")]


def test_many_calls_that_are_missing_leave_the_others_comparable() -> None:
    names = [f"/{number}" for number in range(60)]
    lines = [f'access("{name}", 0x4) = 0' for name in names]
    strace = "\n".join(["\n== calls.7", *lines, "+++ exited with 0 +++", "\n== output", ""])
    events = [Event(op="access", t_ns=at, tid=7, result=0, path=name, raw=name, arg=4) for at, name in enumerate(names)]
    events.append(Event(op="exit", t_ns=99, tid=7, result=0))
    assert differences(events, strace) == []
    assert differences(events[:20] + events[50:], strace) == [(7, "missing")] * 30
    events[55] = msgspec.structs.replace(events[55], error="EIO", result=None)
    assert differences(events[5:], strace) == [(7, "missing")] * 5 + [(7, "error, result")]


def test_a_known_difference_is_excused_and_counted_and_no_other() -> None:
    def is_child(ours: Call | None, theirs: Call | None) -> bool:
        return theirs is not None and theirs.name == "fork"

    theirs, _ = split_output(STRACE)
    known = Known("another number", frozenset({"result"}), is_child)
    result = compare(calls_by_thread(changed("fork", result=4711)), theirs, [known])
    assert result.differences == []
    assert result.known == {"another number": 1}
    assert differences(changed("fork", op="read"), known=[known]) == [(10, "invented"), (10, "missing")]
    missing = [item for item in EVENTS if item.op != "fork"]
    assert differences(missing, known=[known]) == [(10, "missing")]
    assert differences(missing, known=[known._replace(facts=frozenset({"missing"}))]) == []
    twice = [*EVENTS, event("read", 12, result=1)]
    assert differences(twice, known=[known._replace(facts=frozenset({"missing"}))]) == [(10, "invented")]


def test_a_difference_is_shown_with_its_neighbours() -> None:
    theirs, _ = split_output(STRACE)
    shown = str(compare(calls_by_thread(changed("read", offset=31)), theirs))
    assert "1 differences in 1 threads" in shown
    assert "thread 10: offset" in shown
    assert 'strace> read(3</srv/verse.txt>, "this "..., 5)  = 5' in shown
    assert "offset=31 requested=5 = 5" in shown
    assert "lseek" in shown


def test_every_call_that_is_compared_has_its_arguments_listed() -> None:
    """Whoever adds an operation says here what strace shows of it, or that strace does not know it."""
    assert NAMES - {"fork", "exit"} == {*SIGNATURES}


def one(line: str, **facts: object) -> None:
    """A line of strace says these facts, and maybe more."""
    theirs, _ = split_output(f"\n== calls.7\n{line}\n\n== output\n")
    (call,) = theirs[7]
    assert facts.items() <= dict(call.facts).items()


def test_lines_of_strace_are_read_whatever_is_in_them() -> None:
    one(r'unlink("/a\"b, c\\\n\7\177")    = 0', raw='/a"b, c\\\n\x07\x7f')
    one(r'open("/x\74\76", 0) = 3</x\74\76>', path="/x<>", raw="/x<>")
    one('read(0</dev/pts/1<char 136:1>>, "", 1) = 0', path="/dev/pts/1", fd=0)
    one("fsync(4</tmp/x>(deleted)) = 0", path="/tmp/x")
    one("close(7</memfd:a>(deleted)) = 0", path="anon:memfd:a")
    one("close(5<anon_inode:[eventpoll]>) = 0", path="anon:[eventpoll]")
    one("read(3<pipe:[1]>, 0x55, 1) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)", error="ERESTARTSYS")
    one("_llseek(4</a>, 4294967346, [4294967346], 0) = 0", result=4294967346, offset=4294967346, arg=0)
    one("fchown(5</tmp/u>, -1, 0) = 0", arg=0xFFFFFFFF)
    one('statx(-100</tmp>, "a", |0x900, 0x25e, 0x7f) = -1 ENOENT (No such file or directory)', arg=0x900, path="/tmp/a")
    one("utimensat(5</tmp/u>, NULL, [{tv_sec=1}, {tv_sec=2}], 0) = 0", path="/tmp/u", arg=0)
    one('linkat(-100</tmp>, "a", 4</srv/d>, "../b", 0x400) = 0', path="/tmp/a", second="/srv/b", second_raw="../b")
    one('symlinkat("x/y", 4</srv/d>, "l") = 0', path="/srv/d/l", second_raw="x/y")
    one('chdir("..") = -1 EACCES (Permission denied)', raw="..", error="EACCES")
    one("copy_file_range(3</a>, [5], 4</b>, NULL, 10, 0) = 7", **{"from": "/a", "to": "/b", "from_offset": 5})
    one("+++ killed by SIGSEGV (core dumped) +++", result=0x8B)
    with pytest.raises(AssertionError, match="can't be read"):
        split_output("\n== calls.7\nstrace: something\n\n== output\n")


def test_paths_count_from_where_the_thread_stands() -> None:
    lines = [
        'openat(-100</tmp>, "a", 0) = -1 ENOENT (No such file or directory)',
        'access("b", 0) = 0',
        'chdir("/srv") = 0',
        'access("b", 0) = 0',
        "fchdir(4</srv/tree>) = 0",
        'access("../b", 0) = 0',
        'chroot("/jail") = 0',
        'access("/b", 0) = 0',
    ]
    theirs, _ = split_output("\n".join(["\n== calls.7", *lines, "\n== output", ""]))
    assert [call.facts.get("path") for call in theirs[7]] == [
        "/tmp/a", "/tmp/b", "/srv", None, "/srv/tree", "/srv/b", "/jail", "/jail/b",
    ]  # fmt: skip


def offsets(lines: str) -> list[object]:
    theirs, _ = split_output(f"\n== calls.7\n{lines}\n\n== output\n")
    return [call.facts.get("offset") for call in theirs[7]]


def test_positions_follow_from_what_was_read_until_someone_else_may_move_them() -> None:
    opened = 'openat(-100</>, "/a", 0x2) = 3</a>\n'
    read = 'read(3</a>, "", 9) = 9\n'
    assert offsets(opened + read + 'write(3</a>, "", 2) = 2\n' + read) == [None, 0, 9, 11]
    assert offsets(opened + read + "fork() = 8\n" + read) == [None, 0, None, None]
    assert offsets(opened + read + "dup(3</a>) = 4</a>\n" + read) == [None, 0, None, None]
    assert offsets("clone(flags=0x10000|0x400) = 8\n" + opened + read) == [None, None, None]
    appended = 'openat(-100</>, "/a", 0x402) = 3</a>\npwrite64(3</a>, "", 9, 4) = 9\npread64(3</a>, "", 9, 4) = 9'
    assert offsets(appended) == [None, None, 4]
