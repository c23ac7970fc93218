"""The tracer's image: from compiled programs, or the sources beside this file, to a Docker host.

The image is ``FROM scratch``: the loader, with the probes inside, and the gate, both static. It is labelled with
digests of these programs and of their sources, so that making it again without a change costs nothing.
"""

from __future__ import annotations

import io
import platform
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import docker
import docker.errors
import requests
from docker.models.images import Image
from docker.utils import parse_repository_tag

from bedrock import __version__
from bedrock.tracer import LABEL_TRACER, OWN_IMAGE
from bedrock.tracer.builder import compile_in_container
from bedrock.tracer.compile import PACKAGES, BuildFailed, compile_here, missing_tools
from bedrock.tracer.programs import LABEL_PROGRAMS, carried_programs, image_labels, is_current, program_digest

DEFAULT_BUILDER = "debian:bookworm-slim"


def provide_image(configured: str, docker_host: str) -> bool:
    """Make Bedrock's own image if ``configured`` needs it, this installation carries the programs, and it is not there.

    It is needed where it is the configured one, or where that is a tracer of another make, which has no gate. Return
    whether it was made. Blocks for some hundred milliseconds. Raises :class:`BuildFailed`.
    """
    with _engine(docker_host) as client:
        machine = _machine(client)
        programs = carried_programs(machine)
        if not programs or (configured != OWN_IMAGE and _is_ours(_present(client, configured))):
            return False
        present = _present(client, OWN_IMAGE)
        _refuse_foreign(OWN_IMAGE, present)
        if present is not None and is_current(OWN_IMAGE, present.labels, machine):
            return False
        # The one that loses its name stays: another DockerD may still start sessions with it. Where two installations
        # take turns, each finds its own again.
        same = client.images.list(filters={"label": f"{LABEL_PROGRAMS}={program_digest(programs)}"})
        if same:
            same[0].tag(*parse_repository_tag(OWN_IMAGE))
        else:
            _import(client, OWN_IMAGE, programs, machine)
        return True


def needs_compiler(image: str, docker_host: str) -> bool:
    """Whether :func:`build_tracer_image` would have to compile. Raises :class:`BuildFailed`."""
    with _engine(docker_host) as client:
        machine = _machine(client)
        present = _present(client, image)
        return not carried_programs(machine) and not (present and is_current(image, present.labels, machine))


def build_tracer_image(
    image: str,
    docker_host: str,
    *,
    builder: str | None = None,
    from_source: bool = False,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Make the image ``image``, unless it is there and current, and return its id. Raises :class:`BuildFailed`.

    It is made of the programs that this installation carries. Where it carries none, or with ``from_source``, they are
    compiled, which blocks for some seconds: with this host's tools; in a container of the image ``builder`` where that
    is given, and of ``DEFAULT_BUILDER`` where this host's tools don't do. ``force`` makes it in any case.
    """
    with _engine(docker_host) as client:
        machine = _machine(client)
        programs = carried_programs(machine)
        if programs and (from_source or builder is not None):
            if image == OWN_IMAGE:
                raise BuildFailed(
                    f"{image} is kept to the programs that this installation carries; --image gives what is compiled "
                    "another name, and the setting bedrock_tracer_image chooses it"
                )
            programs = {}
        present = _present(client, image)
        _refuse_foreign(image, present)
        if present is not None and is_current(image, present.labels, machine) and not force:
            say(f"{image} is up to date")
            return str(present.id)
        programs = programs or _compiled(client, machine, builder, say)
        say(f"importing {image}")
        made = _import(client, image, programs, machine)
        if present is not None and present.id != made:
            _remove_nameless(client, str(present.id))
        return made


@contextmanager
def _engine(docker_host: str) -> Iterator[docker.DockerClient]:
    """A client of the engine, whose errors become :class:`BuildFailed`."""
    try:
        client = docker.DockerClient(docker_host, version="auto", timeout=120)
    except docker.errors.DockerException as error:
        raise BuildFailed(f"the Docker Engine at {docker_host} can't be reached: {error}") from None
    try:
        yield client
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise BuildFailed(f"the tracer's image can't be made: {error}") from None
    finally:
        client.close()


def _machine(client: docker.DockerClient) -> str:
    """What the engine runs on, by the kernel's name for it."""
    return str(client.info()["Architecture"])


def _compiled(
    client: docker.DockerClient, machine: str, builder: str | None, say: Callable[[str], None]
) -> dict[str, bytes]:
    if builder is not None:
        say(f"compiling the probes, the loader and the gate in a container of {builder}")
        return compile_in_container(client, builder)
    missing = missing_tools()
    if machine != platform.machine():
        obstacle = f"this host is {platform.machine()} and the Docker host is {machine}"
    elif missing:
        obstacle = f"this host lacks {', '.join(missing)} (on Debian: apt-get install {' '.join(PACKAGES)})"
    else:
        say("compiling the probes, the loader and the gate")
        try:
            return compile_here()
        except BuildFailed as error:
            obstacle = f"with this host's tools {error}"
    say(f"{obstacle}\ncompiling in a container of {DEFAULT_BUILDER}")
    try:
        return compile_in_container(client, DEFAULT_BUILDER)
    except BuildFailed as error:
        raise BuildFailed(
            f"{obstacle}\nand a container does not do it either (--builder names another image): {error}"
        ) from None


def _present(client: docker.DockerClient, image: str) -> Image | None:
    try:
        return client.images.get(image)
    except docker.errors.ImageNotFound:
        return None


def _is_ours(image: Image | None) -> bool:
    return image is not None and LABEL_TRACER in image.labels


def _refuse_foreign(name: str, present: Image | None) -> None:
    if present is not None and not _is_ours(present):
        raise BuildFailed(f"{name} is there and is not Bedrock's own; --image gives the new one another name")


def _remove_nameless(client: docker.DockerClient, image_id: str) -> None:
    """Remove an image whose name another one has been given, if no container still needs it."""
    try:
        if not client.images.get(image_id).tags:
            client.images.remove(image_id)
    except docker.errors.APIError:
        return


def _import(client: docker.DockerClient, image: str, programs: dict[str, bytes], machine: str) -> str:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in programs.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    repository, tag = parse_repository_tag(image)
    labels = {LABEL_TRACER: __version__, **image_labels(programs, machine)}
    changes = ["ENV PATH=/", *(f"LABEL {name}={value}" for name, value in labels.items())]
    client.api.import_image_from_data(archive.getvalue(), repository=repository, tag=tag or "latest", changes=changes)
    return str(client.images.get(image).id)
