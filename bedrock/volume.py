"""The directory of one session: its lock, what the containers see of it, and the papers that recovery reads.

====================  ======================================================================================
``.lock``             there while DockerD owns the directory, with the node's name in it; FileMD waits for it to go
``.order.json``       what was asked for and of which node: enough to take the session up again
``.ending.json``      why the session is over, written before anything is done about that
``.gate/``            mounted read-only at ``/.bedrock`` in the target: the gate, and the tracer's socket
``tracer.json``       the tracer's state and counts, written by the tracer
``trace.bdt``         the trace
``stdout.log`` ...    what the target has printed so far
``.output-over``      how many bytes it has printed beyond its ``max_output``
``image.files``       the files of the image, with their sizes: which of them were never touched is seen from that
``tracer-output.tar`` what a tracer of another make has written into directories
``session.json``      how it ended
``manifest.json``     every file's size and sha256; written last of all
====================  ======================================================================================

Names that begin with a dot are DockerD's own and never leave the host.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from bedrock.lifecycle import Ending, Outcome
from bedrock.model import NodeName, Output, SessionId, StoredFile, Verdict
from bedrock.untrusted import MalformedJson, decode_json
from bedrock.wire import StartOrder

LOCK = ".lock"
GATE_DIR = ".gate"
GATE_MOUNT = "/.bedrock"
LOGS_MOUNT = "/logs"
ORDER = ".order.json"
ENDING = ".ending.json"
SESSION = "session.json"
MANIFEST = "manifest.json"
TRACER_STATUS = "tracer.json"
TRACE_FILE = "trace.bdt"
IMAGE_FILES = "image.files"
FOREIGN_READY = "ready"  # by which a tracer of another make says that it has attached
NESTED_OUTPUT = "tracer-output.tar"
STDOUT = "stdout.log"
STDERR = "stderr.log"
OUTPUT_COUNTER = ".output-over"
TRACER_OUTPUT = "tracer.log"

MAX_MANIFEST_BYTES = 16 << 20
_MAX_RECORD_BYTES = 16 << 20
_BLOCK = 1 << 20
_RESERVE = ".reserve"
_RESERVE_BYTES = 256 << 10


class OrderRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``.order.json``."""

    session_id: SessionId
    node: NodeName
    order: StartOrder


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``session.json``: the end as this node saw it, and what it ran on."""

    session_id: SessionId
    node: NodeName
    order: StartOrder
    outcome: Outcome
    image_id: str = ""
    image_digests: list[str] = []
    engine_version: str = ""
    kernel: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json``: what FileMD must bring home, and what the trace in it is worth."""

    session_id: SessionId
    files: list[StoredFile]
    trace: Verdict | None = None
    output: Output | None = None


class SessionVolume:
    """One session's directory below ``<data_dir>/volumes``. Its methods are quick file operations that block."""

    def __init__(self, volumes_dir: Path, session_id: SessionId) -> None:
        self.session_id = session_id
        self.path = volumes_dir / session_id

    @property
    def name(self) -> str:
        """The name of the engine's volume object."""
        return f"bedrock-{self.session_id}"

    @property
    def gate_path(self) -> Path:
        return self.path / GATE_DIR

    def locked_by(self) -> str | None:
        """The node that owns the directory, None when it is unlocked."""
        try:
            return (self.path / LOCK).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    def claim(self, node: NodeName) -> None:
        """Make the directory, locked. Doing it again is not an error."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_durably(self.path / LOCK, node.encode())

    def prepare(self, record: OrderRecord, gate: Path) -> None:
        """Make the directory, locked, with the order and the gate in it. Doing it again is not an error."""
        # The lock comes first: FileMD must take nothing away from under us.
        self.claim(record.node)
        write_durably(self.path / ORDER, msgspec.json.encode(record))
        # Of a tracer that an earlier attempt had, before a crash; what it said is not this one's.
        (self.path / TRACER_STATUS).unlink(missing_ok=True)
        self.gate_path.mkdir(exist_ok=True)
        # The target may run as any user, and under any umask of ours.
        self.gate_path.chmod(0o755)
        shutil.copyfile(gate, self.gate_path / "gate")
        (self.gate_path / "gate").chmod(0o755)
        # However full the disk is in the end, there is room for the papers that say how it went.
        with (self.path / _RESERVE).open("wb") as reserve:
            os.posix_fallocate(reserve.fileno(), 0, _RESERVE_BYTES)

    def release_reserve(self) -> None:
        """Give the room free that was kept for the last papers. Doing it again is not an error."""
        (self.path / _RESERVE).unlink(missing_ok=True)

    def read_order(self) -> OrderRecord | None:
        """The order, or None where there is none that can be read (a crash came first)."""
        try:
            return decode_json((self.path / ORDER).read_bytes(), OrderRecord, max_bytes=_MAX_RECORD_BYTES)
        except (OSError, MalformedJson):
            return None

    def read_ending(self) -> Ending | None:
        """Why the session is over; None while it is not."""
        try:
            return decode_json((self.path / ENDING).read_bytes(), Ending, max_bytes=_MAX_RECORD_BYTES)
        except (OSError, MalformedJson):
            return None

    def write_ending(self, ending: Ending) -> None:
        """Write down why the session is over: from here on that is decided, whatever is seen of its end."""
        write_durably(self.path / ENDING, msgspec.json.encode(ending))

    def read_session(self) -> SessionRecord | None:
        """How it ended, once all of that is known."""
        try:
            return decode_json((self.path / SESSION).read_bytes(), SessionRecord, max_bytes=_MAX_RECORD_BYTES)
        except (OSError, MalformedJson):
            return None

    def write_session(self, record: SessionRecord) -> None:
        """Write down how it ended, once all of it has been collected."""
        write_durably(self.path / SESSION, msgspec.json.encode(record))

    def write_manifest(self, record: SessionRecord, between_blocks: Callable[[], None] = lambda: None) -> None:
        """Write down all that leaves the host. A crash may have come between the session and its manifest.

        ``between_blocks`` is called now and then, since hashing gigabytes takes long; what it raises ends it.
        """
        manifest = Manifest(
            session_id=self.session_id,
            files=[describe_file(path, between_blocks) for path in self._uploads()],
            trace=record.outcome.trace,
            output=record.outcome.output,
        )
        write_durably(self.path / MANIFEST, msgspec.json.encode(manifest))

    def write_report(self, report: bytes) -> None:
        """Write down how the target was let go, where no tracer of ours does."""
        write_durably(self.path / TRACER_STATUS, report)

    def pack_nested(self) -> None:
        """Put what a tracer has written into directories of its own into one file, since only files are uploaded."""
        nested = [path for path in sorted(self.path.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        if not nested:
            return
        temporary = self.path / f".{NESTED_OUTPUT}.tmp"
        with tarfile.open(temporary, "w") as archive:
            for path in nested:
                archive.add(path, arcname=path.name)
        temporary.rename(self.path / NESTED_OUTPUT)
        for path in nested:
            shutil.rmtree(path, ignore_errors=True)

    def unlock(self) -> None:
        """Hand the directory over to FileMD. Doing it again is not an error."""
        (self.path / LOCK).unlink(missing_ok=True)
        sync_directory(self.path)

    def discard(self) -> None:
        """Remove the directory with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _uploads(self) -> Iterator[Path]:
        for path in sorted(self.path.iterdir()):
            if path.is_file() and not path.is_symlink() and not path.name.startswith(".") and path.name != MANIFEST:
                yield path


def describe_file(path: Path, between_blocks: Callable[[], None] = lambda: None) -> StoredFile:
    """Name, size and sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            between_blocks()
            digest.update(block)
            size += len(block)
    return StoredFile(filename=path.name, size=size, sha256=digest.hexdigest())


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file atomically, so that a crash at any time leaves the old content or the new."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
