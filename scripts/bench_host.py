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
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import trio

from bedrock.dockerd.containers import GATE_MOUNT, VOLUMES_MOUNT, host_tracer_name, host_tracer_plan
from bedrock.dockerd.engine import Engine, open_engine
from bedrock.dockerd.engine_values import ContainerPlan, ImageInfo
from bedrock.dockerd.tracer_link import TracerAway, TracerLook, ask, look
from bedrock.model import NodeName
from bedrock.settings import load_settings

ROUNDS, MAX_TRIES = 5, 10
ALIVE = (1, 8, 64)
CALLS = 1_000_000
RING_BYTES = 32 << 20
_NODE = NodeName("bench-host")
_STEP_S = 0.0002
# Sessions up to this number begin so far apart, as they do on a node that is not starting all its sessions at once.
_APART, _APART_S = 8, 0.25


@dataclass(frozen=True)
class Programs:
    """The compiled ones: a process outside of every session, and probes that do nothing."""

    bystander: Path
    empty: Path


class Host:
    """A tracer that can be started and ended, and containers in which sessions can begin."""

    def __init__(self, engine: Engine, image: ImageInfo, directory: Path, programs: Programs) -> None:
        self._engine = engine
        self._image = image
        self._programs = programs
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
        command = [str(self._programs.bystander), str(CALLS)]
        runs = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)]
        return statistics.median(runs)

    def floor_ns(self) -> float:
        """The same while programs that do nothing are attached where every tracer of system calls has its own."""
        with subprocess.Popen([self._programs.empty], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as empty:
            assert empty.stdin is not None
            assert empty.stdout is not None
            if not empty.stdout.readline():
                raise SystemExit("the programs that do nothing could not be attached")
            cost_ns = self.bystander_ns()
            empty.stdin.close()
        return cost_ns

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


def _count_tracers() -> int:
    """How many tracers run on this kernel, whoever started them."""
    return sum(_name_of(int(path.name)) == "bdtrace" for path in Path("/proc").iterdir() if path.name.isdigit())


@contextlib.asynccontextmanager
async def _open_host(directory: Path, programs: Programs, image: str) -> AsyncIterator[Host]:
    own = load_settings().dockerd
    async with open_engine(own.docker_host) as engine:
        host = Host(engine, await engine.image(own.bedrock_tracer_image), directory, programs)
        try:
            await host.add_containers(max(ALIVE), image)
            yield host
        finally:
            await host.remove()


@dataclass
class Round:
    """What a bystander's call cost in nanoseconds, in one round: without any probe, with probes that do nothing, and
    with the tracer by the number of sessions."""

    none: float
    floor: float
    cost: dict[int, float]
    attach_ms: float
    others: set[int]  # how many other tracers there were, each time that it was measured


class _Arming:
    """Times until the answer, and until the gate was opened, in milliseconds."""

    def __init__(self) -> None:
        self.apart: list[tuple[float, float]] = []
        self.at_once: list[tuple[float, float]] = []


async def _round(host: Host, arming: _Arming) -> Round:
    own = 0
    others: set[int] = set()

    def measured() -> float:
        others.add(_count_tracers() - own)
        return host.bystander_ns()

    none = measured()
    floor = host.floor_ns()
    attach_ms = (await host.start_tracer()).attach_ms
    own = 1
    cost = {0: measured()}
    alive = 0
    for count in ALIVE:
        while alive < count:
            if alive < _APART:
                await trio.sleep(_APART_S)
            (arming.apart if alive < _APART else arming.at_once).append(await host.begin(alive))
            alive += 1
        cost[count] = measured()
    for number in range(alive):
        await host.end(number)
    await host.end_tracer()
    return Round(none, floor, cost, attach_ms, others | {_count_tracers()})


async def measure_host(directory: Path, programs: Programs, image: str) -> None:
    """Print what a bystander's call costs by the number of sessions, and how long one session more takes to arm."""
    place = directory / "host"
    place.mkdir()
    rounds: list[Round] = []
    arming = _Arming()
    tries = 0
    try:
        async with _open_host(place, programs, image) as host:
            # Other tracers on this kernel cost calls, too: rounds in which one came or went are not comparable.
            while len(rounds) < ROUNDS and tries < MAX_TRIES:
                tries += 1
                made = await _round(host, arming)
                if len(made.others) == 1:
                    rounds.append(made)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if rounds:
        _show_bystander(rounds)
    else:
        print(f"other tracers came or went in each of {tries} rounds: what a bystander's call costs is not known")
    print("arming one more session (bar 10 ms until the answer):")
    for name, times in (
        (f"{_APART_S} s after the one before", arming.apart),
        ("right after the one before", arming.at_once),
    ):
        print(f"  {name}, {len(times)} times")
        print(f"    until the answer:          {_quantiles([answer for answer, _ in times])}")
        print(f"    until the gate was opened: {_quantiles([opened for _, opened in times])}", flush=True)


def _show_bystander(rounds: list[Round]) -> None:
    none = [made.none for made in rounds]
    others = _span([count for made in rounds for count in made.others])
    print(
        f"a call (pread of 1 byte) outside every session, {CALLS:,} calls 3 times, {len(rounds)} rounds: median, least"
    )
    print(f"  without this tracer, {others} others on the host: {statistics.median(none):6.0f} {min(none):6.0f} ns")
    floor = [made.floor for made in rounds]
    more = statistics.median(made.floor - made.none for made in rounds)
    print(
        f"  with probes that do nothing:               {statistics.median(floor):6.0f} {min(floor):6.0f} ns, "
        f"{more:4.0f} {min(floor) - min(none):4.0f} ns more (no tracer of calls costs less)"
    )
    for count in (0, *ALIVE):
        values = [made.cost[count] for made in rounds]
        added = statistics.median(made.cost[count] - made.none for made in rounds)
        print(
            f"  with it and {count:2} sessions alive:          {statistics.median(values):6.0f} {min(values):6.0f} ns, "
            f"{added:4.0f} {min(values) - min(none):4.0f} ns more (bar 100)"
        )
    attach_ms = statistics.median(made.attach_ms for made in rounds)
    print(f"loading and attaching the probes, once for the host: {attach_ms:.0f} ms")


def _span(values: list[int]) -> str:
    return str(values[0]) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _quantiles(values: list[float]) -> str:
    ordered = sorted(values)
    return f"median {statistics.median(ordered):.2f} ms, 95 % within {ordered[int(len(ordered) * 0.95)]:.2f} ms"
