"""A platform wheel: what is in it, and what an installation of it does on a host that has no compiler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from platform import machine

import docker
import docker.errors
import pytest

from bedrock.tracer import OWN_IMAGE
from bedrock.tracer.compile import sources
from bedrock.tracer.programs import LABEL_PROGRAMS

ROOT = Path(__file__).parent.parent.parent
NO_TOOLS = "/nowhere"
ASIDE = "bedrock-test/tracer:aside"


def made(target: str, root: Path, directory: Path, **environment: str) -> Path:
    """What the build backend makes of a source tree: ``sdist`` or ``wheel``."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(directory)]
    subprocess.run(command, cwd=root, env={**os.environ, **environment}, check=True, capture_output=True)
    (found,) = directory.iterdir()
    return found


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive."""
    return made("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def tree(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, unpacked."""
    directory = tmp_path_factory.mktemp("tree")
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    (found,) = directory.iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("wheel", tree, tmp_path_factory.mktemp("wheel"))


class Installation:
    """A wheel in an environment of its own. What Bedrock depends on is that of the tests."""

    def __init__(self, wheel: Path, directory: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
        self._python = directory / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(self._python), "install", "--no-deps", "--no-index"]
        subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
        (packages,) = directory.glob("lib/python*/site-packages")
        (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
        self.tracer = packages / "bedrock" / "tracer"
        self._directory = directory  # to run in, or Python would find the source tree's Bedrock
        self._environment = {**os.environ, "PATH": NO_TOOLS, "BEDROCK_DATA_DIR": str(directory / "data")}

    def start_and_stop(self) -> str:
        """Run `bedrock up` until it is ready; return all that it printed."""
        command = [str(self._python), "-m", "bedrock", "up", "--api-http-port", "0", "--api-socket-port", "0"]
        with subprocess.Popen(
            command, cwd=self._directory, env=self._environment, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if line.startswith("bedrock is up"):
                    process.send_signal(signal.SIGTERM)
        return "".join(said)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._python), "-m", "bedrock", *arguments]
        return subprocess.run(
            command, cwd=self._directory, env=self._environment, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(wheel, tmp_path_factory.mktemp("installed"))


@contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """A file with other content for as long as the context lasts."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    """The engine without our own image, which is back under its name afterwards."""
    client = docker.from_env(timeout=60)
    before = {image.id for image in client.images.list(filters={"label": LABEL_PROGRAMS})}
    had_one = rename(client, OWN_IMAGE, ASIDE)
    try:
        yield client
    finally:
        rename(client, OWN_IMAGE, None)
        if had_one:
            rename(client, ASIDE, OWN_IMAGE)
        for image in client.images.list(filters={"label": LABEL_PROGRAMS}):
            if image.id not in before:
                client.images.remove(str(image.id), force=True)
        client.close()


def rename(client: docker.DockerClient, name: str, other: str | None) -> bool:
    """Give an image another name, or none. Return whether there was one of that name."""
    try:
        image = client.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    # An image that loses its last name goes, so it is given the other one first.
    image.tag(other or "bedrock-test/nameless:1")
    client.images.remove(name)
    return True


def test_a_wheel_is_for_its_machine_and_carries_static_programs(wheel: Path, tmp_path: Path) -> None:
    assert wheel.name.endswith(f"-py3-none-manylinux_2_17_{machine()}.musllinux_1_1_{machine()}.whl")
    with zipfile.ZipFile(wheel) as content:
        for name in ("bdtrace", "gate"):
            item = content.getinfo(f"bedrock/tracer/bin/{machine()}/{name}")
            assert item.external_attr >> 16 & 0o7777 == 0o755
            program = content.extract(item, tmp_path)
            described = subprocess.run(["file", "-b", program], check=True, capture_output=True, text=True).stdout
            assert "statically linked" in described
        assert (
            "Root-Is-Purelib: false"
            in content.read(next(n for n in content.namelist() if n.endswith("/WHEEL"))).decode()
        )


def test_the_source_archive_holds_all_that_is_compiled_and_nothing_compiled(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
    generated = "bdt_format.h"
    assert {f"bedrock/tracer/bpf/{name}" for name in sources() if name != generated} <= inside
    assert {"hatch_build.py", "scripts/demo", "tests/conftest.py"} <= inside
    assert not [name for name in inside if name.startswith("bedrock/tracer/bin")]


def test_without_a_compiler_the_sources_give_a_wheel_for_every_machine(tree: Path, tmp_path: Path) -> None:
    wheel = made("wheel", tree, tmp_path, PATH=NO_TOOLS)
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as content:
        assert not [name for name in content.namelist() if "/bin/" in name]


def test_a_session_is_traced_on_a_host_that_never_had_a_compiler(
    installed: Installation, engine: docker.DockerClient
) -> None:
    done = installed.run("doctor")
    assert done.returncode == 0, done.stdout
    assert f"{OWN_IMAGE} will be made when a DockerD starts" in done.stdout
    assert "a session read a secret, and its trace tells of it" in done.stdout


def test_the_image_is_made_at_the_first_start_and_again_when_the_programs_are_others(
    installed: Installation, engine: docker.DockerClient
) -> None:
    assert "tracer image made" in installed.start_and_stop()
    first = engine.images.get(OWN_IMAGE).id
    assert "tracer image made" not in installed.start_and_stop()
    assert engine.images.get(OWN_IMAGE).id == first

    gate = installed.tracer / "bin" / machine() / "gate"
    with replaced(gate, gate.read_bytes() + b"\0"):
        assert "tracer image made" in installed.start_and_stop()
    assert engine.images.get(OWN_IMAGE).id != first
    # Another DockerD may have the first one in use. It gets its name back when it is wanted again.
    assert engine.images.get(str(first)).id == first
    assert "tracer image made" in installed.start_and_stop()
    assert engine.images.get(OWN_IMAGE).id == first


def test_programs_of_other_sources_are_not_used(installed: Installation, engine: docker.DockerClient) -> None:
    source = installed.tracer / "bpf" / "gate.c"
    with replaced(source, source.read_bytes() + b"/* changed */\n"):
        said = installed.start_and_stop()
    assert f"the tracer image {OWN_IMAGE} is not on this host; `bedrock tracer build` makes it" in said


def test_the_build_command_takes_the_carried_programs_and_what_is_compiled_gets_another_name(
    installed: Installation, engine: docker.DockerClient
) -> None:
    done = installed.run("tracer", "build")
    assert (done.returncode, done.stdout) == (0, f"importing {OWN_IMAGE}\n")
    assert installed.run("tracer", "build").stdout == f"{OWN_IMAGE} is up to date\n"
    refused = installed.run("tracer", "build", "--from-source")
    assert refused.returncode == 1
    assert "--image gives what is compiled another name" in refused.stderr
