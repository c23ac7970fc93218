"""What the scripts share, with an apt-get that only takes notes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_COMMON = Path(__file__).parent.parent.parent / "scripts" / "common.sh"


def run(script: str, directory: Path, *, fails: bool = False) -> tuple[int, list[str]]:
    """Run a script that has sourced common.sh; return its exit code and how apt-get was called."""
    notes, tool = directory / "notes", directory / "apt-get"
    tool.write_text(f'#!/bin/sh\necho "$*" >>{notes}\n' + ("exit 1\n" if fails else ""))
    tool.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'. "{_COMMON}"\n{script}'],
        env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return done.returncode, notes.read_text().splitlines()


def test_the_lists_of_packages_are_fetched_once_in_a_run(tmp_path: Path) -> None:
    code, calls = run("install_packages no-such-one; install_packages no-such-two", tmp_path)
    assert code == 0
    assert [call.split()[0] for call in calls] == ["update", "install", "install"]
    assert [call.split()[-1] for call in calls if call.startswith("install")] == ["no-such-one", "no-such-two"]


def test_a_list_that_could_not_be_fetched_ends_the_run(tmp_path: Path) -> None:
    code, calls = run("install_packages no-such-one; install_packages no-such-two", tmp_path, fails=True)
    assert code == 1
    assert [call.split()[0] for call in calls] == ["update"]
