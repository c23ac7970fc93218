"""The measurements of scripts/bench. Each figure stands beside one of plain Docker, taken in turn with it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from make_image import make_image, remove_image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from processes import Fleet  # noqa: E402 - the tests' own way to start everything

from bedrock.client import Client, open_client  # noqa: E402
from bedrock.model import Session  # noqa: E402
from bedrock.trace.verdict import read_report  # noqa: E402

IMAGE = "bedrock-bench/busybox:1"
ROUNDS = 11
AT_ONCE, IN_ALL, MANY_ROUNDS = 8, 32, 3
BLOCKS = 200_000
CALLS = 2 * BLOCKS
DD = ["bench_calls", str(BLOCKS)]


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def seconds_of(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


async def session(client: Client, command: list[str]) -> Session:
    made = await client.create(IMAGE, command, ttl="5m")
    async for state in client.watch(made.id, until_stored=True):
        made = state
    return made


def line(what: str, ours: list[float], theirs: list[float], *, unit: str, name: str, bar: str) -> None:
    own, other = statistics.median(ours), statistics.median(theirs)
    print(f"{what:<52} {own:9.3f} {unit}  {name} {other:9.3f} {unit}  ratio {own / other:5.2f} (bar {bar})", flush=True)


async def sessions(client: Client) -> None:
    begin, run_d, whole, run_rm = [], [], [], []
    for _ in range(ROUNDS):
        run_d.append(seconds_of(lambda: docker("run", "-d", "--name", "bedrock-bench", IMAGE, "sleep", "60")))
        docker("rm", "-f", "bedrock-bench")
        made = await session(client, ["true"])
        assert made.started_at is not None
        begin.append((made.started_at - made.created_at).total_seconds())
        run_rm.append(seconds_of(lambda: docker("run", "--rm", IMAGE, "true")))
        started = time.perf_counter()
        await session(client, ["true"])
        whole.append(time.perf_counter() - started)
    line("POST to the target's first own instruction, traced", begin, run_d, unit="s", name="docker run -d", bar="1.2")
    line("whole session of true, POST to logs readable", whole, run_rm, unit="s", name="docker run --rm", bar="1.4")


async def many(client: Client) -> None:
    """Sessions a minute with as many at once as a node takes, beside docker run with as many at once."""

    async def run_all(run: Callable[[], Awaitable[object]]) -> float:
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def one() -> None:
            async with limiter:
                await run()

        begun = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(IN_ALL):
                nursery.start_soon(one)
        return IN_ALL / (time.perf_counter() - begun) * 60

    ours, theirs = [], []
    for _ in range(MANY_ROUNDS):
        theirs.append(await run_all(lambda: trio.to_thread.run_sync(lambda: docker("run", "--rm", IMAGE, "true"))))
        ours.append(await run_all(lambda: session(client, ["true"])))
    line(f"sessions of true, {AT_ONCE} at once", ours, theirs, unit="a minute", name="docker run --rm", bar="0.9")


async def tracing(client: Client, directory: Path) -> None:
    plain, traced, sizes, lost, attach_ms = [], [], [], 0, 0.0
    for _ in range(ROUNDS // 2):
        plain.append(float(docker("run", "--rm", IMAGE, *DD)))
        made = await session(client, DD)
        for name in ("stdout.log", "tracer.json", "trace.bdt"):
            await client.download(made.id, name, directory / name)
        traced.append(float((directory / "stdout.log").read_text()))
        report = read_report(directory / "tracer.json")
        assert report is not None
        attach_ms = report.attach_ms
        lost += sum(report.lost.values())
        sizes.append((directory / "trace.bdt").stat().st_size / CALLS)
    line(f"reading and writing 1 KiB blocks, {CALLS:,} calls", traced, plain, unit="s", name="untraced", bar="none")
    cost = (statistics.median(traced) - statistics.median(plain)) / CALLS * 1e6
    print(f"a traced call costs {cost:.2f} us and {statistics.median(sizes):.0f} bytes; lost {lost}; ", end="")
    print(f"the probes were loaded and attached, once for the host, in {attach_ms:.0f} ms")


async def main() -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="bedrock-bench-") as directory, Fleet(Path(directory)) as fleet:
            program = Path(directory, "bench_calls")
            source = ROOT / "scripts" / "bench_calls.c"
            subprocess.run(["gcc", "-O2", "-static", str(source), "-o", str(program)], check=True)
            make_image(IMAGE, {"bin/bench_calls": program.read_bytes()}, ["ENV PATH=/bin"])
            fleet.api().start()
            fleet.dockerd("bench").start()
            fleet.filemd().start()
            async with open_client(fleet.url) as client:
                await session(client, ["true"])
                await sessions(client)
                await many(client)
                await tracing(client, Path(directory))
    finally:
        remove_image(IMAGE)


if __name__ == "__main__":
    trio.run(main)
