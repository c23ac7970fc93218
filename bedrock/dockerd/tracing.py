"""The tracer's side of a session: its image and gate, and what it says of itself in the volume."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

import msgspec
import structlog
import trio

from bedrock.concurrency.inotify import Inotify
from bedrock.dockerd.containers import is_ours
from bedrock.dockerd.engine import Engine
from bedrock.dockerd.engine_values import EngineError, ImageInfo, ImageMissing
from bedrock.errors import BedrockError
from bedrock.model import Verdict
from bedrock.trace.blocks import count_records
from bedrock.trace.verdict import TracerReport, judge, read_report
from bedrock.tracer import OWN_IMAGE
from bedrock.tracer.build import provide_image
from bedrock.tracer.programs import is_current
from bedrock.volume import FOREIGN_READY, TRACE_FILE, TRACER_STATUS, SessionVolume, write_durably

log = structlog.get_logger(__name__)

_GATE_IN_IMAGE = "/gate"
# Should a notification be missed (the watch is a convenience of the kernel, not a promise), the file is read anyway.
_SAFETY_INTERVAL_S = 1.0


class TracerFailed(BedrockError):
    """The tracer could not be started, or did not come so far as to open the gate."""


class TracerImage(msgspec.Struct, frozen=True, kw_only=True):
    """The tracer image as it is on this host, and the gate: out of it, or out of ours where it has none."""

    info: ImageInfo
    gate: Path

    @property
    def is_ours(self) -> bool:
        return is_ours(self.info)


async def fetch_gate(engine: Engine, image: ImageInfo, cache_dir: Path, *, name: str, labels: dict[str, str]) -> Path:
    """Return the gate program that belongs to a tracer image, kept in ``cache_dir`` by the image's id."""
    path = cache_dir / f"gate-{image.id.removeprefix('sha256:')[:32]}"
    if path.exists():
        return path
    try:
        archive = await engine.read_image_file(image.id, _GATE_IN_IMAGE, name=name, labels=labels)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.extractfile(tar.getmembers()[0])
            if member is None:
                raise TracerFailed(f"{_GATE_IN_IMAGE} of the tracer image is not a file")
            content = member.read()
    except (ImageMissing, tarfile.TarError, IndexError) as error:
        raise TracerFailed(f"the tracer image has no gate ({_GATE_IN_IMAGE}): {error}") from None

    def store() -> None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)
        path.chmod(0o755)

    await trio.to_thread.run_sync(store)
    return path


async def tracer_image(
    engine: Engine, name: str, cache_dir: Path, *, node: str, docker_host: str, machine: str
) -> TracerImage:
    """Find the tracer image and its gate, having made our own image where this installation carries its programs.

    ``machine`` is what the engine runs on. Raises :class:`TracerFailed`, or :class:`BuildFailed`, with the remedy.
    """
    if await trio.to_thread.run_sync(provide_image, name, docker_host):
        log.info("tracer image made", image=OWN_IMAGE)
    try:
        info = await engine.image(name)
    except ImageMissing:
        raise TracerFailed(f"the tracer image {name} is not on this host; `bedrock tracer build` makes it") from None
    if is_ours(info) and not is_current(name, info.labels, machine):
        log.warning("the tracer image is of other sources than this Bedrock", image=name, remedy="bedrock tracer build")
    try:
        gate = await fetch_gate(
            engine,
            info if is_ours(info) else await engine.image(OWN_IMAGE),
            cache_dir,
            name=f"bedrock-gate-{node}",
            labels={"bedrock.node": node, "bedrock.role": "gate"},
        )
    except ImageMissing:
        raise TracerFailed(
            f"{name} is not Bedrock's tracer, so the gate comes from {OWN_IMAGE}, which is not on this host; "
            f"`bedrock tracer build --image {OWN_IMAGE}` makes it"
        ) from None
    except EngineError as error:
        raise TracerFailed(f"the gate can't be taken out of the tracer image {name}: {error}") from None
    return TracerImage(info=info, gate=gate)


async def wait_gate_open(volume: SessionVolume, inotify: Inotify) -> TracerReport:
    """Return the tracer's report once the target's own program runs, or once it is clear that it never will.

    Its ``state`` says which: ``running``, or ``failed``, or ``exec_failed``. Waits for ever; the caller has the
    deadline.
    """
    async with inotify.watching(volume.path) as changed:
        while True:
            report = report_of(volume)
            if report is not None and report.state != "attached":
                return report
            with trio.move_on_after(_SAFETY_INTERVAL_S):
                await changed.wait()


async def wait_foreign_ready(volume: SessionVolume, inotify: Inotify, delay_s: float) -> None:
    """Return when a tracer of another make says that it has attached, or when it has had long enough to."""
    async with inotify.watching(volume.path) as changed:
        with trio.move_on_after(delay_s):
            while not await trio.Path(volume.path / FOREIGN_READY).exists():
                with trio.move_on_after(_SAFETY_INTERVAL_S):
                    await changed.wait()


def report_untraced(started_at_ns: int) -> TracerReport:
    """What is written down of a target that runs without a tracer since a time on the wall clock."""
    offset_ns = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return TracerReport(state="off", t0_ns=started_at_ns - offset_ns, realtime_offset_ns=offset_ns)


def report_of(volume: SessionVolume) -> TracerReport | None:
    """What the tracer has last said of itself in this volume."""
    return read_report(volume.path / TRACER_STATUS)


def verdict_of(volume: SessionVolume) -> Verdict:
    """What the trace in this volume is worth."""
    path = volume.path / TRACE_FILE
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    report = report_of(volume)
    if report is not None and report.state == "running":
        # Its counts are those of its beginning: what it has written since is to be seen from the file alone.
        report = msgspec.structs.replace(report, written=count_records(path))
    return judge(report, size)
