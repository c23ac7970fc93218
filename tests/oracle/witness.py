"""strace's account of a whole run, out of what ``programs/witness.c`` has written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from oracle.calls import Call, Fact
from oracle.positions import tasks_that_share
from oracle.strace import calls_of_strace

_PLACED_WRITES = {"pwrite64", "pwritev", "pwritev2"}


def split_output(text: str) -> tuple[dict[int, list[Call]], str]:
    """strace's calls by thread, and what the command has printed."""
    account, _, printed = text.partition("\n== output\n")
    sections = [section.splitlines() for section in re.split(r"^== ", account, flags=re.MULTILINE)[1:]]
    threads = {int(title.removeprefix("calls.")): [line for line in lines if line] for title, *lines in sections}
    sharing = tasks_that_share(threads.items())
    calls = {tid: calls_of_strace(lines, is_alone=tid not in sharing) for tid, lines in threads.items()}
    return with_programs(_without_appended(calls)), printed


def _without_appended(threads: Mapping[int, Sequence[Call]]) -> dict[int, list[Call]]:
    """The same calls, but for the offsets of writes to files that are appended to: the kernel ignores them."""
    appended = {
        call.facts.get("path")
        for calls in threads.values()
        for call in calls
        if call.name in {"open", "openat"} and int(str(call.facts.get("arg", 0))) & os.O_APPEND
    }

    def plain(call: Call) -> Call:
        if call.name not in _PLACED_WRITES or call.facts.get("path") not in appended:
            return call
        return call._replace(facts={name: value for name, value in call.facts.items() if name != "offset"})

    return {tid: [plain(call) for call in calls] for tid, calls in threads.items()}


def with_programs(threads: Mapping[int, Sequence[Call]]) -> dict[int, list[Call]]:
    """The same calls, with the program that their thread ran: what it has begun itself, or what its maker ran."""
    result: dict[int, list[Call]] = {}
    inherited: dict[Fact, Fact] = {}
    # Whoever makes a thread has a smaller number: a run is too short for numbers to be given twice.
    for tid, calls in sorted(threads.items()):
        program = inherited.get(tid)
        result[tid] = []
        for call in calls:
            if call.name.startswith("execve") and call.facts.get("error") is None:
                # What was given to execveat is a name only together with its directory.
                program = call.facts.get("raw") if call.name == "execve" else None
            elif call.name == "fork" and call.facts.get("error") is None:
                inherited[call.facts.get("result")] = program
            facts = call.facts if program is None else {**call.facts, "program": program}
            result[tid].append(call._replace(facts=facts))
    return result
