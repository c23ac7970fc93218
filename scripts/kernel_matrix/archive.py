"""Packages of several releases of Debian, fetched with this host's apt beside what the host has itself.

apt gets lists, a cache and a status of its own, so that nothing of the host changes; packages are unpacked and never
installed. They come from where the host gets its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

_SUITES = ("bullseye", "bookworm", "trixie", "trixie-backports", "sid")
_SECURITY = ("bullseye", "bookworm", "trixie")
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_LISTS_LAST_S = 24 * 3600


class ArchiveError(Exception):
    """A package can't be had; the text is apt's own."""


class PackageGone(ArchiveError):
    """The lists name a package that the mirror does not have, or not any more."""


class Archive:
    """All packages for amd64 and arm64, kept in a directory that one process may use at a time; see :meth:`locked`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._apt = directory / "apt"
        for name in ("lists/partial", "cache/archives/partial"):
            (self._apt / name).mkdir(parents=True, exist_ok=True)
        (self._apt / "status").touch()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Wait until no other process uses the directory, and keep it."""
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def update(self) -> None:
        """Fetch the lists of packages, at most once a day; without a network those that are there must do."""
        stamp = self._apt / "updated"
        sources = "".join(f"{line}\n" for line in _sources())
        is_same = (self._apt / "sources.list").exists() and (self._apt / "sources.list").read_text() == sources
        if is_same and stamp.exists() and time.time() - stamp.stat().st_mtime < _LISTS_LAST_S:
            return
        (self._apt / "sources.list").write_text(sources)
        try:
            self._run("apt-get", "update", "-qq")
        except ArchiveError:
            if not stamp.exists():
                raise
            return
        stamp.touch()

    @cached_property
    def names(self) -> frozenset[str]:
        """What packages there are, those of other architectures without a suffix."""
        return frozenset(name.partition(":")[0] for name in self._run("apt-cache", "pkgnames").split())

    def with_dependencies(self, packages: Iterable[str], arch: str, suite: str) -> list[str]:
        """These packages and all that they depend on."""
        said = self._run(
            "apt-get", "install", "--simulate", "--no-install-recommends", f"--target-release={suite}", *packages,
            arch=arch,
        )  # fmt: skip
        return re.findall(r"^Inst ([^ :]+)", said, re.MULTILINE)

    def unpacked(self, name: str, packages: Iterable[str], arch: str, *, suite: str = "") -> Path:
        """Return a directory, in whose name is ``name``, with the content of all these packages.

        They are fetched where it is not there yet.
        Those that the archive does not have are left out. /bin, /lib and the like are links into /usr there.
        """
        wanted = [name for name in packages if name in self.names]
        if not wanted:
            raise ArchiveError(f"the archive has none of {', '.join(packages)}")
        digest = hashlib.sha256(" ".join([*wanted, suite]).encode()).hexdigest()[:12]
        target = self._directory / "unpacked" / f"{name}_{arch}_{digest}"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._directory, prefix="fetching-") as place:
                work = Path(place)
                self._run(
                    "apt-get", "download", "-qq", *(f"{one}{suite and f'/{suite}'}" for one in wanted),
                    arch=arch, directory=work,
                )  # fmt: skip
                for link in ("bin", "sbin", "lib", "lib64"):
                    (work / "root/usr" / link).mkdir(parents=True)
                    (work / "root" / link).symlink_to(f"usr/{link}")
                for deb in sorted(work.glob("*.deb")):
                    content = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], check=True, capture_output=True)
                    unpack = ["tar", "-x", "--keep-directory-symlink", "-C", str(work / "root")]
                    subprocess.run(unpack, check=True, input=content.stdout)
                (work / "root").rename(target)
        return target

    def _run(self, tool: str, *arguments: str, arch: str = "amd64", directory: Path | None = None) -> str:
        own = {
            "Dir::Etc::SourceList": self._apt / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": self._apt / "lists",
            "Dir::State::Status": self._apt / "status",
            "Dir::Cache": self._apt / "cache",
            "Dir::Cache::PkgCache": f"pkgcache-{arch}.bin",
            "Dir::Cache::SrcPkgCache": f"srcpkgcache-{arch}.bin",
            "APT::Architecture": arch,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Debug::NoLocking": "true",
        }
        options = [word for name, value in own.items() for word in ("-o", f"{name}={value}")]
        options += ["-o", "APT::Architectures::=amd64", "-o", "APT::Architectures::=arm64"]
        done = subprocess.run([tool, *options, *arguments], capture_output=True, text=True, cwd=directory, check=False)
        if done.returncode != 0:
            kind = PackageGone if re.search(r"\b404\b", done.stderr) else ArchiveError
            raise kind(f"{tool} {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


def _sources() -> Iterator[str]:
    mirror, security = mirrors()
    for suite in _SUITES:
        yield f"deb [signed-by={_KEYS}] {mirror} {suite} main"
    for suite in _SECURITY:
        yield f"deb [signed-by={_KEYS}] {security} {suite}-security main"


def mirrors() -> tuple[str, str]:
    """Where this host gets its own packages from, and those of Debian's security team."""
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text() for path in places if path.is_file())
    found: list[str] = re.findall(r"^(?:deb(?: \[[^]]*\])?|URIs:)\s+(\S*debian\S*)", text, re.MULTILINE)
    mirrors = [url.rstrip("/") for url in found if "security" not in url]
    if not mirrors:
        raise ArchiveError("the sources of this host's apt name no mirror of Debian")
    return mirrors[0], next((url for url in found if "security" in url), f"{mirrors[0]}-security")
