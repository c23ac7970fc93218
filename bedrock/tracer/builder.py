"""Compiling the tracer in a container on the Docker host, for a host that lacks the tools."""

from __future__ import annotations

import io
import shlex
import tarfile

import docker
import docker.errors

from bedrock.tracer.compile import PACKAGES, SCRIPT, BuildFailed, sources

_WORK = "bedrock-build"
# Where it is a Debian, a builder that lacks the packages is given them; any other is to bring the tools with it.
_PREPARE = """{{
    ! command -v apt-get || dpkg -s {packages} >/dev/null ||
    {{ apt-get update && apt-get install -y --no-install-recommends {packages}; }}
}} >&2"""
_LIMIT_S = 900


def compile_in_container(client: docker.DockerClient, builder: str) -> dict[str, bytes]:
    """Compile in a container of the image ``builder``, which is pulled where it is not there.

    Return the tracer's programs by name. Raises :class:`BuildFailed`; the container is gone in any case.
    """
    prepare = _PREPARE.format(packages=shlex.join(PACKAGES))
    command = ["sh", "-c", f"{prepare} && sh /{_WORK}/{SCRIPT}"]
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
        status = container.wait(timeout=_LIMIT_S)["StatusCode"]
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
