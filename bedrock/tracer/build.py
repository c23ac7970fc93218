"""The tracer's image: from the sources beside this file to a Docker host.

The image is ``FROM scratch``: the loader, with the probes inside, and the gate, both static. It is labelled with a
digest of everything that went into it, so that building it again without a change costs nothing.
"""

from __future__ import annotations

import hashlib
import io
import platform
import tarfile
from collections.abc import Callable

import docker
import docker.errors
import requests
from docker.models.images import Image
from docker.utils import parse_repository_tag

from bedrock import __version__
from bedrock.tracer import LABEL_TRACER
from bedrock.tracer.compile import PACKAGES, BuildFailed, compile_here, compile_in_container, missing_tools, sources

LABEL_DIGEST = "bedrock.tracer.digest"
DEFAULT_BUILDER = "debian:bookworm-slim"


def build_tracer_image(
    image: str,
    docker_host: str,
    *,
    builder: str | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Build the tracer and import it as ``image``; return the image's id. Blocks for some seconds.

    It is compiled with this host's tools; in a container of the image ``builder`` where that is given, and of
    ``DEFAULT_BUILDER`` where this host has not got the tools. An image of the same sources is left as it is unless
    ``force``. Raises :class:`BuildFailed`.
    """
    digest = source_digest()
    try:
        client = docker.DockerClient(docker_host, version="auto", timeout=120)
    except docker.errors.DockerException as error:
        raise BuildFailed(f"the Docker Engine at {docker_host} can't be reached: {error}") from None
    try:
        present = _present(client, image)
        if present is not None and LABEL_TRACER not in present.labels:
            raise BuildFailed(f"{image} is there, and none of Bedrock's own; --image gives the new one another name")
        if present is not None and present.labels.get(LABEL_DIGEST) == digest and not force:
            say(f"{image} is up to date")
            return str(present.id)
        programs = _compiled(client, builder, say)
        say(f"importing {image}")
        made = _import(client, image, digest, programs)
        if present is not None and present.id != made:
            _remove_nameless(client, str(present.id))
        return made
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise BuildFailed(f"the image can't be built: {error}") from None
    finally:
        client.close()


def source_digest() -> str:
    """A digest of all that determines the programs, the compiler aside."""
    digest = hashlib.sha256(f"{__version__}\n{platform.machine()}\n{platform.release()}\n".encode())
    for content in sources().values():
        digest.update(content)
    return digest.hexdigest()


def _compiled(client: docker.DockerClient, builder: str | None, say: Callable[[str], None]) -> dict[str, bytes]:
    missing = missing_tools()
    if builder is None and not missing:
        say("compiling the probes, the loader and the gate")
        return compile_here()
    say(f"compiling the probes, the loader and the gate in a container of {builder or DEFAULT_BUILDER}")
    try:
        return compile_in_container(client, builder or DEFAULT_BUILDER)
    except BuildFailed as error:
        if builder is not None:
            raise
        raise BuildFailed(
            f"this host lacks {', '.join(missing)} (on Debian: apt-get install {' '.join(PACKAGES)}), "
            f"and a container does not do it either (--builder names another image): {error}"
        ) from None


def _present(client: docker.DockerClient, image: str) -> Image | None:
    try:
        return client.images.get(image)
    except docker.errors.ImageNotFound:
        return None


def _remove_nameless(client: docker.DockerClient, image_id: str) -> None:
    """Remove an image whose name another one has been given, if no container still needs it."""
    try:
        if not client.images.get(image_id).tags:
            client.images.remove(image_id)
    except docker.errors.APIError:
        return


def _import(client: docker.DockerClient, image: str, digest: str, programs: dict[str, bytes]) -> str:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in programs.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    repository, tag = parse_repository_tag(image)
    changes = ["ENV PATH=/", f"LABEL {LABEL_TRACER}={__version__}", f"LABEL {LABEL_DIGEST}={digest}"]
    client.api.import_image_from_data(archive.getvalue(), repository=repository, tag=tag or "latest", changes=changes)
    return str(client.images.get(image).id)
