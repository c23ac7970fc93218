"""What the tests on the engine agree upon, and what they ask it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import docker

IMAGE = "bedrock-test/busybox:1"
SCRATCH_IMAGE = "bedrock-test/scratch:1"
NOBODYS_IMAGE = "bedrock-test/nobody:1"
VERSE = b"Only sessions of tests read this line.\n"


PROGRAMS = ("known_io", "pitfalls", "uring", "attributes")
_BARE = ("-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pic", "-no-pie")


def compiled(name: str, directory: Path, *options: str) -> bytes:
    """One of the programs beside the tests, as a static binary."""
    source, program = Path(__file__).parent / "programs" / f"{name}.c", directory / name
    subprocess.run(["gcc", "-O1", "-Wall", "-static", *options, str(source), "-o", str(program)], check=True)
    return program.read_bytes()


def compiled_programs(directory: Path) -> dict[str, bytes]:
    """All of them, by name: ``abi32`` is a program of 32 bits, ``abi64`` one of 64 that makes the same calls."""
    return {
        **{name: compiled(name, directory, "-pthread") for name in PROGRAMS},
        "threads": compiled("threads", directory, "-pthread"),
        "abi32": compiled("abi32", directory, *_BARE, "-m32"),
        "abi64": compiled("abi32", directory, *_BARE),
    }


def containers_of(node: str) -> list[str]:
    """The names of a node's containers that the engine has, running or not."""
    api = docker.from_env()
    try:
        found = api.containers.list(all=True, filters={"label": f"bedrock.node={node}"}, ignore_removed=True)
        return sorted(item.name for item in found)
    finally:
        api.close()
