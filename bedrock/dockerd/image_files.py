"""Which files an image has, so that a report can say which of them a session never touched.

Listing an image takes its time, so it is begun when a session's image is known, goes on while the session runs, and is
kept: an image never changes. A session does not fail, and hardly waits, for want of a list.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath

import structlog
import trio

from bedrock.concurrency.service_nursery import ServiceNursery, open_service_nursery
from bedrock.dockerd.engine import Engine
from bedrock.dockerd.engine_values import EngineError, ImageInfo
from bedrock.trace.image_files import ImageFiles, write_image_files
from bedrock.trace.paths import text_of
from bedrock.volume import write_durably

log = structlog.get_logger(__name__)

_KEPT = 256
_LIMIT_S = 300.0


class ImageListings:
    """Made by :func:`open_image_listings`."""

    def __init__(self, engine: Engine, directory: Path, services: ServiceNursery, *, node: str) -> None:
        self._engine = engine
        self._directory = directory
        self._services = services
        self._node = node
        self._limiter = trio.CapacityLimiter(1)
        self._under_way: dict[str, trio.Event] = {}

    def begin(self, image: ImageInfo) -> None:
        """See to it that there will be a list of an image."""
        if image.id not in self._under_way and not self._path(image.id).exists():
            self._under_way[image.id] = trio.Event()
            self._services.start_soon(self._make, image)

    async def get(self, image_id: str, *, patience_s: float) -> Path | None:
        """The file with the list of an image; None where there is none, or none within ``patience_s``."""
        done = self._under_way.get(image_id)
        if done is not None:
            with trio.move_on_after(patience_s):
                await done.wait()
        path = self._path(image_id)
        return path if path.exists() else None

    def _path(self, image_id: str) -> Path:
        return self._directory / f"{image_id.removeprefix('sha256:')[:32]}.files"

    async def _make(self, image: ImageInfo) -> None:
        try:
            with trio.move_on_after(_LIMIT_S):
                files = await self._list(image)

                def store() -> None:
                    self._directory.mkdir(parents=True, exist_ok=True)
                    write_durably(self._path(image.id), write_image_files(ImageFiles(image_id=image.id, files=files)))
                    _forget_oldest(self._directory)

                await trio.to_thread.run_sync(store)
        except (EngineError, OSError) as error:
            log.warning("the files of an image can't be listed; reports do without", image=image.id, error=str(error))
        except Exception:
            # A defect in this must not take the node down, again with each session of this image.
            log.exception("the files of an image can't be listed; reports do without", image=image.id)
        finally:
            self._under_way.pop(image.id).set()

    async def _list(self, image: ImageInfo) -> list[tuple[str, int]]:
        layers = [Path(layer) for layer in image.layers]
        if layers and all(map(_can_read, layers)):
            return await trio.to_thread.run_sync(
                lambda: sorted(list_layers(layers)), limiter=self._limiter, abandon_on_cancel=True
            )
        # The engine is elsewhere, or keeps its images otherwise: it gives them away as archives only.
        labels = {"bedrock.node": self._node, "bedrock.role": "listing"}
        name = f"bedrock-listing-{self._node}-{image.id.removeprefix('sha256:')[:12]}"
        return sorted(await self._engine.list_image(image.id, name=name, labels=labels))


def list_layers(layers: Sequence[Path]) -> Iterator[tuple[str, int]]:
    """Yield path and size of each regular file in a stack of overlayfs layers, the topmost first.

    A path is what :func:`bedrock.trace.paths.text_of` makes of its bytes.

    A name in an upper layer hides the same name in the lower ones; a character device 0/0 there hides it altogether
    (a whiteout), and a directory marked as opaque hides what lower ones have in it (the kernel's overlayfs.rst).
    """
    seen: set[str] = set()
    hidden: set[str] = set()
    for layer in layers:
        newly_hidden: set[str] = set()
        for directory, status in _directories(layer):
            inside = "/" + os.path.relpath(directory, layer) if directory != str(layer) else ""
            if any(str(parent) in hidden for parent in (PurePosixPath(inside or "/"), *PurePosixPath(inside).parents)):
                continue
            if inside and _is_opaque(directory):
                newly_hidden.add(inside)
            for entry in status:
                path = f"{inside}/{entry.name}"
                if path in hidden:
                    continue
                info = entry.stat(follow_symlinks=False)
                is_new = path not in seen
                if not stat.S_ISDIR(info.st_mode):
                    # A whiteout, or a name that is no directory: what lower layers have below that name is hidden,
                    # also where an upper layer has a new directory of that name.
                    newly_hidden.add(path)
                    if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                        continue
                seen.add(path)
                if is_new and stat.S_ISREG(info.st_mode):
                    yield text_of(os.fsencode(path)), info.st_size
        hidden |= newly_hidden


def _directories(root: Path) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    waiting = [str(root)]
    while waiting:
        directory = waiting.pop()
        with os.scandir(directory) as entries:
            found = list(entries)
        yield directory, found
        waiting += [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]


def _is_opaque(directory: str) -> bool:
    try:
        return os.getxattr(directory, "trusted.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False


def _can_read(layer: Path) -> bool:
    return os.access(layer, os.R_OK | os.X_OK)


def _forget_oldest(directory: Path) -> None:
    lists = sorted(directory.glob("*.files"), key=lambda path: path.stat().st_mtime)
    for path in lists[:-_KEPT]:
        path.unlink(missing_ok=True)


@asynccontextmanager
async def open_image_listings(engine: Engine, directory: Path, *, node: str) -> AsyncIterator[ImageListings]:
    """Yield the lists of one node, kept in ``directory``; leaving the context gives up those that are being made."""
    async with open_service_nursery() as services:
        yield ImageListings(engine, directory, services, node=node)
