"""The kernel's word that a directory has changed, without a thread (inotify(7))."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import inotify_simple
import structlog
import trio

from bedrock.concurrency.service_nursery import open_service_nursery
from bedrock.errors import BedrockError

log = structlog.get_logger(__name__)

_FLAGS = inotify_simple.flags
_CHANGES = _FLAGS.CREATE | _FLAGS.MOVED_TO | _FLAGS.DELETE | _FLAGS.MOVED_FROM | _FLAGS.CLOSE_WRITE | _FLAGS.ONLYDIR
_ARRIVALS = _FLAGS.CREATE | _FLAGS.MOVED_TO


class WatchLimitReached(BedrockError):
    """The kernel grants no further watch. ``path`` is the directory that was to be watched."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} can't be watched: the kernel's limit is reached; raise it with "
            "`sysctl fs.inotify.max_user_watches=524288`"
        )
        self.path = path


class Change:
    """Waits for something to have happened since the last wait. Several things at once are one."""

    def __init__(self) -> None:
        self._event = trio.Event()

    async def wait(self) -> None:
        """Return when something has happened. Cancelled, it leaves what has happened to the next wait."""
        await self._event.wait()
        self._event = trio.Event()

    def note(self) -> None:
        self._event.set()


class _Tree:
    """A directory whose subdirectories are watched too; ``watches`` are the kernel's numbers of all of them."""

    def __init__(self, directory: Path, change: Change, root: int) -> None:
        self.directory = directory
        self.change = change
        self.root = root
        self.watches = {root}


class Inotify:
    """Watches of directories. Made by :func:`open_inotify`.

    A notification is a hint: when the kernel's queue overflows everybody is woken, and whoever waits looks for itself.
    """

    def __init__(self, source: inotify_simple.INotify) -> None:
        self._source = source
        # The kernel has one watch for a directory, however many of us look at it.
        self._changes: dict[int, set[Change]] = {}
        self._trees: list[_Tree] = []

    @asynccontextmanager
    async def watching(self, directory: Path) -> AsyncIterator[Change]:
        """Yield what is woken by each change of the entries of ``directory``.

        Raises :class:`WatchLimitReached`, and OSError when there is no such directory.
        """
        change = Change()
        number = self._subscribe(directory, change)
        try:
            yield change
        finally:
            self._unsubscribe(number, change)

    @asynccontextmanager
    async def watching_tree(self, directory: Path) -> AsyncIterator[Change]:
        """The same for ``directory`` and the directories in it, those that are made later included."""
        change = Change()
        tree = _Tree(directory, change, self._subscribe(directory, change))
        self._trees.append(tree)
        try:
            self._watch_children(tree)
            yield tree.change
        finally:
            self._trees.remove(tree)
            for number in tree.watches:
                self._unsubscribe(number, tree.change)

    def _watch_children(self, tree: _Tree) -> None:
        with suppress(OSError):  # the directory itself is gone: there is nothing in it to be watched
            for path in tree.directory.iterdir():
                self._watch_child(tree, path)

    def _watch_child(self, tree: _Tree, path: Path) -> None:
        try:
            tree.watches.add(self._subscribe(path, tree.change))
        except WatchLimitReached as error:
            # In the middle of the work one directory that gives no hints is better than none.
            log.warning("a directory goes unwatched", error=str(error))
        except OSError:
            return  # gone again, or a file

    def _subscribe(self, directory: Path, change: Change) -> int:
        try:
            number = int(self._source.add_watch(directory, _CHANGES))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise WatchLimitReached(directory) from None
            raise
        self._changes.setdefault(number, set()).add(change)
        return number

    def _unsubscribe(self, number: int, change: Change) -> None:
        listeners = self._changes.get(number)
        if listeners is None:
            return  # the directory is gone, and its watch with it
        listeners.discard(change)
        if not listeners:
            del self._changes[number]
            with suppress(OSError):  # gone just now
                self._source.rm_watch(number)

    async def run(self) -> None:
        """Wake those who wait, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._source.fileno())
            for event in self._source.read(timeout=0):
                self._take(event)

    def _take(self, event: inotify_simple.Event) -> None:
        if event.mask & _FLAGS.Q_OVERFLOW:
            self._wake_everybody()
            return
        if event.mask & _FLAGS.ISDIR and event.mask & _ARRIVALS:
            for tree in self._trees:
                if tree.root == event.wd:
                    self._watch_child(tree, tree.directory / event.name)
        listeners = self._changes.get(event.wd, set())
        if event.mask & _FLAGS.IGNORED:  # the directory has been removed; the kernel does not use the number again
            self._changes.pop(event.wd, None)
            for tree in self._trees:
                tree.watches.discard(event.wd)
        for change in listeners:
            change.note()

    def _wake_everybody(self) -> None:
        """The kernel's queue was full, so that anything may have happened, also to what has to be watched."""
        for tree in self._trees:
            self._watch_children(tree)
        for listeners in self._changes.values():
            for change in listeners:
                change.note()


@asynccontextmanager
async def open_inotify() -> AsyncIterator[Inotify]:
    """Yield the means to watch directories until the context is left."""
    try:
        source = inotify_simple.INotify(nonblocking=True)
    except OSError as error:
        raise BedrockError(
            f"the kernel gives no inotify instance ({error.strerror}); raise fs.inotify.max_user_instances with "
            "sysctl, or the limit of open files (ulimit -n)"
        ) from None
    try:
        inotify = Inotify(source)
        async with open_service_nursery() as services:
            services.start_soon(inotify.run)
            yield inotify
    finally:
        source.close()
