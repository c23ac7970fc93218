"""Our traces against strace, which runs inside the session and sees the very same calls."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from oracle.calls import Call
from oracle.compare import Comparison, compare, settled
from oracle.known import TOLERATED, known_differences
from oracle.traced import calls_of_trace
from oracle.witness import split_output
from oracle.workloads import WORKLOADS, command_of
from sessions import content, finished

from bedrock.client import Client
from bedrock.volume import STDOUT, TRACE_FILE

pytestmark = pytest.mark.timeout(600)  # the first run makes an image

# Requests to io_submit are traced without their ends: that verdict is right.
_RIGHTLY_LOST = {"fio, libaio": {"end_unseen"}}


class Accounts(NamedTuple):
    """One run as our trace has it and as strace has it: calls by thread."""

    ours: dict[int, list[Call]]
    theirs: dict[int, list[Call]]

    def compare(self) -> Comparison:
        return compare(self.ours, self.theirs, [*TOLERATED, *known_differences(self.ours, self.theirs)])


async def accounts_of(client: Client, image: str, name: str, directory: Path) -> Accounts:
    session = await finished(client, await client.create(image, command_of(name), ttl="5m"), limit_s=330)
    theirs, printed = split_output((await content(client, session, STDOUT)).decode())
    assert session.exit_code == 0, f"{session.message}: {printed[-2000:]}"
    assert session.trace is not None
    assert set(session.trace.lost) == _RIGHTLY_LOST.get(name, set()), session.trace
    trace = directory / "trace.bdt"
    await client.download(session.id, TRACE_FILE, trace)
    return Accounts(calls_of_trace(trace, theirs), theirs)


@pytest.fixture(scope="module")
def explained() -> dict[str, Counter[str]]:
    """Which known differences each workload has shown, so far."""
    return {}


@pytest.mark.parametrize("name", WORKLOADS)
async def test_every_call_of_every_thread_is_the_one_that_strace_sees(
    client: Client,
    debian: str,
    oracle_programs: dict[str, bytes],
    explained: dict[str, Counter[str]],
    tmp_path: Path,
    name: str,
) -> None:
    program = {"go": "goroutines", "rust": "rusty"}.get(name)
    if program is not None and program not in oracle_programs:
        pytest.skip(f"no compiler for {name} here")
    accounts = await accounts_of(client, debian, name, tmp_path)
    result = accounts.compare()
    explained[name] = result.known
    assert not result.differences, str(result)
    # What one has and the other need not have is a small part.
    assert result.compared > 0.9 * sum(map(len, accounts.theirs.values()), start=-len(result.known)) > 20


def test_every_known_difference_is_still_there(explained: dict[str, Counter[str]]) -> None:
    if {*WORKLOADS} - {*explained} - {"go", "rust"}:
        pytest.skip("not all workloads have run")
    listed = {known.reason for known in [*TOLERATED, *known_differences({}, {})]}
    shown = {reason for known in explained.values() for reason in known}
    assert listed == shown


async def test_a_trace_that_lacks_any_call_or_has_any_fact_otherwise_is_noticed(
    client: Client, debian: str, tmp_path: Path
) -> None:
    accounts = await accounts_of(client, debian, "known input and output", tmp_path)
    known = [*TOLERATED, *known_differences(accounts.ours, accounts.theirs)]
    for tid, theirs in accounts.theirs.items():
        ours = accounts.ours[tid]
        for at, (mine, their) in enumerate(zip(ours, settled(ours, theirs, known, Counter()), strict=True)):

            def is_noticed(*instead: Call, tid: int = tid, at: int = at) -> bool:
                calls = accounts.ours[tid]
                changed = [*calls[:at], *instead, *calls[at + 1 :]]
                return bool(compare({tid: changed}, {tid: accounts.theirs[tid]}, known).differences)

            assert is_noticed(), f"without {mine.text}"
            for fact in their.facts.keys() - ({"result"} if mine.name == "fork" else {}):
                assert is_noticed(mine._replace(facts={**mine.facts, fact: "else"})), f"another {fact} of {mine.text}"
