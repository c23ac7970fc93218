"""The measurements of scripts/bench_tracer. All tracers watch the same commands in the same image, in turn."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trio
from bench_host import Programs, measure_host
from debian_image import debian_image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from processes import Fleet  # noqa: E402 - the tests' own way to start everything

from bedrock.client import Client, open_client  # noqa: E402
from bedrock.model import Status  # noqa: E402
from bedrock.trace.verdict import TracerReport, read_report  # noqa: E402

T = TypeVar("T")
ROUNDS = 5
PACKAGES = ["fio", "libc6-dev", "strace", "tcc"]
SOURCES = 300
RATE, RATE_S = 500_000, 10
IDLE_BESIDE = 7  # sessions that are alive beside the one that makes calls at that rate
MANY_BLOCKS = 5_000_000

_DD = "dd if=/dev/zero of=/dev/null bs=1k count={} status=none"
# In memory: on a disk, what a call costs would drown in what the disk does.
_FIO = (
    "fio --name=x --filename=/dev/shm/x --size=48m --rw=randrw --bs=4k --ioengine=psync --randseed=7 --gtod_reduce=1 "
    "--thread --loops={}"
)
_COMPILE = "mkdir -p /tmp/o; for i in $(seq {}); do tcc -c /srv/src/f$i.c -o /tmp/o/f$i.o || exit 1; done"


@dataclass(frozen=True)
class Load:
    """A command, and a smaller one of its kind for strace, with which the whole would take minutes.

    ``bar_us`` is what a traced call may cost.
    """

    name: str
    command: list[str]
    small: list[str]
    bar_us: float


LOADS = [
    Load(
        "dd, blocks of 1 KiB",
        _DD.format(400_000).split(),
        _DD.format(20_000).split(),
        0.6,
    ),
    Load("fio, 4 KiB at random", _FIO.format(24).split(), _FIO.format(1).split(), 0.8),
    Load(
        f"compiling {SOURCES} small files",
        ["sh", "-c", _COMPILE.format(SOURCES)],
        ["sh", "-c", _COMPILE.format(30)],
        1.0,
    ),
]


@dataclass
class Runs:
    """What one tracer made of one load, run by run."""

    seconds: list[float] = field(default_factory=list)
    events: int = 0
    size_bytes: int = 0
    lost: int = 0
    attach_ms: list[float] = field(default_factory=list)  # of tracers that attach for each run anew: ours does not

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


def add_sources(directory: Path) -> None:
    """Small C files, each of which includes a few of its own headers and some of libc's."""
    sources = directory / "src"
    sources.mkdir()
    for number in range(20):
        (sources / f"h{number}.h").write_text(f"static inline int h{number}(int x) {{ return x + {number}; }}\n")
    for number in range(1, SOURCES + 1):
        headers = [number % 20, (number * 7) % 20, (number * 13) % 20]
        lines = ["#include <stdio.h>", "#include <string.h>", *(f'#include "h{n}.h"' for n in sorted(set(headers)))]
        (sources / f"f{number}.c").write_text("\n".join([*lines, f"int f{number}(void) {{ return {number}; }}\n"]))


class Bench:
    """Runs loads under one tracer or another."""

    def __init__(self, client: Client, image: str, directory: Path) -> None:
        self._client = client
        self._image = image
        self._directory = directory

    def untraced(self, command: list[str], runs: Runs) -> None:
        runs.seconds.append(float(docker("run", "--rm", self._image, "bench_run", *command)))

    async def session(self, command: list[str], mode: str) -> tuple[TracerReport, float]:
        """Run a session; return the tracer's own report, and what the command printed. Its trace is in trace.bdt."""
        made = await self._client.create(self._image, command, ttl="10m", trace=mode)
        async for state in self._client.watch(made.id, until_stored=True):
            made = state
        for name in ("stdout.log", "tracer.json", "trace.bdt"):
            await self._client.download(made.id, name, self._directory / name)
        await self._client.delete(made.id)
        report = read_report(self._directory / "tracer.json")
        if report is None or made.exit_code != 0:
            raise SystemExit(f"{command} under our tracer: {made.message}")
        return report, float((self._directory / "stdout.log").read_text())

    @contextlib.asynccontextmanager
    async def idle_sessions(self, count: int) -> AsyncIterator[None]:
        """Have sessions alive and traced that do nothing."""
        made = [
            (await self._client.create(self._image, ["sleep", "600"], ttl="10m", trace="events")).id
            for _ in range(count)
        ]
        for session_id in made:
            async for state in self._client.watch(session_id):
                if state.status is Status.RUNNING:
                    break
        yield
        for session_id in made:
            await self._client.stop(session_id)
        for session_id in made:
            async for _ in self._client.watch(session_id, until_stored=True):
                pass
            await self._client.delete(session_id)

    async def ours(self, command: list[str], mode: str, runs: Runs) -> None:
        report, seconds = await self.session(["bench_run", *command], mode)
        runs.seconds.append(seconds)
        runs.lost += sum(report.lost.values())
        runs.events = report.written
        runs.size_bytes = (self._directory / "trace.bdt").stat().st_size

    def strace(self, command: list[str], runs: Runs) -> None:
        output = self._directory / "strace"
        output.unlink(missing_ok=True)
        done = docker("run", "--rm", "--cap-add", "SYS_PTRACE", "-v", f"{self._directory}:/out", self._image,
                      "bench_run", "strace", "-f", "-o", "/out/strace", *command)  # fmt: skip
        runs.seconds.append(float(done))
        runs.events, runs.size_bytes = lines_of(output), output.stat().st_size

    def bpftrace(self, command: list[str], runs: Runs) -> None:
        name, output = "bedrock-bench-bpftrace", self._directory / "bpftrace"
        waiting = ["sh", "-c", 'read go && exec bench_run "$@"', "sh", *command]
        target = subprocess.Popen(
            ["docker", "run", "--rm", "-i", "--name", name, self._image, *waiting],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        namespace = os.stat(f"/proc/{wait_for(lambda: pid_of(name))}/ns/pid").st_ino
        errors = self._directory / "bpftrace.errors"
        with errors.open("w") as complaints:
            begun = time.perf_counter()
            tracer = subprocess.Popen(
                ["bpftrace", "-o", str(output), str(ROOT / "scripts" / "bench_tracer.bt"), str(namespace)],
                stdout=complaints, stderr=complaints,
            )  # fmt: skip
            try:
                runs.attach_ms.append((attached_at(tracer, errors) - begun) * 1e3)
                printed, _ = target.communicate("go\n", timeout=600)
            finally:
                tracer.terminate()
                tracer.wait()
        runs.seconds.append(float(printed))
        runs.lost += sum(int(found) for found in re.findall(r"Lost (\d+) events", errors.read_text()))
        runs.events, runs.size_bytes = lines_of(output), output.stat().st_size
        output.unlink()


def wait_for(condition: Callable[[], T]) -> T:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.002)
    raise SystemExit("nothing happened for a minute")


def pid_of(container: str) -> int:
    with contextlib.suppress(subprocess.CalledProcessError):
        return int(docker("inspect", "-f", "{{.State.Pid}}", container))
    return 0


def attached_at(tracer: subprocess.Popen[bytes], errors: Path) -> float:
    """When bpftrace had opened its last probe; what it prints comes too late to tell, since it fills a buffer first."""
    probes, since = 0, time.perf_counter()
    while probes == 0 or time.perf_counter() < since + 0.5:
        if tracer.poll() is not None:
            raise SystemExit(f"bpftrace ended: {errors.read_text()}")
        now = sum("perf_event" in name or "bpf_link" in name for name in descriptors_of(tracer.pid))
        if now != probes:
            probes, since = now, time.perf_counter()
        time.sleep(0.005)
    return since


def descriptors_of(pid: int) -> Iterator[str]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            yield os.readlink(link)


def lines_of(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def show(name: str, runs: Runs, plain: Runs, calls: int) -> None:
    cost_us = (runs.median - plain.median) / calls * 1e6
    size = f"{runs.size_bytes / calls:7.1f}" if runs.size_bytes else "      -"
    attach = f"{statistics.median(runs.attach_ms):7.0f}" if runs.attach_ms else "      -"
    print(
        f"  {name:<18} {runs.median:9.3f} s {runs.median / plain.median:8.2f} x {cost_us:9.2f} us {size} B "
        f"{runs.lost:9} lost {attach} ms",
        flush=True,
    )


async def measure(bench: Bench, load: Load) -> None:
    plain, events, summary, script = Runs(), Runs(), Runs(), Runs()
    for _ in range(ROUNDS):
        bench.untraced(load.command, plain)
        await bench.ours(load.command, "events", events)
        await bench.ours(load.command, "summary", summary)
        bench.bpftrace(load.command, script)
    calls = events.events
    print(f"{load.name}: {calls:,} events, {ROUNDS} rounds, medians; bar {load.bar_us} us a traced call", flush=True)
    print("                        seconds   slowdown   cost a call    on disk     lost, all rounds   attach")
    show("untraced", plain, plain, calls)
    show("Bedrock, events", events, plain, calls)
    show("Bedrock, summary", summary, plain, calls)
    show("bpftrace", script, plain, calls)
    small_plain, small_ours, slow = Runs(), Runs(), Runs()
    for _ in range(3):
        bench.untraced(load.small, small_plain)
        bench.strace(load.small, slow)
    await bench.ours(load.small, "events", small_ours)
    show("strace, on less", slow, small_plain, small_ours.events)


async def endure(bench: Bench) -> None:
    async with bench.idle_sessions(IDLE_BESIDE):
        report, seconds = await bench.session(["bench_calls", str(RATE * RATE_S // 2), str(RATE)], "events")
    calls = RATE * RATE_S
    print(
        f"{calls:,} calls in {seconds:.2f} s, {calls / seconds:,.0f} a second, all of one session beside {IDLE_BESIDE} "
        f"idle ones: lost {sum(report.lost.values())} (bar 0)",
        flush=True,
    )


def used_by(code: str, *arguments: str) -> tuple[float, float]:
    """Seconds and MiB resident at most of a Python program."""
    child = "import resource, sys\n" + code + "\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", child, *arguments], capture_output=True, text=True, check=True)
    return time.perf_counter() - begun, int(done.stdout.split()[-1]) / 1024


async def read(bench: Bench, directory: Path) -> None:
    report, seconds = await bench.session(["bench_calls", str(MANY_BLOCKS)], "events")
    path = directory / "trace.bdt"
    size, lost = path.stat().st_size, sum(report.lost.values())
    print(
        f"as fast as it goes: {report.seen:,} events in {seconds:.2f} s, {report.seen / seconds:,.0f} a second; ",
        end="",
    )
    print(f"lost {lost}; {size / 1e6:.1f} MB, {size / report.written:.2f} B an event")
    begin = "from pathlib import Path\nfrom bedrock.trace.{} import {}\n"
    steps = {
        "summary": begin.format("summary", "summarise") + "summarise(Path(sys.argv[1]))",
        "report": begin.format("report", "report_of") + "report_of(Path(sys.argv[1]), None)",
        **{
            name: begin.format("export", "Format, export")
            + f"for piece in export(Path(sys.argv[1]), Format('{name}'), {{}}): pass"
            for name in ("arrow", "parquet", "csv", "jsonl")
        },
    }
    for name, code in steps.items():
        spent, resident = used_by(code, str(path))
        print(
            f"  {name:<8} of {report.written:,} events: {spent:6.1f} s, at most {resident:.0f} MiB resident", flush=True
        )


@contextlib.contextmanager
def compiled(directory: Path, *names: str) -> Iterator[dict[str, bytes]]:
    programs = {}
    for name in names:
        source, program = ROOT / "scripts" / f"{name}.c", directory / name
        subprocess.run(["gcc", "-O2", "-static", str(source), "-o", str(program)], check=True)
        programs[name] = program.read_bytes()
    yield programs


async def main() -> None:
    wanted = sys.argv[1:]
    with (
        tempfile.TemporaryDirectory(prefix="bedrock-bench-") as made,
        Fleet(Path(made)) as fleet,
        compiled(Path(made), "bench_run", "bench_calls", "bench_bystander", "bench_empty") as programs,
    ):
        directory = Path(made)
        image = debian_image("bedrock-bench/debian", PACKAGES, directory, programs=programs, files=add_sources)
        if not wanted or "host" in wanted:
            # Before there is a DockerD, which has a tracer of its own.
            await measure_host(directory, Programs(directory / "bench_bystander", directory / "bench_empty"), image)
        if wanted == ["host"]:
            return
        fleet.api().start()
        fleet.dockerd("bench").start()
        fleet.filemd().start()
        async with open_client(fleet.url) as client:
            bench = Bench(client, image, directory)
            for load in LOADS:
                if not wanted or load.name.split()[0].rstrip(",") in wanted:
                    await measure(bench, load)
            if not wanted or "rate" in wanted:
                await endure(bench)
            if not wanted or "read" in wanted:
                await read(bench, directory)


if __name__ == "__main__":
    trio.run(main)
