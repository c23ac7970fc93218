"""Architectures and kernels: what they are called, and which of an archive's kernels a name means. Pure."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass

NEWEST = "newest"
# A kernel of the years between Debian 13 and the newest: the oldest of the archive from this one on.
_BETWEEN = (6, 16)


@dataclass(frozen=True)
class Arch:
    """An architecture: ``name`` is Debian's, ``machine`` is what uname says."""

    name: str
    machine: str
    qemu: tuple[str, ...]  # the emulator, and the machine and the processor that it is to be
    console: str

    @property
    def is_native(self) -> bool:
        return platform.machine() == self.machine

    @property
    def compiler(self) -> str:
        return "gcc" if self.is_native else f"{self.machine}-linux-gnu-gcc"


AMD64 = Arch("amd64", "x86_64", ("qemu-system-x86_64", "-cpu", "max"), "ttyS0")
ARM64 = Arch("arm64", "aarch64", ("qemu-system-aarch64", "-M", "virt", "-cpu", "neoverse-n1"), "ttyAMA0")
ARCHS = {arch.name: arch for arch in (AMD64, ARM64)}


class NoSuchKernel(Exception):
    """The archive has no kernel of that name, or it is not a name."""


@dataclass(frozen=True, order=True)
class Kernel:
    """One kernel of the archive. ``release`` is what `uname -r` says in it."""

    version: tuple[int, ...]
    release: str
    arch_name: str
    is_16k: bool

    @property
    def arch(self) -> Arch:
        return ARCHS[self.arch_name]

    @property
    def series(self) -> tuple[int, int]:
        return self.version[0], self.version[1]

    @property
    def name(self) -> str:
        """What the kernel is called on the command line, for example 6.12-arm64-16k."""
        return f"{self.version[0]}.{self.version[1]}-{self.arch_name}{'-16k' if self.is_16k else ''}"

    @property
    def packages(self) -> tuple[str, ...]:
        """Each of which may be missing: from 6.19 on `linux-image` holds nothing, from 7.2 on modules are apart."""
        return tuple(f"linux-{part}-{self.release}" for part in ("image", "binary", "modules"))


# The small kernels for virtual machines; those of 16K pages are only there for all machines. Left out are rebuilds for
# older releases (6.1.0-0.deb11.52), kernels for real time (-rt-) and those without a signature.
_PACKAGE = re.compile(
    r"linux-(?:image|binary)-(?P<release>(?P<version>\d+\.\d+\.\d+(?:-\d+|\+deb\d+(?:[.+]\d+)?))"
    r"-(?P<flavour>cloud-amd64|cloud-arm64|arm64-16k))"
)


def kernels_of(packages: Iterable[str]) -> list[Kernel]:
    """The kernels among the names of an archive's packages, oldest first."""
    found = set()
    for package in packages:
        match = _PACKAGE.fullmatch(package.partition(":")[0])
        if match:
            version = tuple(int(number) for number in re.findall(r"\d+", match["version"]))
            arch_name = "amd64" if "amd64" in match["flavour"] else "arm64"
            found.add(Kernel(version, match["release"], arch_name, match["flavour"].endswith("16k")))
    return sorted(found)


def candidates(kernels: Iterable[Kernel], name: str) -> list[Kernel]:
    """Return the kernels with a name such as 6.1-amd64, newest-arm64 or 6.12-arm64-16k, the newest first."""
    match = re.fullmatch(r"(?P<series>\d+\.\d+|newest)-(?P<arch>amd64|arm64)(?P<pages>-16k)?", name)
    if match is None:
        raise NoSuchKernel(f"{name!r} is not a kernel's name, such as 6.1-amd64, newest-arm64 or 6.12-arm64-16k")
    fitting = [
        kernel
        for kernel in kernels
        if kernel.arch_name == match["arch"]
        and kernel.is_16k == bool(match["pages"])
        and (match["series"] == NEWEST or kernel.name.startswith(f"{match['series']}-"))
    ]
    if not fitting:
        raise NoSuchKernel(f"the archive has no kernel {name}")
    return sorted(fitting, reverse=True)


def full_matrix(kernels: Iterable[Kernel]) -> list[str]:
    """The names of the kernels that a whole run tries."""
    kernels = list(kernels)
    between = min((kernel.series for kernel in kernels if kernel.series >= _BETWEEN), default=None)
    series = ["5.10", "6.1", "6.12", *([f"{between[0]}.{between[1]}"] if between else []), NEWEST]
    return [f"{one}-{arch}" for arch in ARCHS for one in series] + ["6.12-arm64-16k", "newest-arm64-16k"]


SHORT_MATRIX = ["6.1-amd64", "6.12-amd64", "newest-amd64", "6.12-arm64"]
