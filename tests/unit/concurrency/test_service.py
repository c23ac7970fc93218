"""Real processes, real signals: what a process is told and how it ends."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock.concurrency.backoff import backoff_delays

pytestmark = pytest.mark.timeout(60)

PRELUDE = """
import sys, trio
from bedrock.concurrency.service import run_service
from bedrock.errors import BedrockError
from bedrock.logconfig import configure_logging

configure_logging("info", "text")

def say(word):
    print(word, flush=True)

{main}

sys.exit(run_service(main, name="part"))
"""


@contextmanager
def a_service(main: str, *, pass_fds: Sequence[int] = (), **environment: str) -> Iterator[subprocess.Popen[str]]:
    clean = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE.format(main=main)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean | environment,
        pass_fds=pass_fds,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


PATIENT = """
async def main(context):
    context.ready()
    say("ready")
    await context.stopping.wait()
    say("cleaning up")
"""

STUBBORN = """
import os

async def main(context):
    say("ready")
    await context.stopping.wait()
    say("told")
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            say("cancelled")
            await trio.to_thread.run_sync(os.read, {gate}, 1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_service_ends_well(number: signal.Signals) -> None:
    with a_service(PATIENT) as process:
        assert hear(process) == "ready"
        process.send_signal(number)
        output, errors = process.communicate()
        assert (output, process.returncode) == ("cleaning up\n", 0)
        assert "Traceback" not in errors


def test_the_second_signal_cancels_and_no_further_one_disturbs_the_clean_up() -> None:
    gate, opener = os.pipe()
    try:
        with a_service(STUBBORN.format(gate=gate), pass_fds=[gate]) as process:
            assert hear(process) == "ready"
            process.send_signal(signal.SIGTERM)
            assert hear(process) == "told"
            process.send_signal(signal.SIGTERM)
            assert hear(process) == "cancelled"
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                process.send_signal(number)
            os.write(opener, b".")
            _, errors = process.communicate()
            assert process.returncode == 130
            assert "Traceback" not in errors
    finally:
        os.close(gate)
        os.close(opener)


def test_a_main_that_returns_ends_the_process_with_zero() -> None:
    with a_service("async def main(context): pass") as process:
        process.communicate()
        assert process.returncode == 0


def test_what_a_user_can_mend_is_one_line_and_the_code_is_one() -> None:
    with a_service("async def main(context): raise BedrockError('port 8080 is taken; choose another one')") as process:
        _, errors = process.communicate()
        assert errors == "bedrock: port 8080 is taken; choose another one\n"
        assert process.returncode == 1


def test_errors_for_users_are_found_wherever_in_a_group_they_are() -> None:
    main = """
async def main(context):
    raise ExceptionGroup("", [BedrockError("one"), ExceptionGroup("", [BedrockError("two"), BedrockError("three")])])
"""
    with a_service(main) as process:
        _, errors = process.communicate()
        assert errors == "bedrock: one\nbedrock: two\nbedrock: three\n"
        assert process.returncode == 1


def test_an_unexpected_error_is_logged_with_its_traceback_and_the_code_is_seventy() -> None:
    with a_service("async def main(context): raise KeyError('surprise')") as process:
        _, errors = process.communicate()
        assert "Traceback" in errors
        assert "KeyError: 'surprise'" in errors
        assert process.returncode == 70


def test_of_errors_of_both_kinds_each_is_told_in_its_way() -> None:
    main = "async def main(context): raise ExceptionGroup('', [BedrockError('mend me'), KeyError('surprise')])"
    with a_service(main) as process:
        _, errors = process.communicate()
        assert "bedrock: mend me\n" in errors
        assert "KeyError: 'surprise'" in errors
        assert process.returncode == 70


@pytest.mark.parametrize("is_abstract", [False, True], ids=["path", "abstract"])
def test_systemd_hears_that_the_service_is_ready_and_that_it_is_stopping(tmp_path: Path, is_abstract: bool) -> None:
    name = f"@bedrock-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if is_abstract else name)
        with a_service(PATIENT, NOTIFY_SOCKET=name) as process:
            assert systemd.recv(100) == b"READY=1"
            process.send_signal(signal.SIGTERM)
            assert systemd.recv(100) == b"STOPPING=1"
            process.communicate()
            assert process.returncode == 0


def test_a_systemd_that_does_not_listen_stops_nobody(tmp_path: Path) -> None:
    with a_service(PATIENT, NOTIFY_SOCKET=str(tmp_path / "nobody")) as process:
        assert hear(process) == "ready"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
        assert "systemd can't be notified" in errors
        assert process.returncode == 0


seconds = st.floats(min_value=0.001, max_value=1_000, allow_nan=False)


@given(first_s=seconds, maximum_s=seconds, factor=st.floats(1, 10), jitter=st.floats(0, 1))
def test_delays_grow_to_their_maximum_and_the_jitter_only_shortens_them(
    first_s: float, maximum_s: float, factor: float, jitter: float
) -> None:
    delays = list(itertools.islice(backoff_delays(first_s, maximum_s, factor=factor, jitter=jitter), 20))
    nominal = [min(first_s * factor**number, maximum_s) for number in range(20)]
    for delay, most in zip(delays, nominal, strict=True):
        assert most * (1 - jitter) * (1 - 1e-9) <= delay <= most * (1 + 1e-9)


def test_two_clients_that_failed_together_do_not_come_back_together() -> None:
    one, other = (list(itertools.islice(backoff_delays(1, 60), 8)) for _ in range(2))
    assert one != other
