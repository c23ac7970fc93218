"""Building the tracer's image: with this host's tools, in a container, for another architecture.

Everything is compiled here; that an installation may carry the programs is what ``test_wheel.py`` is about.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import docker
import docker.errors
import pytest
from debian_image import debian_image
from engine_facts import IMAGE
from processes import Fleet

from bedrock.settings import load_settings
from bedrock.tracer.build import build_tracer_image
from bedrock.tracer.compile import PACKAGES, BuildFailed, sources

BUILT = "bedrock-test/tracer:built"
NEWER_CLANG = "clang-22"


@pytest.fixture
def nothing_built() -> Iterator[docker.DockerClient]:
    """The engine, without the image that a test builds, before and after."""
    client = docker.from_env(timeout=60)
    _remove(client)
    try:
        yield client
    finally:
        _remove(client)
        client.close()


def _remove(client: docker.DockerClient) -> None:
    try:
        client.images.remove(BUILT, force=True)
    except docker.errors.ImageNotFound:
        return


def build(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bedrock", "tracer", "build", "--image", BUILT, "--from-source", *options]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


def self_test(fleet: Fleet) -> str:
    """What `bedrock doctor` finds when it traces a session with the image that was built."""
    checked = subprocess.run(
        [sys.executable, "-m", "bedrock", "doctor", "--json"],
        env={**os.environ, "BEDROCK_DATA_DIR": str(fleet.data_dir), "BEDROCK_DOCKERD_BEDROCK_TRACER_IMAGE": BUILT},
        capture_output=True,
        check=False,
    )
    findings = {item["name"]: item["found"] for item in json.loads(checked.stdout)}
    assert checked.returncode == 0, findings
    return str(findings["self-test"])


@pytest.fixture(scope="session")
def debian13(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Debian after the one that the other tests use, with what compiles the tracer; its clang is a newer one."""
    directory, packages = tmp_path_factory.mktemp("debian13"), [*PACKAGES, NEWER_CLANG]
    programs = {"clang": f'#!/bin/sh\nexec {NEWER_CLANG} "$@"\n'.encode()}
    return debian_image("bedrock-test/debian13", packages, directory, programs=programs, suite="trixie")


@pytest.mark.timeout(600)  # the first run makes an image
def test_a_container_compiles_what_a_session_can_be_traced_with(
    nothing_built: docker.DockerClient, running_fleet: Fleet, debian: str
) -> None:
    # No tool is found on this PATH, so nothing that is compiled on the host would do.
    done = build("--builder", debian, PATH="/nowhere")
    assert done.returncode == 0, done.stderr
    assert f"in a container of {debian}" in done.stdout
    assert nothing_built.containers.list(all=True, filters={"ancestor": debian}) == []
    assert self_test(running_fleet).startswith("a session read a secret, and its trace tells of it")
    assert build("--builder", debian).stdout == f"{BUILT} is up to date\n"
    # One that is replaced does not stay behind without a name.
    before = nothing_built.images.get(BUILT).id
    assert build("--force").returncode == 0
    assert nothing_built.images.get(BUILT).id != before
    with pytest.raises(docker.errors.ImageNotFound):
        nothing_built.images.get(before)


@pytest.mark.timeout(600)  # the first run makes an image
def test_debian_13_and_a_newer_clang_build_it_although_its_libelf_is_not_whole(
    nothing_built: docker.DockerClient, running_fleet: Fleet, debian13: str
) -> None:
    """What newer compilers leave out of the probes, since they know better, the verifier may miss."""
    done = build("--builder", debian13)
    assert done.returncode == 0, done.stderr
    assert self_test(running_fleet).startswith("a session read a secret, and its trace tells of it")


@pytest.mark.timeout(600)  # the first run makes an image
def test_where_this_host_s_compiler_fails_a_container_compiles(
    nothing_built: docker.DockerClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, debian: str
) -> None:
    broken = tmp_path / "clang"
    broken.write_text("#!/bin/sh\necho no such target: bpf >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    docker_host = load_settings().dockerd.docker_host
    monkeypatch.setattr("bedrock.tracer.build.DEFAULT_BUILDER", "127.0.0.1:1/debian:1")
    with pytest.raises(BuildFailed) as refused:
        build_tracer_image(BUILT, docker_host, from_source=True)
    assert "no such target: bpf" in str(refused.value)
    assert "127.0.0.1:1/debian:1 can't be pulled" in str(refused.value)
    monkeypatch.setattr("bedrock.tracer.build.DEFAULT_BUILDER", debian)
    said: list[str] = []
    made = build_tracer_image(BUILT, docker_host, from_source=True, say=said.append)
    assert nothing_built.images.get(BUILT).id == made
    assert "no such target: bpf" in said[1]
    assert f"in a container of {debian}" in said[1]


def test_a_host_without_tools_and_builder_is_told_how_to_get_either(
    nothing_built: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bedrock.tracer.build.DEFAULT_BUILDER", "127.0.0.1:1/debian:1")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildFailed) as refused:
        build_tracer_image(BUILT, load_settings().dockerd.docker_host, from_source=True)
    message = str(refused.value)
    assert "this host lacks clang, gcc (on Debian: apt-get install clang" in message
    assert "--builder names another image" in message
    assert "127.0.0.1:1/debian:1 can't be pulled" in message


def test_a_builder_that_can_t_be_had_or_can_t_build_is_named(nothing_built: docker.DockerClient, image: str) -> None:
    missing = build("--builder", "127.0.0.1:1/builder:1")
    assert missing.returncode == 1
    assert "the builder image 127.0.0.1:1/builder:1 can't be pulled" in missing.stderr
    unfit = build("--builder", image)
    assert unfit.returncode == 1
    assert f"the builder {image} failed" in unfit.stderr
    assert "clang: not found" in unfit.stderr
    assert nothing_built.containers.list(all=True, filters={"ancestor": image}) == []


def test_an_image_of_others_is_never_replaced(image: str) -> None:
    done = build("--image", IMAGE)
    assert done.returncode == 1
    assert f"{image} is there and is not Bedrock's own" in done.stderr


def test_everything_compiles_for_arm64_too(tmp_path: Path) -> None:
    """With the headers of its libc; there are no libraries to link with, and no machine to run it on."""
    for name, content in sources().items():
        (tmp_path / name).write_bytes(content)
    # Of this machine's headers only those that are the same everywhere.
    shared = tmp_path / "shared"
    shared.mkdir()
    for name in ("bpf", "zstd.h", "zstd_errors.h"):
        (shared / name).symlink_to(Path("/usr/include", name))
    strict = ["-Wall", "-Werror", "-I."]
    arm64 = ["clang", "--target=aarch64-linux-gnu", "-O2", *strict, "-isystem", "/usr/aarch64-linux-gnu/include"]
    probes = ["clang", "-target", "bpf", "-O2", "-g", "-D__TARGET_ARCH_arm64", *strict]
    run = partial(subprocess.run, cwd=tmp_path, check=True)
    for name in ("bdtrace", "look"):
        run([*probes, "-I/usr/include/x86_64-linux-gnu", "-c", f"{name}.bpf.c", "-o", f"{name}.bpf.o"])
        skeleton = ["bpftool", "gen", "skeleton", f"{name}.bpf.o", "name", f"{name}_bpf"]
        (tmp_path / f"{name}.skel.h").write_bytes(run(skeleton, capture_output=True).stdout)
    for source in sorted(tmp_path.glob("*.c")):
        if source.name == "gate.c":
            run([*arm64, "-ffreestanding", "-fno-builtin", "-c", source.name])
        elif not source.name.endswith(".bpf.c"):
            run([*arm64, "-std=gnu11", "-isystem", str(shared), "-c", source.name])
        else:
            continue
        described = run(["file", "-b", f"{source.stem}.o"], capture_output=True).stdout
        assert b"aarch64" in described
