"""The nouns of Bedrock: sessions, what was asked for, how one ended, nodes.

Values only: immutable, typed, without behaviour that touches the world. The JSON of these structs is what the REST
interface shows, what the store keeps and what the client reads. Times are aware and in UTC; durations are whole
nanoseconds, shown as Go durations.
"""

from __future__ import annotations

import enum
import re
from datetime import UTC, datetime
from typing import Annotated, NewType

import msgspec
import uuid_utils

from bedrock.duration import MAX_NS, parse_duration
from bedrock.errors import InvalidInput

SessionId = NewType("SessionId", str)
NodeName = NewType("NodeName", str)
# What a count may be, of records or of nanoseconds, and what a container may end with: checked where bytes come in.
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_NS)]
ExitCode = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_Name = Annotated[str, msgspec.Meta(max_length=100)]

# Where nothing proves that a session's files are all, they are taken for all when none has come for this long.
FILES_SETTLED_AFTER_S = 10.0

# What a session's output may be allowed to have at the most.
MAX_OUTPUT_BYTES = 1 << 40

_SESSION_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Status(enum.StrEnum):
    """Where a session is in its life. :mod:`bedrock.lifecycle` says which may follow which."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_terminal(self) -> bool:
        return self in {Status.FINISHED, Status.FAILED, Status.STOPPED}


class Reason(enum.StrEnum):
    """Why a session ended: a fixed vocabulary for programs; ``message`` has the sentence for people."""

    EXIT = "exit"
    TTL = "ttl"
    STOP_REQUEST = "stop_request"
    CLIENT_REQUEST = "client_request"
    IMAGE_NOT_FOUND = "image_not_found"
    PULL_ERROR = "pull_error"
    CREATE_ERROR = "create_error"
    RUNTIME_ERROR = "runtime_error"
    OOM_KILLED = "oom_killed"
    TRACER_ERROR = "tracer_error"
    NODE_LOST = "node_lost"
    SHUTDOWN = "shutdown"


class TraceState(enum.StrEnum):
    """How much a trace can be trusted."""

    COMPLETE = "complete"
    LOSSY = "lossy"
    PARTIAL = "partial"
    UNTRACED = "untraced"


class TraceMode(enum.StrEnum):
    """What of a session's calls is kept."""

    EVENTS = "events"  # each of them
    SUMMARY = "summary"  # counts per file, process and system call, made in the kernel
    OFF = "off"  # nothing; the target runs without a tracer


class EventClass(enum.StrEnum):
    """Kinds of events that a session may choose from. Processes (exec, fork, exit) are always traced."""

    OPEN = "open"
    DATA = "data"
    SEEK = "seek"
    MAP = "map"
    FAULT = "fault"
    STAT = "stat"
    CHANGE = "change"
    SYNC = "sync"


class TraceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How a session is to be traced. What is None is the node's default; empty lists choose everything.

    ``paths`` are directories and files as the container sees them: calls on files elsewhere are left out. ``max_size``
    is the upper size of the trace file in bytes, 0 for none: what comes after it is counted as lost.
    """

    mode: TraceMode | None = None
    paths: list[str] = []
    classes: list[EventClass] = []
    max_size: int | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a session's trace is worth.

    ``complete``: every record from the first instruction to the last is there. ``lossy``: some are missing and ``lost``
    counts them by cause. ``partial``: head or tail is missing, or the tracer died. ``untraced``: there is no trace.

    ``unsupported`` names what the node's kernel did not let the tracer see (:class:`bedrock.tracer.causes.Feature`, in
    lower case). It stands beside any state: ``complete`` means that of what can be seen there, nothing is missing.
    """

    state: TraceState
    seen: Count = 0  # records that were made or should have been; 0 where nobody is left who knows
    events: Count = 0  # of them, how many are in the trace
    lost: Annotated[dict[_Name, Count], msgspec.Meta(max_length=100)] = {}
    unsupported: Annotated[list[_Name], msgspec.Meta(max_length=100)] = []
    message: str = ""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of what a session's command printed.

    ``stdout`` and ``stderr`` are the sizes of what is kept, in bytes; together they are not above ``max_output``. What
    was printed after that is ``over``. ``message`` has a sentence for whatever is not as it was printed.
    """

    stdout: int = 0
    stderr: int = 0
    over: int = 0
    message: str = ""


class LogsState(enum.StrEnum):
    """How far a session's files have come home."""

    PENDING = "pending"  # nothing is stored yet
    STORED = "stored"  # files are stored, but no manifest proves that they are all
    COMPLETE = "complete"  # every file of the manifest is stored with the sha256 that the manifest names
    NONE = "none"  # the session ended before anything could have been written


class Logs(msgspec.Struct, frozen=True, kw_only=True):
    """The upload of a session's files, which is a separate fact from how its container ended."""

    state: LogsState = LogsState.PENDING
    files: int = 0
    size: int = 0
    message: str = ""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one image under the tracer, from the request to the last byte of its logs."""

    id: SessionId
    created_at: datetime
    status: Status
    image: str
    command: str
    ttl: str
    argv: list[str]
    init: bool = False
    labels: dict[str, str] = {}
    tracing: TraceSpec = TraceSpec()
    max_output: int | None = None  # bytes; None is the node's default
    dockerd_id: NodeName | None = None
    reason: Reason | None = None
    message: str = ""
    exit_code: ExitCode | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    trace: Verdict | None = None
    output: Output | None = None
    logs: Logs = Logs()

    @property
    def ttl_ns(self) -> int:
        return parse_duration(self.ttl, field="ttl")

    def has_all_files(self, unchanged_s: float = 0) -> bool:
        """Whether the session has ended and no more of its files are to come, nothing having changed for this long.

        A node that judges the trace sends a manifest as the last file, which proves that they are all, however long
        they take. Where none is to be expected, because the node is of another make or is lost, only time can tell.
        """
        if not self.status.is_terminal:
            return False
        if self.logs.state in {LogsState.COMPLETE, LogsState.NONE}:
            return True
        is_lost = self.reason is Reason.NODE_LOST and self.trace is None
        is_unproven = self.logs.state is LogsState.STORED and self.trace is None
        return (is_lost or is_unproven) and unchanged_s >= FILES_SETTLED_AFTER_S


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a session as the API keeps it. ``size`` is in bytes, ``sha256`` in lower-case hexadecimal."""

    filename: str
    size: int
    sha256: str


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One DockerD as the API knows it. ``slots`` is how many sessions it takes at once, ``used`` how many it has."""

    name: NodeName
    alive: bool
    slots: int
    used: int
    last_seen: datetime
    version: str = ""


def new_session_id() -> SessionId:
    """A fresh UUID of version 7: ids sort by the time at which they were made."""
    return SessionId(str(uuid_utils.uuid7()))


def parse_session_id(text: str) -> SessionId:
    """Return ``text`` as a session id, or refuse it; what passes is safe as a path component and as a key."""
    lowered = text.lower()
    if _SESSION_ID.fullmatch(lowered) is None:
        raise InvalidInput("session_id", f"{text[:80]!r} is not a session id, which is a UUID")
    return SessionId(lowered)


def parse_node_name(text: str, *, field: str = "sender") -> NodeName:
    """Return ``text`` as a node's name, or refuse it; what passes is safe as a path component and as a key."""
    if _NODE_NAME.fullmatch(text) is None:
        raise InvalidInput(
            field, f"{text[:80]!r} is not a node name: 1 to 128 of letters, digits, '.', '_', '-', no sign in front"
        )
    return NodeName(text)


def utc_now() -> datetime:
    return datetime.now(UTC)
