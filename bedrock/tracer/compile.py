"""Compiling the tracer: with the tools of this host, or in a builder container on the Docker host."""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from importlib.resources import files
from pathlib import Path

import docker
import docker.errors

from bedrock.errors import BedrockError
from bedrock.tracer.header import c_header

PACKAGES = ("clang", "libbpf-dev", "bpftool", "libelf-dev", "zlib1g-dev", "libzstd-dev", "libc6-dev", "gcc")
_TOOLS = {"clang": "clang", "bpftool": "bpftool", "gcc": "gcc"}
_HEADERS = {"libbpf-dev": "bpf/libbpf.h", "libelf-dev": "libelf.h", "zlib1g-dev": "zlib.h", "libzstd-dev": "zstd.h"}
_SCRIPT = "build.sh"
_WORK = "bedrock-build"
# Where it is a Debian, a builder that lacks the packages is given them; any other is to bring the tools with it.
_PREPARE = """{{
    ! command -v apt-get || dpkg -s {packages} >/dev/null ||
    {{ apt-get update && apt-get install -y --no-install-recommends {packages}; }}
}} >&2"""
_BUILDER_LIMIT_S = 900


class BuildFailed(BedrockError):
    """The tracer can't be built; the text says what is missing, or what the compiler said."""


def sources() -> dict[str, bytes]:
    """Everything that is compiled, by file name, with the header that describes the format."""
    found = {
        item.name: item.read_bytes() for item in files("bedrock.tracer").joinpath("bpf").iterdir() if item.is_file()
    }
    return dict(sorted(found.items())) | {"bdt_format.h": c_header().encode()}


def missing_tools() -> list[str]:
    """What the build needs and this host does not have, by the names of Debian's packages."""
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    return missing + [name for name, header in _HEADERS.items() if not Path("/usr/include", header).exists()]


def compile_here() -> dict[str, bytes]:
    """Compile with this host's tools; return the files of the image by name. Raises :class:`BuildFailed`."""
    with tempfile.TemporaryDirectory(prefix="bedrock-tracer-") as name:
        work = Path(name)
        for source, content in sources().items():
            (work / source).write_bytes(content)
        done = subprocess.run(
            ["sh", str(work / _SCRIPT)], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode != 0:
            raise BuildFailed(f"the compiler failed:\n{done.stderr.strip()[-4000:]}")
        out = work / "out"
        return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def compile_in_container(client: docker.DockerClient, builder: str) -> dict[str, bytes]:
    """Compile in a container of the image ``builder``, which is pulled where it is not there.

    Return the files of the image by name. Raises :class:`BuildFailed`; the container is gone in any case.
    """
    prepare = _PREPARE.format(packages=shlex.join(PACKAGES))
    command = ["sh", "-c", f"{prepare} && sh /{_WORK}/{_SCRIPT}"]
    try:
        client.images.get(builder)
    except docker.errors.ImageNotFound:
        try:
            client.images.pull(builder)
        except docker.errors.APIError as error:
            raise BuildFailed(f"the builder image {builder} can't be pulled: {error.explanation or error}") from None
    container = client.containers.create(
        builder, command, entrypoint=[], user="0", environment={"DEBIAN_FRONTEND": "noninteractive"}
    )
    try:
        container.put_archive("/", _packed(sources()))
        container.start()
        status = container.wait(timeout=_BUILDER_LIMIT_S)["StatusCode"]
        if status != 0:
            said = container.logs(stdout=False, tail=40).decode(errors="replace").strip()
            raise BuildFailed(f"the builder {builder} failed:\n{said[-4000:]}")
        chunks, _ = container.get_archive(f"/{_WORK}/out")
        return _unpacked(b"".join(chunks))
    finally:
        container.remove(force=True, v=True)


def _packed(contents: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"{_WORK}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def _unpacked(archive: bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None:
                found[member.name.partition("/")[2]] = content.read()
    return found
