"""The kernel's word that a directory has changed, without a thread."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import inotify_simple
import trio

from bedrock.concurrency.nursery import open_hidden_nursery
from bedrock.errors import BedrockError

_FLAGS = inotify_simple.flags
_CHANGES = _FLAGS.CREATE | _FLAGS.MOVED_TO | _FLAGS.DELETE | _FLAGS.MOVED_FROM | _FLAGS.CLOSE_WRITE | _FLAGS.ONLYDIR


class Change:
    """Waits for something to have happened since the last wait. Several things at once are one."""

    def __init__(self) -> None:
        self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = trio.Event()

    def note(self) -> None:
        self._event.set()


class _Tree(NamedTuple):
    directory: Path
    change: Change
    children: list[int]


class Inotify:
    """Watches of directories. Made by :func:`open_inotify`.

    A notification is a hint: when the kernel's queue overflows everybody is woken, and whoever waits looks for itself.
    """

    def __init__(self, source: inotify_simple.INotify) -> None:
        self._source = source
        # The kernel has one watch for a directory, however many of us look at it.
        self._changes: dict[int, list[Change]] = {}
        self._trees: dict[int, _Tree] = {}

    @asynccontextmanager
    async def watching(self, directory: Path) -> AsyncIterator[Change]:
        """Yield what is woken by each change of the entries of ``directory``."""
        change = Change()
        number = self._subscribe(directory, change)
        try:
            yield change
        finally:
            self._unsubscribe(number, change)

    @asynccontextmanager
    async def watching_tree(self, directory: Path) -> AsyncIterator[Change]:
        """The same for ``directory`` and the directories in it, those that are made later included."""
        tree = _Tree(directory, Change(), [])
        number = self._subscribe(directory, tree.change)
        self._trees[number] = tree
        try:
            for path in directory.iterdir():  # noqa: ASYNC240 - as quick as adding the watches themselves
                self._add_child(tree, path)
            yield tree.change
        finally:
            del self._trees[number]
            for child in [number, *tree.children]:
                self._unsubscribe(child, tree.change)

    def _add_child(self, tree: _Tree, path: Path) -> None:
        try:
            tree.children.append(self._subscribe(path, tree.change))
        except (FileNotFoundError, NotADirectoryError):
            return  # gone again, or a file

    def _subscribe(self, directory: Path, change: Change) -> int:
        try:
            number = int(self._source.add_watch(directory, _CHANGES))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise BedrockError(
                    f"{directory} can't be watched: the kernel's limit is reached; raise it with "
                    "`sysctl fs.inotify.max_user_watches=524288`"
                ) from None
            raise
        self._changes.setdefault(number, []).append(change)
        return number

    def _unsubscribe(self, number: int, change: Change) -> None:
        listeners = self._changes.get(number, [])
        if change in listeners:
            listeners.remove(change)
            if not listeners:
                del self._changes[number]
                with suppress(OSError):  # the directory may be gone, and its watch with it
                    self._source.rm_watch(number)

    async def run(self) -> None:
        """Wake those who wait, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._source.fileno())
            for event in self._source.read(timeout=0):
                self._take(event)

    def _take(self, event: inotify_simple.Event) -> None:
        if event.mask & _FLAGS.Q_OVERFLOW:
            for listeners in self._changes.values():
                for change in listeners:
                    change.note()
            return
        tree = self._trees.get(event.wd)
        if tree is not None and event.mask & _FLAGS.ISDIR and event.mask & (_FLAGS.CREATE | _FLAGS.MOVED_TO):
            self._add_child(tree, tree.directory / event.name)
        for change in self._changes.get(event.wd, []):
            change.note()
        if event.mask & _FLAGS.IGNORED:
            self._changes.pop(event.wd, None)


@asynccontextmanager
async def open_inotify() -> AsyncIterator[Inotify]:
    """Yield the means to watch directories until the context is left."""
    try:
        source = inotify_simple.INotify(nonblocking=True)
    except OSError as error:
        raise BedrockError(
            f"the kernel gives no inotify instance ({error.strerror}); raise fs.inotify.max_user_instances with sysctl"
        ) from None
    try:
        inotify = Inotify(source)
        async with open_hidden_nursery() as nursery:
            nursery.start_soon(inotify.run)
            yield inotify
            nursery.cancel_scope.cancel()
    finally:
        source.close()
