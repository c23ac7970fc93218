"""How strace is asked, and its lines as calls."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bedrock.trace.paths import text_of
from oracle.calls import MOVES, NAMES, SIGNATURES, Call, Fact, counted_from
from oracle.positions import Positions

_FORKS = ("fork", "vfork", "clone", "clone3")
# What strace calls those calls of 32-bit programs that have no other name in our traces than those of 64-bit ones.
_NAMES_32 = {
    "_llseek": "lseek", "mmap2": "mmap", "fcntl64": "fcntl", "stat64": "stat", "lstat64": "lstat", "fstat64": "fstat",
    "fstatat64": "newfstatat", "sendfile64": "sendfile", "truncate64": "truncate", "ftruncate64": "ftruncate",
    "fadvise64_64": "fadvise64", "statfs64": "statfs", "fstatfs64": "fstatfs", "oldstat": "stat",
    "oldlstat": "lstat", "oldfstat": "fstat", "chown32": "chown", "lchown32": "lchown", "fchown32": "fchown",
    "utimensat_time64": "utimensat",
}  # fmt: skip
# Calls of which only some are traced: which, by their second argument, and under which name.
_COMMANDS = {
    "fcntl": {0: "fcntl_dupfd", 1030: "fcntl_dupfd"},  # F_DUPFD, F_DUPFD_CLOEXEC
    "ioctl": {
        **dict.fromkeys((0x40049409, 0x4020940D, 0xC0189436), "ioctl_clone"),  # FICLONE, FICLONERANGE, FIDEDUPERANGE
        **dict.fromkeys((0x40086602, 0x40046602, 0x401C5820), "ioctl_setflags"),  # FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR
    },
}

_TRANSFERS = {"read", "readv", "preadv2", "write", "writev", "pwritev2"}
_RWF_APPEND = 0x10
_MAP_ANONYMOUS = 0x20
_DEATH = re.compile(
    r"\+\+\+ (?:exited with (?P<status>\d+)|killed by (?P<signal>\w+)(?P<core> \(core dumped\))?) \+\+\+"
)
_LINE = re.compile(
    r"(?P<name>\w+)\((?P<arguments>.*?)(?:\)\s+= (?P<result>\?|-?\d+|0x[0-9a-f]+)(?:<(?P<file>.*)>(?:\(deleted\))?)?"
    r"(?: (?P<error>E[A-Z0-9_]+) \(.*\)| \(.*\)| <unavailable>)?| ?<unfinished \.\.\.>(?:\)\s+= \?)?)"
)
_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"(?:\.\.\.)?|<(?:[^<>]|<[^<>]*>)*>(?:\(deleted\))?|/\*.*?\*/|[\[\]{}(),]|[^"<\[\]{}(),/]+|.'
)
_DESCRIPTOR = re.compile(r"(?P<fd>-?\d+)(?:<(?P<path>(?:[^<>]|<[^<>]*>)*)>(?:\(deleted\))?)?")
_DEVICE = re.compile(r"<(?:char|block) [\d:]+>$")
_NUMBERED = re.compile(r"(pipe|socket):\[\d+\]$")
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9a-f]{2}|.)", re.DOTALL)
_PLAIN_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"f": b"\f", b"v": b"\v"}


def strace_command(directory: str, command: Sequence[str]) -> list[str]:
    """The command that runs another one under strace, with one file for each thread in a directory.

    Each thread has its file so that no line is interrupted by another thread's. strace shows the paths of descriptors
    and of working directories, and numbers instead of the names of flags. 32 bytes of a string are shown, which is
    enough for the name of an attribute; paths are always whole.
    """
    names = {*NAMES, *_NAMES_32, *_FORKS, *_COMMANDS, "exit", "exit_group"}
    traced = ",".join(f"?{name}" for name in sorted(names))
    return [
        "strace", "-ff", "-q", "-X", "raw", "-s", "32", "-e", "decode-fds=path,dev",
        "-e", f"trace={traced}", "-o", f"{directory}/calls", *command,
    ]  # fmt: skip


def unescaped(text: str) -> bytes:
    """The bytes of a string as strace writes it, without its quotes."""

    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if code[:1].isdigit():
            return bytes([int(code, 8)])
        return bytes([int(code[1:], 16)]) if len(code) > 1 else _PLAIN_ESCAPES.get(code, code)

    return _ESCAPE.sub(plain, text.encode())


def split_arguments(text: str) -> list[str]:
    """The arguments of a call, as text: brackets, strings and paths in them are not taken apart."""
    arguments, depth = [""], 0
    for token in _TOKEN.findall(text):
        depth += (token in "[{(") - (token in "]})")
        if token == "," and not depth:
            arguments.append("")
        else:
            arguments[-1] += token
    return [argument.strip() for argument in arguments]


class _File(NamedTuple):
    """A descriptor, and what it is open for, as far as strace shows it."""

    fd: int
    path: str | None
    has_positions: bool


def _plain_path(shown: str) -> str:
    """A path as our traces have it. What has no path has a name of another form here."""
    shown = _DEVICE.sub("", shown)
    if _NUMBERED.fullmatch(shown):
        return shown
    if shown.startswith(("anon_inode:", "/memfd:")):
        return "anon:" + shown.removeprefix("anon_inode:").removeprefix("/")
    return text_of(unescaped(shown))


def _file(argument: str) -> _File:
    match = _DESCRIPTOR.match(argument)
    assert match is not None, argument
    path = match["path"]
    if path is None:
        return _File(int(match["fd"]), None, False)
    return _File(int(match["fd"]), _plain_path(path), _has_positions(path))


def _has_positions(shown: str) -> bool:
    return shown.startswith("/") and not _DEVICE.search(shown)


def _number(text: str) -> int:
    """A number, or several that are joined by |, in the notation of C; what stands behind it is a remark."""
    number = 0
    for part in text.split(" ", 1)[0].split("|"):
        number |= int(part or "0", 8 if re.fullmatch(r"0[0-7]+", part) else 0)
    return number


def _strings(argument: str) -> list[str]:
    return re.findall(r'"((?:[^"\\]|\\.)*)"', argument)


class _ThreadReader:
    """Reads the lines of one thread. Where its paths count from is known once strace has shown it."""

    def __init__(self, *, is_alone: bool = False) -> None:
        self.positions = Positions(is_alone=is_alone)
        self._directory: str | None = None
        self._root = ""
        self._mapped: dict[int, Fact] = {}  # address and size of the file mappings that this thread made

    def read(self, line: str) -> Call | None:
        """The call in a line; None for what Bedrock does not trace. Raises AssertionError where it can't be read."""
        death = _DEATH.fullmatch(line)
        if death is not None:
            return Call("exit", {"result": _wait_status(death)}, line)
        match = _LINE.fullmatch(line)
        if match is None:
            assert line.startswith(("[", "---", "+++ superseded")), f"strace wrote what can't be read: {line!r}"
            return None  # a signal; that a process runs in 32-bit mode; that another thread has gone on as this one
        name = _NAMES_32.get(match["name"], match["name"])
        if name in {"exit", "exit_group"}:
            return None  # its end is in a line of its own
        arguments = split_arguments(match["arguments"])
        name = "fork" if name in _FORKS else _traced_name(name, arguments)
        if match["name"] == "_llseek":
            del arguments[2]  # where the kernel puts the result
        if name is None:
            if match["name"].startswith("mmap") and match["error"] is None:
                # Memory without a file has taken the place of what was mapped there.
                self._mapped.pop(int(match["result"], 0), None)
            return None
        shown = _Arguments(self, name, arguments, is_good=match["error"] is None)
        facts = dict(shown.facts())
        has_returned = match["result"] is not None and (match["result"] != "?" or match["error"] is not None)
        if has_returned:
            facts |= _outcome(name, match)
            if facts["error"] is None:
                facts |= shown.positions(facts["result"])
                self._learn(name, facts, has_positions=_has_positions(match["file"] or ""))
        return Call(name, facts, line, is_optional=not has_returned or self._may_be_untraced(name, facts))

    def resolved(self, base: str | None, raw: str) -> str | None:
        """What a path argument names for this thread, as the container sees it; None where that is not known."""
        path = counted_from(base or self._directory, raw)
        return self._root + path if path is not None and raw.startswith("/") else path

    def stands_in(self, directory: str) -> None:
        """strace has shown the working directory."""
        self._directory = directory

    def _learn(self, name: str, facts: dict[str, Fact], *, has_positions: bool) -> None:
        path = facts.get("path")
        self.positions.learn(name, facts, has_positions=has_positions)
        if name in {"chdir", "fchdir"}:
            # What it really is, links followed, is shown by the next call that counts from it.
            self._directory = path if name == "fchdir" and isinstance(path, str) else None
        elif name == "chroot":
            self._root = str(path)
        elif name == "mmap" and isinstance(facts["result"], int):
            self._mapped[facts["result"]] = facts["requested"]
        elif name == "execve":
            self._mapped.clear()

    def _may_be_untraced(self, name: str, facts: dict[str, Fact]) -> bool:
        """Only memory that a file is mapped to is traced, and strace does not show what is mapped at an address.

        A whole mapping that this thread has made itself is known.
        """
        if name != "munmap":
            return name == "msync"
        address = facts["arg"]
        if not isinstance(address, int) or facts.get("error") is not None:
            return True
        size = self._mapped.pop(address, None)
        return size is None or size != facts["requested"]


class _Arguments:
    """What the arguments of one call say, by :data:`oracle.calls.SIGNATURES`."""

    def __init__(self, thread: _ThreadReader, name: str, arguments: list[str], *, is_good: bool) -> None:
        self._thread = thread
        self._name = name
        self._arguments = arguments
        self._is_good = is_good
        self._files: dict[str, _File] = {}
        self._has_own_offset: set[str] = set()
        self._bases: dict[str, str | None] = {}

    def facts(self) -> Iterator[tuple[str, Fact]]:
        for word, argument in zip(SIGNATURES.get(self._name, "").split(), self._arguments, strict=False):
            match word:
                case "fd" | "fd2":
                    yield from self._descriptor(word, argument)
                case "base" | "base2":
                    yield from self._base(word, argument)
                case "path" | "path2":
                    yield from self._path(word, argument)
                case "text2":
                    if argument.startswith('"') and not argument.endswith("..."):
                        yield "second_raw", text_of(unescaped(argument[1:-1]))
                case "requested":
                    yield "requested", _number(argument)
                case "arg":
                    yield "arg", _number(argument) & (1 << 64) - 1
                case "owner":
                    yield "arg", _number(argument) & (1 << 32) - 1
                case "flags":
                    yield "arg", _number(self._arguments[2]) | _number(argument) << 32
                case "offset" | "offset2":
                    yield from self._offset(word, argument)
                case "vector":
                    sizes = re.findall(r"iov_len=(\d+)", argument)
                    if argument.startswith("[") and not argument.endswith("...]"):
                        yield "requested", sum(map(int, sizes))
                case "argv":
                    yield from self._argv(argument)

    def positions(self, moved: Fact) -> dict[str, Fact]:
        """Where a call that was given no offset has read or written, as far as that is known. It moves the files on."""
        found: dict[str, Fact] = {}
        if self._name in MOVES:
            sides = {"fd": "from_offset", "fd2": "to_offset"}
        else:
            sides = {"fd": "offset"} if self._name in _TRANSFERS else {}
        for word, fact in sides.items():
            file = self._files[word]
            at = self._thread.positions.of(file.fd)
            if at is not None and word not in self._has_own_offset:
                found[fact] = at
                self._thread.positions.move(file.fd, moved)
        return found

    def _descriptor(self, word: str, argument: str) -> Iterator[tuple[str, Fact]]:
        file = self._files[word] = _file(argument)
        if self._name in MOVES:
            yield ("from" if word == "fd" else "to"), file.path
            return
        yield ("fd" if word == "fd" else "arg"), file.fd
        if word == "fd" and file.path is not None:
            yield "path", file.path

    def _base(self, word: str, argument: str) -> Iterator[tuple[str, Fact]]:
        file = _file(argument)
        path = self._bases[word] = None if file.path is None else file.path.removesuffix(" (deleted)")
        if file.fd == -100 and path is not None:
            self._thread.stands_in(path)
        if word == "base" and "NULL" in self._arguments[1:2] and path is not None:
            yield "path", path  # utimensat without a path is about the descriptor

    def _path(self, word: str, argument: str) -> Iterator[tuple[str, Fact]]:
        if not argument.startswith('"') or argument.endswith("..."):
            return  # the kernel could not read it either, or it is longer than a path may be
        raw = text_of(unescaped(argument[1:-1]))
        yield ("raw" if word == "path" else "second_raw"), raw
        path = self._thread.resolved(self._bases.get(word.replace("path", "base")), raw)
        # The file of a program is its interpreter where it is a script: strace does not show it.
        if path is not None and not (self._name.startswith("execve") and self._is_good):
            yield ("path" if word == "path" else "second"), path

    def _offset(self, word: str, argument: str) -> Iterator[tuple[str, Fact]]:
        """A position, where the file has positions. A failed call has none in our traces, but for lseek and mmap."""
        if argument in {"NULL", "-1"}:
            return  # the file's own position
        file = word.replace("offset", "fd")
        self._has_own_offset.add(file)
        if self._name == "pwritev2" and _number(self._arguments[4]) & _RWF_APPEND:
            return  # at the end of the file, wherever that is
        if self._name in MOVES:
            before = re.match(r"\[(\d+)\]", argument)
            if before is not None and self._is_good:
                yield ("from_offset" if word == "offset" else "to_offset"), int(before[1])
        elif self._name in {"lseek", "mmap"} or (self._is_good and self._files[file].has_positions):
            yield "offset", _number(argument)

    def _argv(self, argument: str) -> Iterator[tuple[str, Fact]]:
        # A program that could not be started has no arguments in our traces.
        if self._is_good and argument.startswith("[") and "..." not in argument:
            yield "argv", tuple(text_of(unescaped(word)) for word in _strings(argument))


def _traced_name(name: str, arguments: list[str]) -> str | None:
    """What a call is called in our traces; None when it is not traced."""
    if name in _COMMANDS:
        return _COMMANDS[name].get(_number(arguments[1]))
    if name == "bind":
        # Only what makes a file: the address of a unix socket that has a path.
        return name if 'sun_path="' in arguments[1] else None
    return None if name == "mmap" and _number(arguments[3]) & _MAP_ANONYMOUS else name


def _outcome(name: str, match: re.Match[str]) -> dict[str, Fact]:
    error = match["error"]
    if error is not None:
        return {"result": None, "error": error}
    result: dict[str, Fact] = {"result": int(match["result"], 0), "error": None}
    if name == "lseek" and match["name"] == "_llseek":
        result["result"] = int(split_arguments(match["arguments"])[2].strip("[]"))
    if name.startswith(("open", "creat")):
        result["fd"] = result["result"]
        if match["file"] is not None:
            result["path"] = _plain_path(match["file"])
    return result


def _wait_status(death: re.Match[str]) -> int:
    if death["status"] is not None:
        return int(death["status"]) << 8
    return int(signal.Signals[death["signal"]]) | (0x80 if death["core"] else 0)


def calls_of_strace(lines: Iterable[str], *, is_alone: bool = False) -> list[Call]:
    """The calls in strace's file of one thread; ``is_alone``: none other can move the files that it opens.

    Raises AssertionError for a line that can't be read.
    """
    reader = _ThreadReader(is_alone=is_alone)
    return [call for line in lines if (call := reader.read(line)) is not None]
