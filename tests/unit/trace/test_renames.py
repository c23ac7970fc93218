"""Files under all names that they had: a row shows the last one that the trace knows, and any of them finds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traces import HAS_FILE, call, end, file, process, start, text_record, trace

from bedrock.trace import tree
from bedrock.trace.events import read_events
from bedrock.trace.find import select_events, select_files
from bedrock.trace.summary import TraceSummary, summarise
from bedrock.tracer.format import CallFlag, RecordType, TextFlag
from bedrock.tracer.operations import Op

each_block_size = pytest.mark.parametrize("per_block", [1, 3, 100])


class Script:
    """Records of a target, one call after the other."""

    def __init__(self) -> None:
        self.records = [start(), process()]
        self._now = 10

    def opened(self, path: str, inode: int, *, raw: str | None = None, **fields: int) -> Script:
        self._tell((raw or path).encode())
        self.records.append(file(path, inode=inode, time_ns=self._now, generation=inode, **fields))
        return self._call(Op.OPENAT, result=3, inode=inode, link=fields.get("link", 0))

    def written(self, inode: int, size: int, link: int = 0) -> Script:
        self._now += 1
        return self._call(Op.WRITE, result=size, inode=inode, link=link)

    def changed(self, op: Op, old: str, new: str | None = None, *, tid: int = 7, **fields: int) -> Script:
        self._tell(old.encode(), tid)
        if new is not None:
            second = text_record(RecordType.STRING, new.encode(), tid=tid, time_ns=self._now, flags=TextFlag.SECOND)
            self.records.append(second)
        fields |= {"tid": tid, "tgid": tid}
        self.records.append(call(op, self._now, **fields))
        return self

    def whole(self) -> list[bytes]:
        return [*self.records, end()]

    def _tell(self, raw: bytes, tid: int = 7) -> None:
        self._now += 1
        self.records.append(text_record(RecordType.STRING, raw, tid=tid, time_ns=self._now))

    def _call(self, op: Op, **fields: int) -> Script:
        self.records.append(call(op, self._now, device=4, flags=HAS_FILE, **fields))
        return self


def names_of(summary: TraceSummary) -> dict[str, list[str]]:
    return {use.path: use.aliases for use in summary.files}


@each_block_size
@pytest.mark.parametrize("op", [Op.RENAME, Op.RENAMEAT, Op.RENAMEAT2, Op.URING_RENAME])
def test_a_file_that_was_written_under_another_name_is_shown_under_its_final_one(
    write: Callable[..., Path], per_block: int, op: Op
) -> None:
    script = Script().opened("/d/x.tmp", 9).written(9, 5).changed(op, "/d/x.tmp", "/d/x").written(9, 7)
    path = write(script.whole(), per_block=per_block)
    (use,) = summarise(path).files
    assert (use.path, use.aliases, use.written_bytes, use.is_gone) == ("/d/x", ["/d/x.tmp"], 12, False)
    # A call has the name that the file had when it was made.
    assert [event.path for event in read_events(path)] == ["/d/x.tmp", "/d/x.tmp", "/d/x.tmp", "/d/x"]


@pytest.mark.parametrize(
    "fields",
    [
        {"result": -2},
        {"flags": CallFlag.UNFINISHED},
        {"flags": CallFlag.ARGUMENT_CHANGED},
        {"flags": CallFlag.DENIED},
    ],
)
def test_a_rename_that_failed_or_is_not_certain_changes_no_name(
    write: Callable[..., Path], fields: dict[str, int]
) -> None:
    script = Script().opened("/x", 9).changed(Op.RENAME, "/x", "/y", **fields)
    assert names_of(summarise(write(script.whole()))) == {"/x": []}


def test_a_path_that_turns_back_may_lead_elsewhere_and_changes_no_name(write: Callable[..., Path]) -> None:
    script = Script().opened("/x", 9).changed(Op.RENAME, "/link/../x", "/y").changed(Op.RENAME, "/../x", "/z")
    assert names_of(summarise(write(script.whole()))) == {"/z": ["/x"]}


@each_block_size
def test_the_same_temporary_name_serves_one_file_after_the_other(write: Callable[..., Path], per_block: int) -> None:
    script = Script()
    for n in range(4):
        script.opened("/t", 10 + n).written(10 + n, n).changed(Op.RENAME, "/t", f"/final-{n}")
    found = names_of(summarise(write(script.whole(), per_block=per_block)))
    assert found == {f"/final-{n}": ["/t"] for n in range(4)}


@each_block_size
def test_the_file_that_is_replaced_keeps_its_name_and_is_gone(write: Callable[..., Path], per_block: int) -> None:
    script = Script().opened("/x", 9).opened("/new", 10).written(10, 5).changed(Op.RENAME, "/new", "/x").written(9, 1)
    uses = summarise(write(script.whole(), per_block=per_block)).files
    assert [(use.inode, use.path, use.aliases, use.is_gone) for use in uses] == [
        (10, "/x", ["/new"], False),
        (9, "/x", [], True),
    ]


@each_block_size
def test_what_is_below_a_directory_moves_with_it(write: Callable[..., Path], per_block: int) -> None:
    script = (
        Script().opened("/build/a", 1).opened("/build/sub/b", 2).opened("/build-log", 3)
        .opened("/build", 4, mode=0o40755).changed(Op.RENAME, "/build", "/out")
        .changed(Op.RENAME, "/out/sub/b", "/out/c").written(1, 1)
        .changed(Op.RENAME, "/out", "/final")
    )  # fmt: skip
    path = write(script.whole(), per_block=per_block)
    assert names_of(summarise(path)) == {
        "/final/a": ["/build/a", "/out/a"],
        "/final/c": ["/build/sub/b", "/out/sub/b", "/out/c"],
        "/build-log": [],
        "/final": ["/build", "/out"],
    }
    assert [event.path for event in read_events(path) if event.op == "write"] == ["/out/a"]


@each_block_size
def test_two_names_that_are_exchanged(write: Callable[..., Path], per_block: int) -> None:
    script = Script().opened("/one/a", 1).opened("/two", 2).changed(Op.RENAMEAT2, "/one", "/two", arg=2)
    assert names_of(summarise(write(script.whole(), per_block=per_block))) == {"/two/a": ["/one/a"], "/one": ["/two"]}


@each_block_size
@pytest.mark.parametrize("op", [Op.LINK, Op.LINKAT, Op.URING_LINK])
def test_a_link_is_another_name_and_the_one_that_stays_is_shown(
    write: Callable[..., Path], per_block: int, op: Op
) -> None:
    script = Script().opened("/t", 9).changed(op, "/t", "/x")
    assert names_of(summarise(write(script.whole(), per_block=per_block))) == {"/t": ["/x"]}
    script.changed(Op.UNLINK, "/t")
    assert names_of(summarise(write(script.whole(), per_block=per_block))) == {"/x": ["/t"]}
    (use,) = summarise(write(script.changed(Op.UNLINKAT, "/x").whole(), per_block=per_block)).files
    assert (use.path, use.aliases, use.is_gone) == ("/x", ["/t"], True)


def test_a_file_that_never_had_a_name_gets_one_by_a_link(write: Callable[..., Path]) -> None:
    script = Script().opened("/tmp/#9", 9, flags=TextFlag.DELETED).written(9, 5)
    script.changed(Op.LINKAT, "", "/tmp/x", inode=9, device=4, flags=HAS_FILE)
    (use,) = summarise(write(script.whole())).files
    assert (use.path, use.aliases, use.is_gone) == ("/tmp/x", ["/tmp/#9"], False)


def test_a_rename_between_two_names_of_one_file_does_nothing(write: Callable[..., Path]) -> None:
    script = Script().opened("/a", 9, link=1).opened("/b", 9, link=2).changed(Op.RENAME, "/a", "/b")
    script.changed(Op.UNLINK, "/b")
    assert names_of(summarise(write(script.whole()))) == {"/a": ["/b"]}


@each_block_size
def test_only_the_name_that_was_renamed_moves(write: Callable[..., Path], per_block: int) -> None:
    script = Script().opened("/a", 9, link=1).opened("/b", 9, link=2).changed(Op.RENAME, "/a", "/c")
    script.written(9, 1, link=1).written(9, 1, link=2)
    path = write(script.whole(), per_block=per_block)
    assert [event.path for event in read_events(path) if event.op == "write"] == ["/c", "/b"]


@each_block_size
def test_a_directory_that_is_reached_through_a_symbolic_link_is_the_same(
    write: Callable[..., Path], per_block: int
) -> None:
    """As of a merged /usr, where dpkg writes /bin/x.dpkg-new and renames it to /bin/x."""
    script = Script().opened("/usr/bin/x.dpkg-new", 9, raw="/bin/x.dpkg-new").written(9, 5)
    script.changed(Op.RENAME, "/bin/x.dpkg-new", "/bin/x")
    script.opened("/run/lock/y.tmp", 10, raw="/var/lock/y.tmp").changed(Op.RENAME, "/var/lock/y.tmp", "/var/lock/y")
    found = names_of(summarise(write(script.whole(), per_block=per_block)))
    assert found == {"/usr/bin/x": ["/usr/bin/x.dpkg-new"], "/run/lock/y": ["/run/lock/y.tmp"]}


def test_what_a_process_with_another_root_opens_says_nothing_of_others(write: Callable[..., Path]) -> None:
    script = Script().opened("/jail/etc/x", 9, raw="/etc/x")
    script.records.append(process(8, pid=2))
    script.changed(Op.RENAME, "/etc/x", "/etc/y", tid=8)
    assert names_of(summarise(write(script.whole()))) == {"/jail/etc/x": []}


def test_any_name_finds_a_file_and_its_calls(write: Callable[..., Path]) -> None:
    script = Script().opened("/d/x.tmp", 9).written(9, 5).changed(Op.RENAME, "/d/x.tmp", "/e/x").written(9, 6)
    script.changed(Op.LINK, "/e/x", "/f").changed(Op.UNLINK, "/f", result=0)
    path = write(script.opened("/other", 10).written(10, 7).whole())
    summary = summarise(path)
    for wanted in ("/d/x.tmp", "/e/x", "/d", "/e/", "/d/x.tmp/"[:-1]):
        assert names_of(select_files(summary, [wanted])) == {"/e/x": ["/d/x.tmp", "/f"]}
        found = [event.op for event in select_events(read_events(path), summary, [wanted])]
        assert found == ["openat", "write", "rename", "write", "link", "unlink"]
    assert select_files(summary, ["/e/x.t"]).files == []


def test_who_renames_a_large_directory_all_day_is_followed_up_to_a_limit(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "_MAX_MOVED_BELOW", 3)
    script = Script().opened("/d/a", 1).opened("/d/b", 2)
    path = write(script.changed(Op.RENAME, "/d", "/e").changed(Op.RENAME, "/e", "/f").whole())
    uses = sorted(summarise(path).files, key=lambda use: use.path)
    assert sorted(use.path[:3] for use in uses) == ["/e/", "/f/"]


NAMES = st.sampled_from(["/a", "/b", "/a/x", "/a/y", "/b/x", "/c", "/c/x/y"])
STEPS = st.lists(
    st.tuples(st.just("open"), NAMES) | st.tuples(st.sampled_from(["rename", "link", "unlink"]), NAMES, NAMES)
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, per_block=st.integers(1, 20))
def test_names_are_what_a_plain_model_says_wherever_blocks_end(
    steps: list[tuple[str, ...]], per_block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script, inodes, held = Script(), iter(range(100, 1000)), dict[str, int]()
    for kind, name, *rest in steps:
        if kind == "open":
            held.setdefault(name, next(inodes))
            script.opened(name, held[name])
        elif kind == "unlink" and name in held and not any(other.startswith(name + "/") for other in held):
            script.changed(Op.UNLINK, name)
            del held[name]
        elif kind == "link" and name in held and not any((other + "/").startswith(rest[0] + "/") for other in held):
            script.changed(Op.LINK, name, rest[0])
            held[rest[0]] = held[name]
        elif kind == "rename" and rest[0] not in (name, *held) and not (rest[0] + "/").startswith(name + "/"):
            if any(other.startswith(rest[0] + "/") for other in held):
                continue
            script.changed(Op.RENAME, name, rest[0])
            below = [other for other in held if (other + "/").startswith(name + "/")]
            held |= {rest[0] + other[len(name) :]: held.pop(other) for other in below}
    path = tmp_path_factory.mktemp("names") / "trace.bdt"
    path.write_bytes(trace(script.whole(), per_block=per_block))
    for use in summarise(path).files:
        now = {name for name, inode in held.items() if inode == use.inode}
        assert now <= {use.path, *use.aliases}
        assert (use.path in now) == bool(now)
        assert use.is_gone == (not now)


@each_block_size
def test_a_rename_that_is_not_in_the_trace_is_known_from_the_next_use(
    write: Callable[..., Path], per_block: int
) -> None:
    """As in mode summary, or where changes of names were not asked for; links tell it from a second name."""
    script = Script().opened("/old", 9, link=1).opened("/new", 9, link=1).opened("/old", 9, link=1)
    script.opened("/a", 10, link=2).opened("/b", 10, link=3).opened("/a", 10, link=2)
    found = names_of(summarise(write(script.whole(), per_block=per_block)))
    assert found == {"/old": ["/new"], "/b": ["/a"]}
