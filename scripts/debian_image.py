"""Images of Debian for tests and benchmarks: made by mmdebstrap from the packages that this host itself uses.

The packages are one layer and everything else is a second one on top, so that a change of a test's program does not
install the packages again. Both stay with the engine, under names made of all that went into them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import docker
import docker.errors

_SUITE = "bookworm"
_OPTIONS = (
    "--mode=root",
    "--variant=minbase",
    "--dpkgopt=force-unsafe-io",
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")),
)


class ImageError(Exception):
    """The image can't be made; the text holds what mmdebstrap said."""


def debian_image(
    repository: str,
    packages: Iterable[str],
    directory: Path,
    *,
    programs: Mapping[str, bytes],
    files: Callable[[Path], None] = lambda _: None,
    suite: str = _SUITE,
) -> str:
    """Return the name of an image with ``packages``, ``programs`` in /usr/local/bin, and what ``files`` puts in /srv.

    ``directory`` is for what is in the making. ``files`` is called every time, and what it makes must not change from
    one call to the next.
    """
    layer = directory / "layer"
    bin_directory = layer / "usr/local/bin"
    bin_directory.mkdir(parents=True)
    for program, content in programs.items():
        (bin_directory / program).write_bytes(content)
        (bin_directory / program).chmod(0o755)
    (layer / "srv").mkdir()
    files(layer / "srv")
    client = docker.from_env(timeout=300)
    try:
        base = _base_image(client, repository, suite, sorted(packages), directory)
        name = f"{repository}:{_digest(base, *_content(layer))}"
        if not _is_present(client, name):
            context = directory / "context"
            context.mkdir()
            subprocess.run(["tar", "-C", str(layer), "-cf", str(context / "layer.tar"), "."], check=True)
            (context / "Dockerfile").write_text(f"FROM {base}\nADD layer.tar /\n")
            client.images.build(path=str(context), tag=name, rm=True)
            shutil.rmtree(context)
    finally:
        client.close()
    shutil.rmtree(layer)
    return name


def _base_image(client: docker.DockerClient, repository: str, suite: str, packages: list[str], directory: Path) -> str:
    repository = f"{repository}-packages"
    tag = _digest(suite, *_OPTIONS, *packages)
    if not _is_present(client, f"{repository}:{tag}"):
        archive = directory / "root.tar"
        _bootstrap(archive, suite, packages)
        client.api.import_image_from_file(str(archive), repository=repository, tag=tag)
        archive.unlink()
    return f"{repository}:{tag}"


def _is_present(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    return True


def _digest(*ingredients: str) -> str:
    return hashlib.sha256(repr(ingredients).encode()).hexdigest()[:12]


def _content(root: Path) -> list[str]:
    """Every file below a directory, with a digest of what is in it."""
    return [
        f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]


def _bootstrap(archive: Path, suite: str, packages: list[str]) -> None:
    if shutil.which("mmdebstrap") is None:
        subprocess.run(["apt-get", "install", "-y", "-qq", "mmdebstrap"], check=True, capture_output=True)
    done = subprocess.run(
        ["mmdebstrap", *_OPTIONS, f"--include={','.join(packages)}", suite, str(archive), *_mirror()],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ImageError(f"mmdebstrap failed: {done.stderr[-2000:].decode()}")


def _mirror() -> list[str]:
    """Where this host gets its own packages from."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text() for path in sources if path.is_file())
    found = re.search(r"^(?:deb(?: \[[^]]*\])?|URIs:)\s+(\S+)", text, re.MULTILINE)
    return [found[1]] if found else []
