"""What the tests on the engine agree upon, and what they ask it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import docker

IMAGE = "bedrock-test/busybox:1"
SCRATCH_IMAGE = "bedrock-test/scratch:1"
NOBODYS_IMAGE = "bedrock-test/nobody:1"
VERSE = b"Only sessions of tests read this line.\n"


# What the image of the tests holds beside busybox and the programs.
IMAGE_FILES = {"srv/verse.txt": VERSE, "srv/not-a-program": b"\x00\x01", "srv/big.bin": bytes(256 * 4096)}
PROGRAMS = ("known_io", "pitfalls", "uring", "attributes", "stress", "threads")
_BARE = ("-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pic", "-no-pie")


def compiled(name: str, directory: Path, *options: str, compiler: str = "gcc") -> bytes:
    """One of the programs beside the tests, as a static binary."""
    source, program = Path(__file__).parent / "programs" / f"{name}.c", directory / name
    subprocess.run([compiler, "-O1", "-Wall", "-static", *options, str(source), "-o", str(program)], check=True)
    return program.read_bytes()


def compiled_programs(directory: Path, compiler: str = "gcc") -> dict[str, bytes]:
    """All of them, by name: ``abi32`` is a program of 32 bits, ``abi64`` one of 64 that makes the same calls.

    These two are for x86 alone, so they are missing where the compiler makes programs for another architecture.
    """
    programs = {name: compiled(name, directory, "-pthread", compiler=compiler) for name in PROGRAMS}
    machine = subprocess.run([compiler, "-dumpmachine"], check=True, capture_output=True, text=True).stdout
    if machine.startswith("x86_64"):
        programs["abi32"] = compiled("abi32", directory, *_BARE, "-m32", compiler=compiler)
        programs["abi64"] = compiled("abi32", directory, *_BARE, compiler=compiler)
    return programs


def containers_of(node: str) -> list[str]:
    """The names of a node's containers that the engine has, running or not."""
    api = docker.from_env()
    try:
        found = api.containers.list(all=True, filters={"label": f"bedrock.node={node}"}, ignore_removed=True)
        return sorted(item.name for item in found)
    finally:
        api.close()
