"""Images of Debian for tests and benchmarks: made by debootstrap from the packages that this host itself uses."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import docker
import docker.errors

_SUITE = "bookworm"  # unless another one is asked for


class ImageError(Exception):
    """The image can't be made; the text holds what debootstrap said."""


def debian_image(
    repository: str,
    packages: Iterable[str],
    directory: Path,
    *,
    programs: Mapping[str, bytes],
    files: Callable[[Path], None] = lambda _: None,
    revision: int = 1,
    suite: str = _SUITE,
) -> str:
    """Return the name of an image with ``packages``, ``programs`` in /usr/local/bin, and what ``files`` puts in /srv.

    It stays with the engine, so that the next run has it; its tag is made of all that goes into it, and of
    ``revision``, which is to be raised when ``files`` changes. ``directory`` is for what is in the making.
    """
    wanted = sorted(packages)
    ingredients = repr((wanted, sorted(programs.items()), suite, revision))
    tag = hashlib.sha256(ingredients.encode()).hexdigest()[:12]
    client = docker.from_env(timeout=300)
    try:
        client.images.get(f"{repository}:{tag}")
    except docker.errors.ImageNotFound:
        root = directory / "root"
        _bootstrap(root, wanted, suite)
        for program, content in programs.items():
            path = root / "usr/local/bin" / program
            path.write_bytes(content)
            path.chmod(0o755)
        files(root / "srv")
        archive = directory / "root.tar"
        subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
        client.api.import_image_from_file(str(archive), repository=repository, tag=tag)
        archive.unlink()
        shutil.rmtree(root)
    finally:
        client.close()
    return f"{repository}:{tag}"


def _bootstrap(root: Path, packages: list[str], suite: str) -> None:
    if shutil.which("debootstrap") is None:
        subprocess.run(["apt-get", "install", "-y", "-qq", "debootstrap"], check=True, capture_output=True)
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", suite, str(root), *_mirror()],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ImageError(f"debootstrap failed: {done.stdout[-2000:].decode()}")
    for path in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(root / path, ignore_errors=True)


def _mirror() -> list[str]:
    """Where this host gets its own packages from."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text() for path in sources if path.is_file())
    found = re.search(r"^(?:deb(?: \[[^]]*\])?|URIs:)\s+(\S+)", text, re.MULTILINE)
    return [found[1]] if found else []
