"""The tests on the engine, called as they stand on the sessions of a virtual machine."""

from __future__ import annotations

import enum
import importlib
import inspect
import itertools
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import trio
from _pytest.assertion import install_importhook
from _pytest.config import get_config
from engine_facts import IMAGE, NOBODYS_IMAGE

from bedrock.model import Session, TraceState
from bedrock.trace.events import Event, read_events
from bedrock.volume import TRACE_FILE
from kernel_matrix.client import GuestClient, NotHere
from kernel_matrix.guest import GuestFailed

_MODULES = (
    "test_pitfalls", "test_other_doors", "test_metadata", "test_names", "test_truth_arguments", "test_truth_doors",
    "test_truth_files", "test_truth_identity", "test_truth_memory", "test_truth_processes", "test_stress",
    "test_main_job", "test_tracing", "test_oracle",
)  # fmt: skip
# A test that mentions one of these looks at the engine, or at sessions while they run.
_NEEDS_ENGINE = {"running", "docker", "containers_of", "stop", "nodes", "ApiError", "run_strace"}
DEBIAN = "debian"
# Of the programs whose calls are compared with strace's account, those that are there: small ones, and quick.
_COMPARED = {
    "coreutils", "tar and gzip", "sqlite", "bash", "busybox", "io_uring", "corners", "known input and output",
    "threads", "forks", "attributes", "32 bits",
}  # fmt: skip
# The slowest of them, which a short run leaves out.
_COMPARED_SLOWLY = {"coreutils", "tar and gzip", "bash"}
# Fixtures for which the machine has something of its own.
_OFFERED = {"client", "traced", "image", "nobodys_image", "debian", "oracle_programs", "explained", "tmp_path"}
# The tests count in pages of this size.
_PAGE_BYTES = 4096
# What a tracer can say that it does not see on a kernel, and how tests for that are known: by the events they mention.
_EVENTS_OF = {"page_faults": "fault", "device_reads": "page_in", "io_uring": "uring_"}


class Outcome(enum.StrEnum):
    OK = "ok"
    FAILED = "failed"
    LEFT_OUT = "left out"


@dataclass(frozen=True)
class Judgement:
    """What one test says. ``detail``: of a failure what failed, of one that was left out why."""

    test: str
    outcome: Outcome
    detail: str = ""
    lost: Mapping[str, int] | None = None  # of a failure, where a trace was lossy
    seconds: float = 0.0
    is_comparison: bool = False  # with what strace has seen

    def __str__(self) -> str:
        return f"{self.outcome:8} {self.seconds:5.1f} s  {self.test}{self.detail and f': {self.detail}'}"


@dataclass(frozen=True)
class Test:
    """A test with its parameters."""

    name: str
    function: Callable[..., Coroutine[Any, Any, None]]
    parameters: Mapping[str, object]


def find_tests(*, is_short: bool = False) -> Iterator[Test]:
    """All tests on the engine that can judge a session which has already ended."""
    compared = _COMPARED - _COMPARED_SLOWLY if is_short else _COMPARED
    # So that a test that fails says what it compared, as under pytest itself.
    install_importhook(get_config())
    for module_name in _MODULES:
        module = importlib.import_module(module_name)
        for name, function in inspect.getmembers(module, inspect.iscoroutinefunction):
            if not name.startswith("test_") or _names_in(function) & _NEEDS_ENGINE:
                continue
            needed = set(inspect.signature(function).parameters)
            for parameters in _parameter_sets(function):
                if "debian" in needed and parameters.get("name") not in compared:
                    continue
                if needed <= _OFFERED | set(parameters):
                    shown = ",".join(str(value)[:40] for value in parameters.values())
                    title = name.removeprefix("test_").replace("_", " ") + (f" [{shown}]" if shown else "")
                    yield Test(title, function, parameters)


def _codes_of(function: Callable[..., object]) -> Iterator[CodeType]:
    """A function's code, and that of all functions inside it."""
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [item for item in code.co_consts if isinstance(item, CodeType)]


def _names_in(function: Callable[..., object]) -> set[str]:
    return {name for code in _codes_of(function) for name in code.co_names}


def _needs(function: Callable[..., object], unsupported: Collection[str]) -> list[str]:
    """Which of the unsupported things a test looks at."""
    texts = str([code.co_consts for code in _codes_of(function)])
    return [name for name in unsupported if name in _EVENTS_OF and f"'{_EVENTS_OF[name]}" in texts]


def _parameter_sets(function: Callable[..., object]) -> Iterator[dict[str, object]]:
    marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
    choices = []
    for mark in marks:
        names = mark.args[0] if isinstance(mark.args[0], tuple) else [name.strip() for name in mark.args[0].split(",")]
        choices.append(
            [dict(zip(names, values if len(names) > 1 else [values], strict=True)) for values in mark.args[1]]
        )
    for chosen in itertools.product(*choices):
        yield {name: value for part in chosen for name, value in part.items()}


def judge_test(test: Test, client: GuestClient, *, page_bytes: int, unsupported: Collection[str]) -> Judgement:
    """Run one test on a kernel that has pages of this size, and on which the tracer does not see what is unsupported.

    Raises :class:`GuestFailed` when the machine is lost; whatever else a test raises is a failure.
    """
    begun, before = time.monotonic(), set(client.sessions)
    outcome, detail, lost = Outcome.OK, "", None
    if page_bytes != _PAGE_BYTES and "PAGE" in _names_in(test.function):
        return Judgement(test.name, Outcome.LEFT_OUT, f"counts in pages of {_PAGE_BYTES} bytes")
    with tempfile.TemporaryDirectory(prefix="bedrock-kernels-") as name:
        offered = {
            "client": client, "traced": _traced_by(client), "image": IMAGE, "nobodys_image": NOBODYS_IMAGE,
            "debian": DEBIAN, "oracle_programs": {}, "explained": {}, "tmp_path": Path(name), **test.parameters,
        }  # fmt: skip
        wanted = {key: offered[key] for key in inspect.signature(test.function).parameters}
        try:
            trio.run(lambda: test.function(**wanted))
        except (NotHere, pytest.skip.Exception) as missing:
            outcome, detail = Outcome.LEFT_OUT, str(missing)
        except GuestFailed:
            raise
        except (Exception, pytest.fail.Exception) as error:
            outcome, detail = Outcome.FAILED, _sentence(error)
            if needed := _needs(test.function, unsupported):
                # What the tracer says that it can't see, it does not see: that is no failure, and no success either.
                outcome, detail = Outcome.LEFT_OUT, f"{', '.join(needed)}: {detail}"
            lost = _lost_in(client.sessions[key] for key in client.sessions.keys() - before)
    seconds = time.monotonic() - begun
    return Judgement(test.name, outcome, detail, lost, seconds, "debian" in wanted)


def _lost_in(sessions: Iterable[Session]) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for session in sessions:
        if session.trace is not None and session.trace.state is TraceState.LOSSY:
            total.update(session.trace.lost)
    return total


def _sentence(error: BaseException) -> str:
    """Where a test failed and why, in a few lines."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if "tests/engine" in frame.filename), frames[-1])
    said = " ".join(str(error).split())
    return f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}: {type(error).__name__}: {said[:4000]}"


def _traced_by(client: GuestClient) -> Callable[..., Coroutine[Any, Any, list[Event]]]:
    """The fixture ``traced``: runs a command, and makes sure that nothing is missing in its trace."""

    async def traced(*command: str, exit_code: int = 0) -> list[Event]:
        session = await client.create(IMAGE, list(command))
        assert session.exit_code == exit_code, session.message
        assert session.trace is not None
        assert session.trace.state is TraceState.COMPLETE, session.trace
        return list(read_events(client.path_of(session.id, TRACE_FILE)))

    return traced


def choose_tests(tests: Collection[Test], part: str) -> list[Test]:
    """Those in whose name ``part`` is found."""
    return [test for test in tests if part in test.name]
