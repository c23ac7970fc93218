"""Compiling the tracer with the tools of this host."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

from bedrock.errors import BedrockError
from bedrock.tracer.header import c_header
from bedrock.tracer.stack import LIMIT_BYTES, LIMIT_FRAMES, deepest_chains

PACKAGES = ("clang", "libbpf-dev", "bpftool", "libelf-dev", "zlib1g-dev", "libzstd-dev", "libc6-dev", "gcc")
SCRIPT = "build.sh"
PROBES = "bdtrace.bpf.o"
_TOOLS = {"clang": "clang", "bpftool": "bpftool", "gcc": "gcc"}
_HEADERS = {"libbpf-dev": "bpf/libbpf.h", "libelf-dev": "libelf.h", "zlib1g-dev": "zlib.h", "libzstd-dev": "zstd.h"}
# Debian keeps bpftool where only root's PATH leads to.
_MORE_PATH = "/usr/sbin:/sbin"


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
    path = f"{os.environ.get('PATH', os.defpath)}:{_MORE_PATH}"
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool, path=path) is None]
    return missing + [name for name, header in _HEADERS.items() if not Path("/usr/include", header).exists()]


def compile_here() -> dict[str, bytes]:
    """Compile with this host's tools; return the tracer's programs by name. Raises :class:`BuildFailed`.

    MACHINE, CC and CLANG in the environment choose another machine and other compilers (see ``bpf/build.sh``).
    """
    with tempfile.TemporaryDirectory(prefix="bedrock-tracer-") as name:
        work = Path(name)
        for source, content in sources().items():
            (work / source).write_bytes(content)
        done = subprocess.run(["sh", str(work / SCRIPT)], capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0:
            raise BuildFailed(f"the compiler failed:\n{done.stderr.strip()[-4000:]}")
        check_stack((work / PROBES).read_bytes())
        return {path.name: path.read_bytes() for path in sorted((work / "out").iterdir())}


def check_stack(probes: bytes) -> None:
    """Raise :class:`BuildFailed` where a chain of calls in the probes takes more than every kernel has room for."""
    for chain in deepest_chains(probes):
        if chain.stack_bytes > LIMIT_BYTES or len(chain.functions) > LIMIT_FRAMES:
            raise BuildFailed(
                f"a chain of calls in the probes takes {chain.stack_bytes} bytes of stack in {len(chain.functions)} frames "
                f"(kernels before 6.13 have {LIMIT_BYTES} and {LIMIT_FRAMES}): {chain}"
            )
