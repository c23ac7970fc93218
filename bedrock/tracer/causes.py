"""What a trace may lack: records that were lost, by cause, and what a kernel does not let the probes see."""

from __future__ import annotations

import enum


class Cause(enum.IntEnum):
    """Why a record is missing, or not whole. ``lost`` of a verdict uses the names in lower case."""

    RING_FULL = 0
    MAP_FULL = 1
    WRITE_ERROR = 2
    STRING_CUT = 3
    READ_FAULT = 4
    SIZE_LIMIT = 5
    MAPPING_BUSY = 6
    FOREIGN_ABI = 7
    PROBE_MISSED = 8
    END_UNSEEN = 9
    REQUEST_UNREAD = 10
    STRING_CHANGED = 11
    PROBE_SKIPPED = 12


CAUSES = {
    Cause.RING_FULL: "the target was faster than the tracer could write; a larger `tracer_ring` helps",
    Cause.MAP_FULL: "no memory for what is kept in the kernel of a task, of a request or, in mode summary, of a file",
    Cause.WRITE_ERROR: "the volume did not take it: its disk is full, or broken",
    Cause.STRING_CUT: "a path, or an argument vector, is longer than what is kept of one",
    Cause.READ_FAULT: "a string was no longer in memory when it was to be read",
    Cause.SIZE_LIMIT: "the trace had reached its upper size",
    Cause.MAPPING_BUSY: "of a page fault, munmap or msync: the process changed its mappings while we looked",
    Cause.FOREIGN_ABI: "a call through an interface that the probes can't read: x32, or 32-bit programs on arm64",
    Cause.PROBE_MISSED: "the kernel left out the probe at the beginning or at the end of the call",
    Cause.END_UNSEEN: "of a request to io_submit or an io_uring it was not seen how it ended: its result is not known",
    Cause.REQUEST_UNREAD: "a request to io_submit was no longer in memory when it was to be read",
    Cause.STRING_CHANGED: "a path argument was changed by another thread while the call ran: the kernel may have "
    "acted on either text, or on one in between",
    Cause.PROBE_SKIPPED: "the kernel left out a probe for some task of this host: an upper bound of what is missing",
}


# The causes after which a record is not in the trace; after the others it is, with less in it.
DROPPING = (
    Cause.RING_FULL,
    Cause.MAP_FULL,
    Cause.WRITE_ERROR,
    Cause.SIZE_LIMIT,
    Cause.MAPPING_BUSY,
    Cause.FOREIGN_ABI,
    Cause.PROBE_MISSED,
    Cause.REQUEST_UNREAD,
    Cause.PROBE_SKIPPED,
)


class Feature(enum.IntFlag):
    """What a kernel may not let the probes see. ``unsupported`` of a trace uses the names in lower case."""

    PAGE_FAULTS = 1
    DEVICE_READS = 2
    IO_URING = 4
    IO_URING_PATHS = 8
    MAPPINGS = 16
    FAILED_FAULTS = 32
    CALLS_32 = 64
    DEEP_PATHS = 128


FEATURES = {
    Feature.PAGE_FAULTS: "page faults on mapped files, and so what was read or written through memory",
    Feature.DEVICE_READS: "which reads the page cache could not serve",
    Feature.IO_URING: "requests to an io_uring",
    Feature.IO_URING_PATHS: "the paths of requests to an io_uring",
    Feature.MAPPINGS: "munmap and msync",
    Feature.FAILED_FAULTS: "which page faults ended in a signal",
    Feature.CALLS_32: "calls through the 32-bit interface: they are counted as foreign_abi",
    Feature.DEEP_PATHS: "paths of more than 64 components: they are cut, and counted as string_cut",
}
