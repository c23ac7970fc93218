"""What the witness and our trace are both turned into, and which calls and arguments both know."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import NamedTuple

from bedrock.tracer.operations import Op

Fact = int | str | tuple[str, ...] | None


class Call(NamedTuple):
    """One call of one thread. ``facts`` are what is known of it by name, ``text`` is how its source shows it.

    A call of strace's ``is_optional`` when it depends on what strace does not show whether Bedrock traces it.
    """

    name: str
    facts: Mapping[str, Fact]
    text: str
    is_optional: bool = False


# What strace shows of each call, argument by argument:
#   fd, fd2          a descriptor, with the path of its file
#   base, base2      the directory from which the path behind it counts
#   path, path2      a path
#   text2            text that is no path
#   requested        how many bytes are asked for
#   offset, offset2  where in the file; a number, or a pointer to one that strace follows
#   arg              a number that Bedrock keeps as it is
#   owner            the same, of 32 bits: -1 is a large number
#   protection flags the two that Bedrock keeps in one number
#   vector           buffers, of which the sizes are added up
#   argv             an argument vector
#   _                not compared
SIGNATURES: Mapping[str, str] = {
    "open": "path arg",
    "openat": "base path arg",
    "bind": "_ _ _",
    "inotify_add_watch": "_ path arg",
    "ioctl_setflags": "fd _ _",
    "sync": "",
    "flock": "fd arg",
    "openat2": "base path _",
    "creat": "path",
    "close": "fd",
    "read": "fd _ requested",
    "pread64": "fd _ requested offset",
    "readv": "fd vector",
    "preadv": "fd vector _ offset",
    "preadv2": "fd vector _ offset",
    "write": "fd _ requested",
    "pwrite64": "fd _ requested offset",
    "writev": "fd vector",
    "pwritev": "fd vector _ offset",
    "pwritev2": "fd vector _ offset",
    "lseek": "fd offset arg",
    "mmap": "_ requested protection flags fd offset",
    "dup": "fd",
    "dup2": "fd fd2",
    "dup3": "fd fd2",
    "fcntl_dupfd": "fd arg",
    "execve": "path argv",
    "execveat": "base path argv",
    "sendfile": "fd2 fd offset requested",
    "copy_file_range": "fd offset fd2 offset2 requested",
    "splice": "fd offset fd2 offset2 requested",
    "stat": "path",
    "lstat": "path",
    "fstat": "fd",
    "newfstatat": "base path _ arg",
    "statx": "base path arg",
    "access": "path arg",
    "faccessat": "base path arg",
    "faccessat2": "base path arg",
    "readlink": "path _ requested",
    "readlinkat": "base path _ requested",
    "getdents": "fd _ requested",
    "getdents64": "fd _ requested",
    "truncate": "path requested",
    "ftruncate": "fd requested",
    "fallocate": "fd arg offset requested",
    "fsync": "fd",
    "fdatasync": "fd",
    "rename": "path path2",
    "renameat": "base path base2 path2",
    "renameat2": "base path base2 path2 arg",
    "unlink": "path",
    "unlinkat": "base path arg",
    "link": "path path2",
    "linkat": "base path base2 path2 arg",
    "symlink": "text2 path",
    "symlinkat": "text2 base path",
    "mkdir": "path arg",
    "mkdirat": "base path arg",
    "rmdir": "path",
    "chmod": "path arg",
    "fchmod": "fd arg",
    "fchmodat": "base path arg",
    "chown": "path owner",
    "lchown": "path owner",
    "fchown": "fd owner",
    "fchownat": "base path owner",
    "chdir": "path",
    "fchdir": "fd",
    "munmap": "arg requested",
    "msync": "arg requested",
    "close_range": "arg",
    "statfs": "path",
    "fstatfs": "fd",
    "getxattr": "path text2 _ requested",
    "lgetxattr": "path text2 _ requested",
    "fgetxattr": "fd text2 _ requested",
    "listxattr": "path _ requested",
    "llistxattr": "path _ requested",
    "flistxattr": "fd _ requested",
    "setxattr": "path text2 _ requested arg",
    "lsetxattr": "path text2 _ requested arg",
    "fsetxattr": "fd text2 _ requested arg",
    "removexattr": "path text2",
    "lremovexattr": "path text2",
    "fremovexattr": "fd text2",
    "utime": "path",
    "utimes": "path",
    "futimesat": "base path",
    "utimensat": "base path _ arg",
    "mknod": "path arg",
    "mknodat": "base path arg",
    "chroot": "path",
    "readahead": "fd offset requested",
    "fadvise64": "fd offset requested arg",
    "sync_file_range": "fd offset requested arg",
    "syncfs": "fd",
    "name_to_handle_at": "base path",
    "open_by_handle_at": "fd",
    "ioctl_clone": "fd",
}

# These are no system calls: what the kernel does by itself, requests to an io_uring, and requests to io_submit; that
# call itself is not in a trace either.
NO_CALLS = {op.name.lower() for op in Op if op.name.startswith(("URING_", "AIO_"))} | {
    "fault", "fault_failed", "page_in", "io_submit", "receive_fd", "core_dump",
}  # fmt: skip
# strace 6.1, which Debian 12 has, does not know them.
TOO_NEW = {
    "fchmodat2", "setxattrat", "getxattrat", "listxattrat", "removexattrat", "file_getattr", "file_setattr",
}  # fmt: skip
# What is compared: fork and exit stand for several calls.
NAMES = {op.name.lower() for op in Op} - NO_CALLS - TOO_NEW
MOVES = {"sendfile", "copy_file_range", "splice"}


def counted_from(base: str | None, raw: str) -> str | None:
    """The path that an argument names, links not followed; None when it is not known from where it counts."""
    if not raw:
        return base
    if not raw.startswith("/"):
        if base is None:
            return None
        raw = f"{base}/{raw}"
    return "/" + posixpath.normpath(raw).lstrip("/")
