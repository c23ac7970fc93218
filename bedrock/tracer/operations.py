"""What a record of a trace can be about: the operations, and the classes of them that a session may choose."""

from __future__ import annotations

import enum

from bedrock.model import EventClass


class Op(enum.IntEnum):
    """What a CALL did. One number for each system call, so that nothing is merged that a reader may want apart.

    Calls through the 32-bit interface of x86 bear the name of the 64-bit call that does the same (``_llseek`` is LSEEK,
    ``fstatat64`` NEWFSTATAT), with its arguments.
    """

    OPEN = 1
    OPENAT = 2
    OPENAT2 = 3
    CREAT = 4
    CLOSE = 5
    READ = 6
    PREAD64 = 7
    READV = 8
    PREADV = 9
    PREADV2 = 10
    WRITE = 11
    PWRITE64 = 12
    WRITEV = 13
    PWRITEV = 14
    PWRITEV2 = 15
    LSEEK = 16
    MMAP = 17
    DUP = 18
    DUP2 = 19
    DUP3 = 20
    FCNTL_DUPFD = 21
    EXECVE = 22
    EXECVEAT = 23
    FORK = 24
    EXIT = 25
    SENDFILE = 26  # this and the next two are two records each: what was read, and with TO_FILE what was written
    COPY_FILE_RANGE = 27
    SPLICE = 28
    # From here on the loader's table says which argument is which: see fill_shapes in syscalls.c.
    STAT = 29
    LSTAT = 30
    FSTAT = 31
    NEWFSTATAT = 32
    STATX = 33
    ACCESS = 34
    FACCESSAT = 35
    FACCESSAT2 = 36
    READLINK = 37
    READLINKAT = 38
    GETDENTS = 39
    GETDENTS64 = 40
    TRUNCATE = 41
    FTRUNCATE = 42
    FALLOCATE = 43
    FSYNC = 44
    FDATASYNC = 45
    RENAME = 46
    RENAMEAT = 47
    RENAMEAT2 = 48
    UNLINK = 49
    UNLINKAT = 50
    LINK = 51
    LINKAT = 52
    SYMLINK = 53
    SYMLINKAT = 54
    MKDIR = 55
    MKDIRAT = 56
    RMDIR = 57
    CHMOD = 58
    FCHMOD = 59
    FCHMODAT = 60
    CHOWN = 61
    LCHOWN = 62
    FCHOWN = 63
    FCHOWNAT = 64
    CHDIR = 65
    FCHDIR = 66
    MUNMAP = 67  # of memory that a file is mapped to
    MSYNC = 68
    CLOSE_RANGE = 69
    # These are no system calls. A fault maps one page and may map its neighbours: what is touched there afterwards
    # faults no more.
    FAULT = 70  # a page of a mapped file was touched that was not mapped yet
    PAGE_IN = 71  # for the fault before this one, of the same thread, the page cache lacked the page
    URING_READ = 72  # from here on requests to an io_uring, from submission to completion
    URING_WRITE = 73
    URING_OPEN = 74
    URING_CLOSE = 75
    URING_FSYNC = 76
    URING_STAT = 77
    URING_OTHER = 78  # arg has the opcode
    # System calls again.
    STATFS = 79
    FSTATFS = 80
    GETXATTR = 81
    LGETXATTR = 82
    FGETXATTR = 83
    LISTXATTR = 84
    LLISTXATTR = 85
    FLISTXATTR = 86
    SETXATTR = 87
    LSETXATTR = 88
    FSETXATTR = 89
    REMOVEXATTR = 90
    LREMOVEXATTR = 91
    FREMOVEXATTR = 92
    UTIME = 93
    UTIMES = 94
    FUTIMESAT = 95
    UTIMENSAT = 96
    MKNOD = 97
    MKNODAT = 98
    FCHMODAT2 = 99
    CHROOT = 100
    READAHEAD = 101
    FADVISE64 = 102
    SYNC_FILE_RANGE = 103
    SYNCFS = 104
    URING_RENAME = 105  # requests to an io_uring again
    URING_UNLINK = 106
    URING_MKDIR = 107
    URING_SYMLINK = 108
    URING_LINK = 109
    URING_FALLOCATE = 110
    URING_TRUNCATE = 111
    NAME_TO_HANDLE_AT = 112  # system calls again
    OPEN_BY_HANDLE_AT = 113
    IOCTL_CLONE = 114  # ioctl with FICLONE, FICLONERANGE or FIDEDUPERANGE; arg is its argument
    SETXATTRAT = 115
    GETXATTRAT = 116
    LISTXATTRAT = 117
    REMOVEXATTRAT = 118
    FILE_GETATTR = 119
    FILE_SETATTR = 120
    IO_SUBMIT = 121  # never in a trace: its requests are
    AIO_READ = 122  # requests of io_submit; how they end is not seen
    AIO_WRITE = 123
    AIO_SYNC = 124
    AIO_OTHER = 125
    FAULT_FAILED = 126  # no call: the fault before this one, of the same thread, ended in a signal
    BIND = 127  # of a unix socket to a path, which makes a file
    INOTIFY_ADD_WATCH = 128
    IOCTL_SETFLAGS = 129  # ioctl with FS_IOC_SETFLAGS or FS_IOC_FSSETXATTR
    SYNC = 130
    FLOCK = 131
    RECEIVE_FD = 132  # a descriptor that arrived in a message (SCM_RIGHTS), one record each
    CORE_DUMP = 133  # no call: the kernel wrote, or piped, a core dump of the process; it is not known where


# Numbers are below this, also those that a later Bedrock adds.
MAX_OPS = 256
_NAMES = {op.value: op.name.lower() for op in Op}


def name_of(number: int) -> str:
    """The name of an operation; the number itself where this Bedrock does not know it."""
    return _NAMES.get(number, str(number))


def _range(first: Op, last: Op) -> frozenset[Op]:
    return frozenset(Op(number) for number in range(first, last + 1))


# What sessions may choose from. EXECVE, EXECVEAT, FORK, EXIT and CORE_DUMP belong to no class: they are always traced.
CLASSES: dict[EventClass, frozenset[Op]] = {
    EventClass.OPEN: _range(Op.OPEN, Op.CLOSE)
    | _range(Op.DUP, Op.FCNTL_DUPFD)
    | {Op.CLOSE_RANGE, Op.OPEN_BY_HANDLE_AT, Op.URING_OPEN, Op.URING_CLOSE, Op.RECEIVE_FD},
    EventClass.DATA: _range(Op.READ, Op.PWRITEV2)
    | _range(Op.SENDFILE, Op.SPLICE)
    | {Op.READAHEAD, Op.FADVISE64, Op.URING_READ, Op.URING_WRITE, Op.URING_OTHER}
    | {Op.IOCTL_CLONE, Op.IO_SUBMIT, Op.AIO_READ, Op.AIO_WRITE, Op.AIO_OTHER},
    EventClass.SEEK: frozenset({Op.LSEEK}),
    EventClass.MAP: frozenset({Op.MMAP, Op.MUNMAP, Op.MSYNC}),
    EventClass.FAULT: frozenset({Op.FAULT, Op.FAULT_FAILED, Op.PAGE_IN}),
    EventClass.STAT: _range(Op.STAT, Op.GETDENTS64)
    | _range(Op.STATFS, Op.FLISTXATTR)
    | {Op.CHDIR, Op.FCHDIR, Op.CHROOT, Op.URING_STAT}
    | {Op.NAME_TO_HANDLE_AT, Op.GETXATTRAT, Op.LISTXATTRAT, Op.FILE_GETATTR, Op.INOTIFY_ADD_WATCH},
    EventClass.CHANGE: _range(Op.TRUNCATE, Op.FALLOCATE)
    | _range(Op.RENAME, Op.FCHOWNAT)
    | _range(Op.SETXATTR, Op.FCHMODAT2)
    | _range(Op.URING_RENAME, Op.URING_TRUNCATE)
    | {Op.SETXATTRAT, Op.REMOVEXATTRAT, Op.FILE_SETATTR, Op.BIND, Op.IOCTL_SETFLAGS},
    EventClass.SYNC: frozenset(
        {
            Op.FSYNC,
            Op.FDATASYNC,
            Op.SYNC_FILE_RANGE,
            Op.SYNCFS,
            Op.SYNC,
            Op.FLOCK,
            Op.URING_FSYNC,
            Op.IO_SUBMIT,
            Op.AIO_SYNC,
        }
    ),
}
