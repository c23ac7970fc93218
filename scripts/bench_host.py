"""What a host's tracer costs those that it does not trace, and how long it takes to have one session more traced.

The sessions here are containers that stay, in whose PID namespaces a gate is run anew in each round: so all states,
from no tracer to 64 sessions, can be measured in turn within seconds of each other.
"""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import shutil
import statistics
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import trio

from bedrock.dockerd.containers import GATE_MOUNT, VOLUMES_MOUNT, host_tracer_name, host_tracer_plan
from bedrock.dockerd.engine import Engine, open_engine
from bedrock.dockerd.engine_values import ContainerPlan, ImageInfo
from bedrock.dockerd.tracer_link import TracerAway, TracerLook, ask, look
from bedrock.model import NodeName
from bedrock.settings import load_settings

ROUNDS = 5
ALIVE = (1, 8, 64)
CALLS = 1_000_000
RING_BYTES = 32 << 20
_NODE = NodeName("bench-host")
_STEP_S = 0.0002
# Sessions up to this number begin so far apart, as they do on a node that is not starting all its sessions at once.
_APART, _APART_S = 8, 0.25


class Host:
    """A tracer that can be started and ended, and containers in which sessions can begin."""

    def __init__(self, engine: Engine, image: ImageInfo, directory: Path, program: Path) -> None:
        self._engine = engine
        self._image = image
        self._program = program
        self._volumes = directory / "volumes"
        self._control = directory / "control"
        self._containers: list[str] = []
        self._pids: list[int] = []
        self._tracer = host_tracer_name(_NODE, self._volumes, image)
        self._socket = self._control / "sock"
        self._control.mkdir()

    async def add_containers(self, count: int, image: str) -> None:
        gate = await self._gate()
        for number in range(count):
            directory = self._directory(number) / ".gate"
            directory.mkdir(parents=True)
            (directory / "gate").write_bytes(gate)
            (directory / "gate").chmod(0o755)
            plan = ContainerPlan(
                name=f"bedrock-bench-{secrets.token_hex(6)}", image=image, command=["sleep", "100000"], labels={},
                binds=[f"{directory}:{GATE_MOUNT}:ro"],
            )  # fmt: skip
            self._containers.append(plan.name)
            await self._engine.create(plan)
            await self._engine.start(plan.name)
            self._pids.append((await self._engine.inspect(plan.name)).pid)

    async def _gate(self) -> bytes:
        name = f"bedrock-bench-{secrets.token_hex(6)}"
        archive = io.BytesIO(await self._engine.read_image_file(self._image.id, "/gate", name=name, labels={}))
        with tarfile.open(fileobj=archive) as tar:
            file = tar.extractfile("gate")
            assert file is not None
            return file.read()

    async def remove(self) -> None:
        with trio.CancelScope(shield=True):
            for name in [*self._containers, self._tracer]:
                await self._engine.remove(name)

    async def start_tracer(self) -> TracerLook:
        await self._engine.create(
            host_tracer_plan(
                self._image, node=_NODE, control=self._control, volumes=self._volumes, ring_bytes=RING_BYTES
            )
        )
        await self._engine.start(self._tracer)
        while True:
            with contextlib.suppress(TracerAway):
                return await look(self._socket)
            await trio.sleep(0.02)

    async def end_tracer(self) -> None:
        await self._engine.kill(self._tracer, "SIGINT")
        await self._engine.remove(self._tracer)

    async def begin(self, number: int) -> tuple[float, float]:
        """Have a session traced whose gate waits already. Milliseconds to the answer, and until the gate was opened."""
        directory = self._directory(number)
        (directory / "tracer.json").unlink(missing_ok=True)
        gate = await trio.lowlevel.open_process(
            ["nsenter", "-t", str(self._pids[number]), "-p", "-m", f"{GATE_MOUNT}/gate", "/bin/true"]
        )
        while not any(_name_of(pid) == "gate" for pid in _children_of(gate.pid)):  # noqa: ASYNC110 - no event for it
            await trio.sleep(_STEP_S)
        options = ["-o", f"{VOLUMES_MOUNT}/{number}", "--ring-bytes", str(RING_BYTES), "--mode", "events"]
        begun = time.monotonic_ns()
        await ask(self._socket, ["trace", str(number), *options])
        answered = time.monotonic_ns()
        while (report := json.loads((directory / "tracer.json").read_text()))["state"] != "running":
            if report["state"] not in ("starting", "attached"):
                raise SystemExit(f"the session was not traced: {report}")
            await trio.sleep(_STEP_S)
        await gate.wait()
        return (answered - begun) / 1e6, (report["t0_ns"] - begun) / 1e6

    async def end(self, number: int) -> None:
        await ask(self._socket, ["end", str(number)])

    def bystander_ns(self) -> float:
        """What a call costs a process outside of every session: the median of three runs."""
        command = [str(self._program), str(CALLS)]
        runs = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)]
        return statistics.median(runs)

    def _directory(self, number: int) -> Path:
        return self._volumes / str(number)


def _name_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _children_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _tracers() -> Iterator[int]:
    """Tracers that run on this kernel, whoever started them."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and _name_of(int(path.name)) == "bdtrace":
            yield int(path.name)


@contextlib.asynccontextmanager
async def _open_host(directory: Path, program: Path, image: str) -> AsyncIterator[Host]:
    own = load_settings().dockerd
    async with open_engine(own.docker_host) as engine:
        host = Host(engine, await engine.image(own.bedrock_tracer_image), directory, program)
        try:
            await host.add_containers(max(ALIVE), image)
            yield host
        finally:
            await host.remove()


async def measure_host(directory: Path, program: Path, image: str) -> None:
    """Print what a bystander's call costs by the number of sessions, and how long one session more takes to arm."""
    place = directory / "host"
    place.mkdir()
    none: list[float] = []
    cost: dict[int, list[float]] = {count: [] for count in (0, *ALIVE)}
    apart: list[tuple[float, float]] = []
    at_once: list[tuple[float, float]] = []
    attach: list[float] = []
    others: list[int] = []
    try:
        async with _open_host(place, program, image) as host:
            for _ in range(ROUNDS):
                others.append(len(list(_tracers())))
                none.append(host.bystander_ns())
                attach.append((await host.start_tracer()).attach_ms)
                cost[0].append(host.bystander_ns())
                alive = 0
                for count in ALIVE:
                    while alive < count:
                        if alive < _APART:
                            await trio.sleep(_APART_S)
                        (apart if alive < _APART else at_once).append(await host.begin(alive))
                        alive += 1
                    cost[count].append(host.bystander_ns())
                for number in range(alive):
                    await host.end(number)
                await host.end_tracer()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    before = statistics.median(none)
    print(f"a call (pread of 1 byte) outside every session, {CALLS:,} calls 3 times, {ROUNDS} rounds, medians")
    print(f"  no tracer but {_span(others)} of others on this host: {before:7.1f} ns")
    for count, values in cost.items():
        added = statistics.median(own - plain for own, plain in zip(values, none, strict=True))
        own = statistics.median(values)
        print(f"  the tracer with {count:2} sessions alive: {own:7.1f} ns, {added:6.1f} ns more (bar 100)")
    print("arming one more session (bar 10 ms until the answer):")
    for name, times in ((f"{_APART_S} s after the one before", apart), ("right after the one before", at_once)):
        print(f"  {name}, {len(times)} times")
        print(f"    until the answer:          {_quantiles([answer for answer, _ in times])}")
        print(f"    until the gate was opened: {_quantiles([opened for _, opened in times])}")
    print(f"loading and attaching the probes, once for the host: {statistics.median(attach):.0f} ms", flush=True)


def _span(values: list[int]) -> str:
    return str(values[0]) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _quantiles(values: list[float]) -> str:
    ordered = sorted(values)
    return f"median {statistics.median(ordered):.2f} ms, 95 % within {ordered[int(len(ordered) * 0.95)]:.2f} ms"
