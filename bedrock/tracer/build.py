"""Building the tracer: from the sources beside this file to an image on a Docker host.

The image is ``FROM scratch``: the loader, with the probes inside, and the gate, both static. It is labelled with a
digest of everything that went into it, so that building it again without a change costs nothing.
"""

from __future__ import annotations

import hashlib
import io
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

import docker
import docker.errors
import requests
from docker.models.images import Image

from bedrock import __version__
from bedrock.errors import BedrockError
from bedrock.tracer.format import c_header

LABEL_DIGEST = "bedrock.tracer.digest"
LABEL_TRACER = "bedrock.tracer"
PACKAGES = ["clang", "llvm", "libbpf-dev", "bpftool", "libelf-dev", "zlib1g-dev", "libzstd-dev", "libc6-dev", "gcc"]
_TOOLS = {"clang": "clang", "bpftool": "bpftool", "gcc": "gcc"}
_KERNEL_TYPES = Path("/sys/kernel/btf/vmlinux")
_ARCHITECTURES = {"x86_64": ("x86", "x86_64-linux-gnu"), "aarch64": ("arm64", "aarch64-linux-gnu")}
_LOADER = ("bdtrace.c", "writer.c", "syscalls.c")
_PARTS = ("kernel", "state", "tasks", "texts", "files", "mappings", "totals", "records", "faults", "processes", "uring")
_PROBES = ("bdtrace.bpf.c", *(f"{part}.bpf.h" for part in _PARTS))
_SOURCES = (*_PROBES, *_LOADER, "writer.h", "syscalls.h", "gate.c")


class BuildFailed(BedrockError):
    """The tracer can't be built; the text says what is missing, or what the compiler said."""


def build_tracer_image(
    image: str, docker_host: str, *, force: bool = False, say: Callable[[str], None] = lambda _: None
) -> str:
    """Build the tracer and import it as ``image``; return the image's id. Blocks for some seconds.

    An image of the same sources is left as it is unless ``force``. Raises :class:`BuildFailed`.
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
        with tempfile.TemporaryDirectory(prefix="bedrock-tracer-") as directory:
            say("compiling the probes, the loader and the gate")
            programs = compile_tracer(Path(directory))
            say(f"importing {image}")
            return _import(client, image, digest, programs)
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise BuildFailed(f"the image can't be imported: {error}") from None
    finally:
        client.close()


def source_digest() -> str:
    """A digest of all that determines the programs, the compiler aside."""
    digest = hashlib.sha256(f"{__version__}\n{platform.machine()}\n{platform.release()}\n{c_header()}".encode())
    for name in _SOURCES:
        digest.update(files("bedrock.tracer").joinpath("bpf", name).read_bytes())
    return digest.hexdigest()


def missing_tools() -> list[str]:
    """What the build needs and this host does not have, by the names of Debian's packages."""
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    headers = {"libbpf-dev": "bpf/libbpf.h", "libelf-dev": "libelf.h", "zlib1g-dev": "zlib.h", "libzstd-dev": "zstd.h"}
    missing += [package for package, header in headers.items() if not Path("/usr/include", header).exists()]
    return missing


def compile_tracer(directory: Path) -> dict[str, Path]:
    """Compile everything in ``directory``; return the programs by name. Raises :class:`BuildFailed`."""
    missing = missing_tools()
    if missing:
        raise BuildFailed(f"this host lacks {', '.join(missing)}; on Debian: apt-get install {' '.join(PACKAGES)}")
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise BuildFailed(f"the tracer knows x86_64 and aarch64, not {machine}")
    target, triplet = _ARCHITECTURES[machine]
    (directory / "bdt_format.h").write_text(c_header())
    with as_file(files("bedrock.tracer").joinpath("bpf")) as sources:
        warnings = ["-Wall", "-Wextra", "-Werror"]
        include = [f"-I{directory}", f"-I/usr/include/{triplet}"]
        probes, skeleton = directory / "bdtrace.bpf.o", directory / "bdtrace.skel.h"
        _run("clang", "-target", "bpf", "-O2", "-g", f"-D__TARGET_ARCH_{target}", "-Wall", "-Werror", *include,
             "-c", str(sources / "bdtrace.bpf.c"), "-o", str(probes))  # fmt: skip
        skeleton.write_text(_run("bpftool", "gen", "skeleton", str(probes), "name", "bdtrace_bpf"))
        loader, gate = directory / "bdtrace", directory / "gate"
        _run("gcc", "-std=gnu11", "-O2", "-s", *warnings, "-Wno-format-truncation", "-static", *include,
             *(str(sources / name) for name in _LOADER), "-o", str(loader), "-lbpf", "-lelf", "-lz",
             "-lzstd")  # fmt: skip
        _run("gcc", "-Os", "-s", *warnings, "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
             "-fno-builtin", str(sources / "gate.c"), "-o", str(gate))  # fmt: skip
        programs = {"bdtrace": loader, "gate": gate}
        if _KERNEL_TYPES.exists():
            # The few types of this kernel that the probes need: reading them all takes most of the time to attach.
            types = directory / "types.btf"
            _run("bpftool", "gen", "min_core_btf", str(_KERNEL_TYPES), str(types), str(probes))
            programs[f"btf/{platform.release()}.btf"] = types
    return programs


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"{command[0]} failed:\n{done.stderr.strip()[-4000:]}")
    return done.stdout


def _present(client: docker.DockerClient, image: str) -> Image | None:
    try:
        return client.images.get(image)
    except docker.errors.ImageNotFound:
        return None


def _import(client: docker.DockerClient, image: str, digest: str, programs: dict[str, Path]) -> str:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, path in programs.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = path.stat().st_size, 0o755
            with path.open("rb") as program:
                tar.addfile(info, program)
    repository, _, tag = image.rpartition(":")
    changes = ["ENV PATH=/", f"LABEL {LABEL_TRACER}={__version__}", f"LABEL {LABEL_DIGEST}={digest}"]
    client.api.import_image_from_data(archive.getvalue(), repository=repository, tag=tag, changes=changes)
    return str(client.images.get(image).id)
