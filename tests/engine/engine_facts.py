"""What the tests on the engine agree upon, and what they ask it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import docker

IMAGE = "bedrock-test/busybox:1"
SCRATCH_IMAGE = "bedrock-test/scratch:1"
NOBODYS_IMAGE = "bedrock-test/nobody:1"
VERSE = b"Only sessions of tests read this line.\n"


# What the image of the tests holds beside busybox and the programs.
IMAGE_FILES = {"srv/verse.txt": VERSE, "srv/not-a-program": b"\x00\x01", "srv/big.bin": bytes(256 * 4096)}
PROGRAMS = (
    *("known_io", "names", "pitfalls", "uring", "attributes", "stress", "threads"),
    *("appends", "forger", "memory", "places", "lives", "doors"),
)
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


# Compilers that distributions' packages are not, and where they are installed.
_OTHER_TOOLS = f"{os.environ.get('PATH', '')}:/usr/local/go/bin:{Path.home()}/.cargo/bin"


def programs_of_other_languages(directory: Path) -> dict[str, bytes]:
    """Those of the programs beside the tests that are not in C, by name, for which this host has a compiler."""
    sources, found = Path(__file__).parent / "programs", {}
    for name, source, tool, options, environment in (
        ("goroutines", "goroutines.go", "go", ["build", "-trimpath", "-ldflags=-s -w -buildid="], {"CGO_ENABLED": "0"}),
        ("rusty", "rusty.rs", "rustc", ["-O", "-Ctarget-feature=+crt-static", "-Cstrip=symbols"], {}),
    ):
        compiler = shutil.which(tool, path=_OTHER_TOOLS)
        if compiler is not None:
            command = [compiler, *options, "-o", str(directory / name), str(sources / source)]
            subprocess.run(command, check=True, cwd=directory, env={**os.environ, **environment})
            found[name] = (directory / name).read_bytes()
    return found


def containers_of(node: str) -> list[str]:
    """The names of the containers of a node's sessions that the engine has, running or not."""
    return sorted(set(_containers(f"bedrock.node={node}")) - set(host_tracers_of(node)))


def host_tracers_of(node: str, data_dir: Path | None = None) -> list[str]:
    """The names of the tracers that serve a node's sessions, running or not; of one data directory, or of any."""
    place = [] if data_dir is None else [f"bedrock.volumes={data_dir / 'volumes'}"]
    return _containers(f"bedrock.node={node}", "bedrock.role=host-tracer", *place)


def leftovers_of(node: str, data_dir: Path) -> list[str]:
    """What a node that was stopped has left in the engine."""
    return containers_of(node) + host_tracers_of(node, data_dir)


def remove_tracers_of(data_dir: Path) -> None:
    """Remove the tracers of nodes that were killed and have no successor."""
    api = docker.from_env()
    try:
        label = f"bedrock.volumes={data_dir / 'volumes'}"
        for container in api.containers.list(all=True, filters={"label": label}, ignore_removed=True):
            container.remove(force=True)
    finally:
        api.close()


def engine_log_sizes(session_id: str) -> list[int]:
    """The sizes in bytes of the files of the engine's own log of a session's target."""
    api = docker.from_env()
    try:
        target = api.containers.get(f"bedrock-target-{session_id}")
        directory = Path(api.info()["DockerRootDir"]) / "containers" / target.id / "local-logs"
        return [path.stat().st_size for path in directory.iterdir()]
    finally:
        api.close()


def let_go_on(session_id: str) -> None:
    """Make the file for which a session's command waits."""
    api = docker.from_env()
    try:
        api.containers.get(f"bedrock-target-{session_id}").exec_run(["touch", "/go-on"])
    finally:
        api.close()


def wait_target(session_id: str) -> None:
    """Return when a session's target has ended, whoever looks after it or not."""
    api = docker.from_env()
    try:
        api.containers.get(f"bedrock-target-{session_id}").wait()
    finally:
        api.close()


def _containers(*labels: str) -> list[str]:
    api = docker.from_env()
    try:
        found = api.containers.list(all=True, filters={"label": list(labels)}, ignore_removed=True)
        return sorted(item.name for item in found)
    finally:
        api.close()
