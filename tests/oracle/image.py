"""The image in which the programs run that are compared: Debian, with strace, our own programs and files to work on."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from debian_image import debian_image

from bedrock.tracer import compile

PACKAGES = [
    "strace", "fio", "sqlite3", "git", "python3-minimal", "busybox-static", "make", "rsync", "xz-utils", "perl",
    "nginx-light", "redis-server", "postgresql-15", "nodejs", *compile.PACKAGES,
]  # fmt: skip


def oracle_image(programs: Mapping[str, bytes], directory: Path) -> str:
    """Return an image of Debian with :data:`PACKAGES`, ``programs`` in /usr/local/bin and some files to work on."""
    return debian_image("bedrock-test/debian", PACKAGES, directory, programs=programs, files=_add_files)


def _add_files(directory: Path) -> None:
    """Input for the workloads: a tree of text files, and one of random-looking bytes."""
    (directory / "bytes").write_bytes(b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(1 << 15)))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in range(200):
            content = f"file {number}\n".encode() * (number * 7 + 1)
            info = tarfile.TarInfo(f"tree/d{number % 10}/f{number}.txt")
            info.size, info.mtime = len(content), 1_600_000_000
            tar.addfile(info, io.BytesIO(content))
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        tar.extractall(directory, filter="data")
