"""An independent witness of what a command does: ``strace -f``, in the same image, read without any of our own code."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from debian_image import debian_image

from bedrock.trace.events import Event
from bedrock.tracer import compile
from bedrock.tracer.operations import Op

PACKAGES = ["strace", "fio", "sqlite3", "git", "python3-minimal", "busybox-static", *compile.PACKAGES]

# What is made by the kernel and not called, has another name, is traced for files only (which strace can't tell), or is
# newer than Debian's strace.
_NO_CALLS = {
    "fork", "exit", "fault", "page_in", "fcntl_dupfd", "munmap", "msync", "ioctl_clone", "io_submit", "fchmodat2",
    "setxattrat", "getxattrat", "listxattrat", "removexattrat", "file_getattr", "file_setattr",
}  # fmt: skip
NAMES = sorted(
    name for op in Op if (name := op.name.lower()) not in _NO_CALLS and not name.startswith(("uring_", "aio_"))
)
_FORKS = ("fork", "vfork", "clone", "clone3")
# What strace calls the calls of 32-bit programs that have no other name in our traces than those of 64-bit ones.
_NAMES_32 = {
    "_llseek": "lseek", "mmap2": "mmap", "fcntl64": "fcntl", "stat64": "stat", "lstat64": "lstat", "fstat64": "fstat",
    "fstatat64": "newfstatat", "sendfile64": "sendfile", "ftruncate64": "ftruncate", "fadvise64_64": "fadvise64",
}  # fmt: skip
_READS = {"read", "pread64", "readv", "preadv", "preadv2"}
_MOVES = {"sendfile", "copy_file_range", "splice"}
_WRITES = {"write", "pwrite64", "writev", "pwritev", "pwritev2"}

_LINE = re.compile(
    r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|0x[0-9a-f]+|\?)(?:<[^ ]*>)?"
    r"(?: (?P<error>E[A-Z0-9]+) .*| \(.*\))?"
)
_DESCRIPTOR = re.compile(r"(?P<fd>-?\d+)<(?P<path>(?:[^<>]|<[^<>]*>)*)>(?:\(deleted\))?")


class Account(NamedTuple):
    """How often each call was made, by its error (None for none) and its path arguments, and the bytes by path."""

    calls: Counter[tuple[str, str | None, tuple[str, ...]]]
    read: Counter[str]
    written: Counter[str]

    def __sub__(self, other: Account) -> Mapping[object, tuple[int, int]]:  # type: ignore[override]
        """Where two accounts differ: what, in this one, in the other."""
        found = {}
        for mine, theirs, kind in zip(self, other, ("calls", "read", "written"), strict=True):
            for key in {*mine, *theirs}:
                if mine[key] != theirs[key]:  # type: ignore[index]
                    found[kind, key] = (mine[key], theirs[key])  # type: ignore[index]
        return found


def _plain(path: str) -> str:
    """A path with what is different from run to run taken out of it: numbers of pipes and processes, random names."""
    if path.startswith(("pipe:", "socket:")):
        return path.split(":", maxsplit=1)[0]
    path = path.removesuffix(" (deleted)")
    path = re.sub(r"^/proc/\d+/", "/proc/N/", path)
    return re.sub(r"(tmp_obj_|/tmp|\.git/t)[A-Za-z0-9]{6}$", r"\1XXXXXX", path)


class _Accountant:
    """Adds single calls up. How often a pipe is read depends on who is quicker, so of pipes only the bytes count."""

    def __init__(self, ignored: str | None) -> None:
        self.account = Account(Counter(), Counter(), Counter())
        self._ignored = re.compile(ignored) if ignored else None

    def call(self, name: str, error: str | None, paths: list[str], arguments: Iterable[str | None] = ()) -> None:
        """One call, about the files ``paths``; ``arguments`` are the paths that it was given, in any order."""
        if not self._is_ignored(paths) and "pipe" not in paths:
            given = tuple(sorted(_plain(text) for text in arguments if text))
            self.account.calls[name, error, given] += 1

    def moved(self, path: str, size: int, *, is_write: bool) -> None:
        if size and not self._is_ignored([path]):
            (self.account.written if is_write else self.account.read)[path] += size

    def _is_ignored(self, paths: list[str]) -> bool:
        return self._ignored is not None and any(self._ignored.search(path) for path in paths)


def account_of_events(events: Iterable[Event], *, ignored: str | None = None) -> Account:
    """What our trace says. Calls on files whose path matches ``ignored`` are left out."""
    accountant = _Accountant(ignored)
    sources: dict[tuple[int, int], Event] = {}
    for event in events:
        name = {"fcntl_dupfd": "fcntl"}.get(event.op, event.op)
        path = _plain(event.path or event.raw or "")
        if name == "fork":
            accountant.call("fork", None, [])
        if name not in {*NAMES, "fcntl"}:
            continue
        if name in _MOVES and not event.to_file:
            sources[event.tid, event.t_ns] = event  # the other side comes next
        elif name in _MOVES:
            source = _plain(sources.pop((event.tid, event.t_ns)).path or "")
            accountant.call(name, event.error, [source, path])
        else:
            given = [event.raw] if "xattr" in name else [event.raw, event.second_raw]
            accountant.call(name, event.error, [path], given)
        if event.error is None and (name in _READS | _WRITES | _MOVES):
            accountant.moved(path, event.result or 0, is_write=name in _WRITES or event.to_file)
    return accountant.account


def account_of_strace(lines: Iterable[str], *, ignored: str | None = None) -> Account:
    """What strace says, with ``-ff -y``: one file for each thread, so that no line is broken by another one."""
    accountant = _Accountant(ignored)
    for line in lines:
        match = _LINE.fullmatch(line.strip())
        if match is None:
            if not line.startswith(("+++", "---")):
                raise AssertionError(f"strace wrote what can't be read: {line!r}")
            continue
        name, arguments, error = match["name"], match["arguments"], match["error"]
        name = _NAMES_32.get(name, name)
        if match["result"] == "?":
            continue  # it never returned
        if name in _FORKS:
            if error is None:
                accountant.call("fork", None, [])
            continue
        if name == "fcntl" and "F_DUPFD" not in arguments:
            continue
        if name == "mmap" and "MAP_ANONYMOUS" in arguments:
            continue
        # Strings that are no paths are shown as nothing, by `-s 0`.
        quoted = [_plain(found) for found in re.findall(r'"([^"]+)"', arguments.replace('""...', ""))]
        paths = [_plain(found["path"]) for found in _DESCRIPTOR.finditer(arguments)]
        size = int(match["result"], 0) if error is None else 0
        if name in _READS | _WRITES:
            accountant.call(name, error, paths[:1])
            accountant.moved(paths[0] if paths else "", size, is_write=name in _WRITES)
        elif name in _MOVES:
            source, target = (paths[1], paths[0]) if name == "sendfile" else paths[:2]
            accountant.call(name, error, [source, target])
            accountant.moved(source, size, is_write=False)
            accountant.moved(target, size, is_write=True)
        else:
            accountant.call(name, error, quoted[:1] or paths[:1], quoted)
    return accountant.account


def run_strace(image: str, command: list[str], directory: Path, *, ignored: str | None = None) -> Account:
    """Run a command in an image under strace, as like to a session as can be: no terminal, no input, two pipes."""
    traced = ",".join([*NAMES, "fcntl", *_FORKS, *(f"?{name}" for name in _NAMES_32)])
    done = subprocess.run(
        ["docker", "run", "--rm", "--cap-add", "SYS_PTRACE", "-v", f"{directory}:/witness", image,
         "strace", "-ff", "-y", "-qq", "-s", "0", "-e", "signal=none", "-e", f"trace={traced}",
         "-o", "/witness/calls", *command],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(f"the command failed under strace: {done.stdout!r} {done.stderr[-2000:]!r}")
    lines = [line for path in sorted(directory.iterdir()) for line in path.read_text(errors="replace").splitlines()]
    return account_of_strace(lines, ignored=ignored)


def oracle_image(programs: Mapping[str, bytes], directory: Path) -> str:
    """Return an image of Debian with :data:`PACKAGES`, ``programs`` in /usr/local/bin and some files to work on."""
    return debian_image("bedrock-test/debian", PACKAGES, directory, programs=programs, files=_add_files)


def _add_files(directory: Path) -> None:
    """Input for the workloads: a tree of text files, and one of random-looking bytes."""
    directory.mkdir(exist_ok=True)
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
