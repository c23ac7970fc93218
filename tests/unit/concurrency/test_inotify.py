from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from bedrock.concurrency.inotify import Change, open_inotify
from bedrock.errors import BedrockError

pytestmark = pytest.mark.timeout(30)


async def settle(change: Change) -> None:
    """Take what has been noted so far, so that the next wait is for something new."""
    with trio.move_on_after(0.05):
        while True:
            await change.wait()


async def test_a_new_a_moved_a_written_and_a_removed_entry_each_wake_who_waits(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    directory = tmp_path / "watched"
    directory.mkdir()
    async with open_inotify() as inotify, inotify.watching(directory) as change:
        for act in (
            lambda: elsewhere.rename(directory / "arrived"),
            lambda: (directory / "arrived").write_text("more"),
            lambda: (directory / "arrived").rename(elsewhere),
            (directory / "new").mkdir,
            (directory / "new").rmdir,
        ):
            await settle(change)
            act()
            await change.wait()


async def test_what_happened_before_the_wait_is_not_missed_and_counts_once(tmp_path: Path) -> None:
    async with open_inotify() as inotify, inotify.watching(tmp_path) as change:
        for number in range(100):
            (tmp_path / str(number)).touch()
        await change.wait()
        await settle(change)
        with trio.move_on_after(0.05) as scope:
            await change.wait()
        assert scope.cancelled_caught


async def test_a_cancelled_wait_leaves_the_change_to_the_next(tmp_path: Path) -> None:
    async with open_inotify() as inotify, inotify.watching(tmp_path) as change:
        (tmp_path / "file").touch()
        with trio.CancelScope() as scope:
            scope.cancel()
            await change.wait()
        await change.wait()


async def test_two_who_watch_one_directory_are_both_woken_and_one_may_leave(tmp_path: Path) -> None:
    async with open_inotify() as inotify, inotify.watching(tmp_path) as first:
        async with inotify.watching(tmp_path) as second:
            (tmp_path / "one").touch()
            await first.wait()
            await second.wait()
        await settle(first)
        (tmp_path / "two").touch()
        await first.wait()


async def test_a_tree_notices_files_in_old_and_in_new_directories(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "no-directory").touch()
    async with open_inotify() as inotify, inotify.watching_tree(tmp_path) as change:
        (tmp_path / "old" / "lock").touch()
        await change.wait()
        await settle(change)
        (tmp_path / "new").mkdir()
        await change.wait()
        await settle(change)
        (tmp_path / "new" / "lock").touch()
        await change.wait()
        await settle(change)
        (tmp_path / "new" / "lock").unlink()
        await change.wait()


async def test_a_tree_forgets_directories_that_are_gone(tmp_path: Path) -> None:
    async with open_inotify() as inotify:
        async with inotify.watching_tree(tmp_path) as change:
            for number in range(20):
                (tmp_path / str(number)).mkdir()
                await change.wait()
            await settle(change)
            for number in range(20):
                (tmp_path / str(number)).rmdir()
            await settle(change)
            assert len(inotify._changes) == 1
            assert [len(tree.watches) for tree in inotify._trees] == [1]
        assert not inotify._changes


async def test_who_leaves_gives_the_kernels_watches_back(tmp_path: Path) -> None:
    (tmp_path / "session").mkdir()
    async with open_inotify() as inotify:
        fdinfo = Path(f"/proc/self/fdinfo/{inotify._source.fileno()}")
        async with inotify.watching_tree(tmp_path), inotify.watching(tmp_path):
            assert fdinfo.read_text().count("inotify wd:") == 2
        assert "inotify wd:" not in fdinfo.read_text()


async def test_one_directory_can_be_two_trees(tmp_path: Path) -> None:
    async with open_inotify() as inotify, inotify.watching_tree(tmp_path) as first:
        async with inotify.watching_tree(tmp_path) as second:
            (tmp_path / "session").mkdir()
            await first.wait()
            await second.wait()
        await settle(first)
        (tmp_path / "session" / "file").touch()
        await first.wait()


async def test_an_overflow_of_the_kernels_queue_wakes_everybody_and_finds_what_was_missed(tmp_path: Path) -> None:
    with open("/proc/sys/fs/inotify/max_queued_events") as setting:
        limit = int(setting.read())
    if limit > 50_000:
        pytest.skip("this kernel's queue is too long to be filled in a test")
    noisy, quiet = tmp_path / "noisy", tmp_path / "quiet"
    noisy.mkdir()
    quiet.mkdir()
    async with (
        open_inotify() as inotify,
        inotify.watching(noisy),
        inotify.watching(quiet) as in_quiet,
        inotify.watching_tree(tmp_path) as tree,
    ):
        for number in range(limit // 2 + 10):
            (noisy / str(number)).touch()
        (tmp_path / "missed").mkdir()
        await in_quiet.wait()
        await settle(tree)
        (tmp_path / "missed" / "file").touch()
        await tree.wait()


async def test_a_directory_that_is_not_there_or_is_a_file_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with open_inotify() as inotify:
        with pytest.raises(FileNotFoundError):
            async with inotify.watching(tmp_path / "nowhere"):
                pass
        with pytest.raises(NotADirectoryError):
            async with inotify.watching(tmp_path / "file"):
                pass


async def test_an_error_in_the_context_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_inotify():
            raise KeyError("mine")


async def test_nothing_is_left_open(tmp_path: Path, in_use: Callable[[], tuple[int, int]]) -> None:
    before = in_use()
    for _ in range(20):
        async with open_inotify() as inotify, inotify.watching(tmp_path):
            await trio.testing.wait_all_tasks_blocked()
    assert in_use() <= before


async def test_without_a_descriptor_to_spare_the_error_names_the_limits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(BedrockError, match=r"max_user_instances .*ulimit"):
            async with open_inotify():
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


_WATCH_TOO_MUCH = """
import pathlib, sys, trio
from bedrock.concurrency.inotify import WatchLimitReached, open_inotify

async def main(path):
    async with open_inotify() as inotify, inotify.watching_tree(path) as change:
        for number in range(5):
            (path / str(number)).mkdir()
            await change.wait()
        async with open_inotify() as other:
            try:
                async with other.watching(path):
                    pass
            except WatchLimitReached as error:
                print("refused", error.path == path, error)

trio.run(main, pathlib.Path(sys.argv[1]))
"""


def test_at_the_kernels_limit_the_error_names_the_sysctl_and_a_tree_lives_on(tmp_path: Path) -> None:
    # A user namespace has limits of its own, so that no other process is concerned.
    script = 'echo 3 > /proc/sys/user/max_inotify_watches || exit 99; exec "$@"'
    command = ["unshare", "-U", "-r", "sh", "-c", script, "sh", sys.executable, "-c", _WATCH_TOO_MUCH, str(tmp_path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare(1)")
    if "unshare" in done.stderr or done.returncode == 99:
        pytest.skip("this machine allows no user namespaces")
    assert done.returncode == 0, done.stderr
    assert "refused True" in done.stdout
    assert "sysctl fs.inotify.max_user_watches" in done.stdout
    assert "a directory goes unwatched" in done.stdout + done.stderr
