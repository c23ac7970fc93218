"""A client of Bedrock as the tests on the engine have it, of which a virtual machine runs the sessions."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import trio

from bedrock.api.requests import CreateRequest, TraceRequest, new_session
from bedrock.model import Reason, Session, Status, TraceState, Verdict
from bedrock.trace.summary import summarise
from bedrock.trace.verdict import TracerReport, judge, read_report
from bedrock.tracer.operations import CLASSES
from bedrock.volume import TRACE_FILE, TRACER_OUTPUT, TRACER_STATUS
from kernel_matrix.guest import Guest
from kernel_matrix.kernels import AMD64

_RING_BYTES = 32 << 20
_LIMIT_S = 240  # an emulated machine is slow
# Programs, and one of the things that pitfalls can do.
_ONLY_X86 = re.compile(r"\b(abi32|abi64|x32)\b")


class NotHere(Exception):
    """A test asks for what a virtual machine has not got, such as a program for another architecture."""


class _Ended(msgspec.Struct, frozen=True):
    """``ended.json``, as session.c writes it."""

    exit_code: int
    tracer_exit_code: int
    in_time: bool
    ended_at: float  # seconds on the machine's wall clock


@dataclass(frozen=True)
class Image:
    """An image in the machine, and what it says of its commands: options of session.c."""

    directory: str
    options: Mapping[str, str]


@dataclass
class GuestClient:
    """Runs each session when it is created. Of a client's methods those are here that tests of traces need."""

    guest: Guest
    images: Mapping[str, Image]
    sessions: dict[str, Session] = field(default_factory=dict)

    async def create(
        self,
        image: str,
        command: str | Sequence[str] = (),
        *,
        ttl: str = "60s",
        init: bool = False,
        labels: Mapping[str, str] | None = None,
        trace: str | Mapping[str, Any] | None = None,
    ) -> Session:
        """Run a session to its end. Raises :class:`NotHere`, and what the machine's failures raise."""
        wanted = trace if isinstance(trace, str) else msgspec.convert(dict(trace or {}), TraceRequest)
        words = command if isinstance(command, str) else list(command)
        session = new_session(
            CreateRequest(image=image, command=words, ttl=ttl, trace=wanted, labels=dict(labels or {}))
        )
        if image not in self.images or init or not session.argv:
            raise NotHere(f"an image {image}{', an init' if init else ''}{'' if session.argv else ', no command'}")
        if self.guest.kernel.arch is not AMD64 and (of_x86 := _ONLY_X86.search(session.command)):
            raise NotHere(f"{of_x86[1]} is for x86")
        place = self.images[image]
        options = {"image": place.directory, "tracer": "/tracer/bdtrace", **place.options}
        await trio.to_thread.run_sync(
            lambda: self.guest.run_session(
                self._volume(session.id), session.argv, options=options, wishes=_wishes(session), limit_s=_LIMIT_S
            )
        )
        self.sessions[session.id] = self._ended(session)
        return self.sessions[session.id]

    async def watch(self, session_id: str, *, until_stored: bool = False) -> AsyncIterator[Session]:
        yield self.sessions[session_id]

    async def download(self, session_id: str, filename: str, path: Path) -> None:
        await trio.to_thread.run_sync(shutil.copyfile, self._volume(session_id) / filename, path)

    @asynccontextmanager
    async def open_file(self, session_id: str, filename: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            yield await trio.Path(self._volume(session_id) / filename).read_bytes()

        yield chunks()

    async def trace(self, session_id: str) -> bytes:
        return msgspec.json.encode(summarise(self._volume(session_id) / TRACE_FILE))

    def report(self, session_id: str) -> TracerReport | None:
        """What the tracer said of itself."""
        return read_report(self._volume(session_id) / TRACER_STATUS)

    def tracer_log(self, session_id: str) -> str:
        path = self._volume(session_id) / TRACER_OUTPUT
        return path.read_text(errors="replace") if path.exists() else ""

    def path_of(self, session_id: str, filename: str) -> Path:
        return self._volume(session_id) / filename

    def _volume(self, session_id: str) -> Path:
        return self.guest.directory / "sessions" / session_id

    def _ended(self, session: Session) -> Session:
        volume = self._volume(session.id)
        report = self.report(session.id)
        trace = volume / TRACE_FILE
        verdict = judge(report, trace.stat().st_size if trace.exists() else 0)
        try:
            ended = msgspec.json.decode((volume / "ended.json").read_bytes(), type=_Ended)
        except (OSError, msgspec.DecodeError):
            said = (volume / "said").read_text(errors="replace")
            untraced = Verdict(state=TraceState.UNTRACED, message=f"there was no session: {said}")
            return msgspec.structs.replace(session, status=Status.FAILED, message=said, trace=untraced)
        status, reason, code = Status.FAILED, Reason.EXIT, ended.exit_code
        message = f"the command exited with code {code}"
        if not ended.in_time:
            reason, message = Reason.TTL, f"the session did not end within {_LIMIT_S} s"
        elif report is None or report.state in {"attached", "failed"}:
            reason, message = Reason.TRACER_ERROR, report.error if report else "the tracer left no report"
        elif report.state == "exec_failed":
            reason, message, code = Reason.CREATE_ERROR, report.error, report.exit_code
        elif code == 0:
            status = Status.FINISHED
        started = report.started_at if report else None
        return msgspec.structs.replace(
            session, status=status, reason=reason, message=message, exit_code=code, started_at=started,
            finished_at=datetime.fromtimestamp(ended.ended_at, UTC), trace=verdict,
        )  # fmt: skip


def _wishes(session: Session) -> list[str]:
    spec = session.tracing
    words = ["--ring-bytes", str(_RING_BYTES), "--mode", spec.mode or "events", "--max-bytes", str(spec.max_size or 0)]
    words += [word for path in spec.paths for word in ("--path", path)]
    if spec.classes:
        words += ["--ops", ",".join(str(int(op)) for name in spec.classes for op in sorted(CLASSES[name]))]
    return words
