"""Opening the gate where the tracer does not do it: for images of another make that know nothing of gates.

The conversation is the one that ``bdtrace`` has; ``gate.c`` describes it.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from bedrock.trace.verdict import TracerReport
from bedrock.volume import SessionVolume

_SOCKET = "sock"
_MAX_LINE = 8192


@asynccontextmanager
async def listen_for_gate(volume: SessionVolume) -> AsyncIterator[trio.socket.SocketType]:
    """Listen where the session's gate will knock."""
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        # The name of a socket may have 107 bytes, a data_dir may have more; so it is named by way of a descriptor.
        directory = os.open(volume.gate_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            address = f"/proc/self/fd/{directory}/{_SOCKET}"
            (volume.gate_path / _SOCKET).unlink(missing_ok=True)
            await listener.bind(address)
            # The target may run as any user.
            os.chmod(address, 0o777)
        finally:
            os.close(directory)
        listener.listen(1)
        yield listener


async def let_go(listener: trio.socket.SocketType, ready: trio.Event) -> TracerReport:
    """Wait for the gate to knock and for ``ready``, then let the target's own program begin. Says how that went."""
    gate, _ = await listener.accept()
    with gate:
        line = await _read_line(gate)
        if not line.startswith("R"):
            return _never_ran(line or "E125 the gate closed before it was opened")
        pid = struct.unpack("3i", gate.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        await ready.wait()
        t0_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        await gate.send(b"g")
        line = await _read_line(gate)
        if line.startswith("X"):
            return _never_ran(line)
    offset_ns = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return TracerReport(state="foreign", pid=pid, t0_ns=t0_ns, realtime_offset_ns=offset_ns)


def _never_ran(line: str) -> TracerReport:
    code, _, sentence = line[1:].partition(" ")
    return TracerReport(state="exec_failed", exit_code=int(code) if code.isdigit() else 125, error=sentence)


async def _read_line(gate: trio.socket.SocketType) -> str:
    """Up to the end of the line, or of the conversation: a successful exec closes the socket."""
    data = b""
    while not data.endswith(b"\n") and len(data) < _MAX_LINE:
        part = await gate.recv(_MAX_LINE)
        if not part:
            break
        data += part
    return data.decode("utf-8", "replace").strip()
