"""What runs in a virtual machine: the tracer, what makes sessions, busybox, and the programs of the tests."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

import engine_facts
from make_image import APPLETS, BUSYBOX, PASSWD

from bedrock.tracer.compile import sources
from kernel_matrix.archive import Archive
from kernel_matrix.kernels import Arch

_HERE = Path(__file__).parent
_WITH_STRACE = ("strace", "coreutils", "dash", "bash", "tar", "gzip", "sed", "grep", "diffutils", "findutils",
                "sqlite3", "busybox-static")  # fmt: skip
_ORACLE_PROGRAMS = ("witness", "corners")
_LIBRARIES = ("libbpf-dev", "libelf-dev", "zlib1g-dev", "libzstd-dev")


class BuildError(Exception):
    """A program can't be compiled; the text is the compiler's."""


def build_tracer(arch: Arch, archive: Archive, directory: Path) -> Path:
    """Compile the tracer for ``arch`` with the project's own script; return the directory with bdtrace and gate.

    For another architecture than this host's, the libraries are the packages of the host's own release.
    """
    work = directory / "tracer"
    work.mkdir(parents=True)
    for name, content in sources().items():
        (work / name).write_bytes(content)
    environment = dict(os.environ, MACHINE=arch.machine)
    if not arch.is_native:
        root = archive.unpacked("libraries", _LIBRARIES, arch.name, suite=_host_suite())
        environment["CC"] = f"{arch.compiler} -isystem {root}/usr/include -L{root}/usr/lib/{arch.machine}-linux-gnu"
        # clang is not told of the other architecture's own headers by the script.
        environment["C_INCLUDE_PATH"] = f"/usr/{arch.machine}-linux-gnu/include"
    _run(["sh", str(work / "build.sh")], environment)
    # The types of this host's kernel are of no use to another one.
    shutil.rmtree(work / "out" / "btf", ignore_errors=True)
    return work / "out"


def build_session(arch: Arch, directory: Path) -> Path:
    """Compile the program that makes a session out of a command."""
    program = directory / "session"
    _run(
        [
            arch.compiler,
            "-std=gnu11",
            "-O1",
            "-Wall",
            "-Werror",
            "-static",
            str(_HERE / "session.c"),
            "-o",
            str(program),
        ]
    )
    return program


def busybox(arch: Arch, archive: Archive) -> Path:
    """Return a static busybox."""
    if arch.is_native:
        return BUSYBOX
    root = archive.unpacked("busybox", ("busybox-static",), arch.name, suite=_host_suite())
    return next(path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.exists())


def lay_image(arch: Arch, archive: Archive, root: Path) -> None:
    """Lay out the image of the tests on the engine: busybox, files to read, and the tests' programs."""
    for name, mode in (("tmp", 0o1777), ("root", 0o700), ("etc", 0o755), ("bin", 0o755), ("srv", 0o755)):
        (root / name).mkdir(parents=True)
        (root / name).chmod(mode)
    (root / "etc/passwd").write_bytes(PASSWD)
    shutil.copyfile(busybox(arch, archive), root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    _put_programs(arch, root / "bin")
    for name, content in engine_facts.IMAGE_FILES.items():
        (root / name).write_bytes(content)
    for path in (root / "bin/busybox", *(root / "srv").iterdir()):
        path.chmod(0o755)


def has_oracle() -> bool:
    """Whether the tests compare traces with strace's account of the same session."""
    try:
        return find_spec("oracle.image") is not None
    except ModuleNotFoundError:
        return False


def lay_debian(arch: Arch, archive: Archive, root: Path) -> None:
    """Lay out an image like that in which the tests compare traces with strace's account, with fewer packages."""
    from oracle.image import _add_files

    suite = _host_suite()
    packages = archive.with_dependencies(_WITH_STRACE, arch.name, suite)
    shutil.copytree(archive.unpacked("debian", packages, arch.name, suite=suite), root, symlinks=True)
    if not (root / "bin/sh").exists():
        (root / "bin/sh").symlink_to("dash")
    (root / "etc/passwd").write_bytes(PASSWD)
    for name, mode in (("tmp", 0o1777), ("srv", 0o755), ("usr/local/bin", 0o755)):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    _put_programs(arch, root / "usr/local/bin", *_ORACLE_PROGRAMS)
    _add_files(root / "srv")


def _put_programs(arch: Arch, directory: Path, *more: str) -> None:
    """Compile the programs of the tests, and ``more``, which belong to some tests only."""
    with tempfile.TemporaryDirectory(prefix="bedrock-programs-") as name:
        made = engine_facts.compiled_programs(Path(name), arch.compiler)
        made |= {one: engine_facts.compiled(one, Path(name), "-pthread", compiler=arch.compiler) for one in more}
    for program, content in made.items():
        (directory / program).write_bytes(content)
        (directory / program).chmod(0o755)


def _host_suite() -> str:
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}:\n{done.stderr.strip()[-4000:]}")
