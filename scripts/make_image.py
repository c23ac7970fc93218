"""Make a small image out of Debian's static busybox, since there may be no registry to pull one from.

make_image.py NAME:TAG [PATH-IN-IMAGE=FILE ...]
make_image.py --remove NAME:TAG
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import docker
import docker.errors

BUSYBOX = Path("/bin/busybox") if Path("/bin/busybox").exists() else Path("/usr/bin/busybox")
APPLETS = (
    *("sh", "cat", "ls", "echo", "sleep", "true", "false", "dd", "id", "env", "head", "tail", "touch", "mkdir", "rm"),
    *("mv", "cp", "wc", "seq", "kill", "stat", "ln", "readlink", "yes"),
)
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"


def make_image(
    name: str,
    extra: Mapping[str, bytes],
    changes: list[str],
    *,
    with_busybox: bool = True,
    links: Mapping[str, str] | None = None,
) -> None:
    """Import an image ``name`` with busybox and ``extra``: path in the image to content, all executable.

    ``links`` has further names (hard links) of files in ``extra``: path to path.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:

        def add(path: str, content: bytes, mode: int) -> None:
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))

        for directory, mode in (("tmp", 0o1777), ("root", 0o700), ("etc", 0o755), ("bin", 0o755), ("srv", 0o755)):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, mode
            tar.addfile(info)
        add("etc/passwd", PASSWD, 0o644)
        if with_busybox:
            add("bin/busybox", BUSYBOX.read_bytes(), 0o755)
            for applet in APPLETS:
                info = tarfile.TarInfo(f"bin/{applet}")
                info.type, info.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(info)
        for path, content in extra.items():
            add(path, content, 0o755)
        for path, target in (links or {}).items():
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.LNKTYPE, target
            tar.addfile(info)
    repository, _, tag = name.rpartition(":")
    client = docker.from_env()
    try:
        client.api.import_image_from_data(archive.getvalue(), repository=repository, tag=tag, changes=changes)
    finally:
        client.close()


def remove_image(name: str) -> None:
    client = docker.from_env()
    try:
        client.images.remove(name, force=True)
    except docker.errors.ImageNotFound:
        return
    finally:
        client.close()


if __name__ == "__main__":
    if sys.argv[1] == "--remove":
        remove_image(sys.argv[2])
    else:
        files = dict(argument.split("=", 1) for argument in sys.argv[2:])
        contents = {path: Path(source).read_bytes() for path, source in files.items()}
        make_image(sys.argv[1], contents, ["ENV PATH=/bin", 'CMD ["/bin/sh"]'])
