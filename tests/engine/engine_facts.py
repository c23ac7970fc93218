"""What the tests on the engine agree upon, and what they ask it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import docker

IMAGE = "bedrock-test/busybox:1"
SCRATCH_IMAGE = "bedrock-test/scratch:1"
NOBODYS_IMAGE = "bedrock-test/nobody:1"
VERSE = b"Only sessions of tests read this line.\n"


def compiled(name: str, directory: Path) -> bytes:
    """One of the programs beside the tests, as a static binary."""
    source, program = Path(__file__).parent / "programs" / f"{name}.c", directory / name
    subprocess.run(["gcc", "-O1", "-Wall", "-static", "-pthread", str(source), "-o", str(program)], check=True)
    return program.read_bytes()


def containers_of(node: str) -> list[str]:
    """The names of a node's containers that the engine has, running or not."""
    api = docker.from_env()
    try:
        found = api.containers.list(all=True, filters={"label": f"bedrock.node={node}"}, ignore_removed=True)
        return sorted(item.name for item in found)
    finally:
        api.close()
