"""The conversation with a running tracer of ours: which sessions it is to trace. ``serve.c`` describes it.

Each request has a connection of its own, and repeating one does no harm.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio

from bedrock.errors import BedrockError

_MAX_ANSWER = 1 << 16


class TracerRefused(BedrockError):
    """The tracer answered that it can't do what it was asked; the text is its own sentence."""


class TracerAway(BedrockError):
    """No tracer answers: it is not there yet, or not any more."""


class TracerLook(msgspec.Struct, frozen=True, kw_only=True):
    """What a tracer says of itself. ``sessions`` are the ids of those that it traces."""

    attach_ms: float
    preemptible: bool
    events: bool
    unsupported: list[str]
    sessions: list[str]


async def ask(path: Path, words: Sequence[str]) -> str:
    """Send a request and return what stands behind ``ok`` in the answer.

    Raises :class:`TracerAway` where nobody answers, :class:`TracerRefused` where the answer is no. Cancelling it closes
    the connection; whether the request took effect is then unknown.
    """
    data = b"".join(word.encode() + b"\0" for word in words) + b"\0"
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            await _connect(connection, path)
            await trio.SocketStream(connection).send_all(data)
            answer = await _read_answer(connection)
        except (OSError, trio.BrokenResourceError) as error:
            raise TracerAway(f"the tracer does not answer: {error}") from None
    state, _, rest = answer.partition(" ")
    if state == "ok":
        return rest
    if state != "error":
        raise TracerAway("the tracer went away without an answer")
    raise TracerRefused(rest)


async def _connect(connection: trio.socket.SocketType, path: Path) -> None:
    # The name of a socket may have 107 bytes, a data_dir may have more; so it is named by way of a descriptor.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        await connection.connect(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


async def _read_answer(connection: trio.socket.SocketType) -> str:
    answer = b""
    while not answer.endswith(b"\n") and len(answer) < _MAX_ANSWER:
        part = await connection.recv(_MAX_ANSWER)
        if not part:
            break
        answer += part
    return answer.decode("utf-8", "replace").rstrip("\n")


async def look(path: Path) -> TracerLook:
    """Ask a tracer what it traces and what it can see. Raises as :func:`ask` does."""
    answer = await ask(path, ["look"])
    try:
        return msgspec.json.decode(answer, type=TracerLook)
    except msgspec.DecodeError as error:
        raise TracerRefused(f"the tracer's answer can't be read: {error}") from None
