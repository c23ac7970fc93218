"""Paths and names out of the bytes of a trace: put together, resolved as text, and made text that can be undone.

A name is bytes and need not be UTF-8, but JSON, CSV and Arrow want text. So ``\\xNN`` in a text stands for one byte, in
two lower-case hexadecimal digits: a byte that is not UTF-8, or a backslash that would otherwise look like the beginning
of such an escape. Everything else stands for itself. No two names have the same text, and :func:`bytes_of` undoes it.
"""

from __future__ import annotations

import posixpath
import re

from bedrock.tracer.format import TextFlag

_NUMBERED = {0o010000: b"pipe", 0o140000: b"socket"}
_LIKE_AN_ESCAPE = re.compile(rb"\\(?=x[0-9a-f]{2})")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


def text_of(raw: bytes) -> str:
    """A name as text, with ``\\xNN`` for what is not UTF-8."""
    if b"\\x" in raw:
        raw = _LIKE_AN_ESCAPE.sub(rb"\\x5c", raw)
    return raw.decode("utf-8", "backslashreplace")


def bytes_of(text: str) -> bytes:
    """The name that :func:`text_of` has made text of."""
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode())


def path_of(text: bytes, inode: int, mode: int, flags: TextFlag) -> bytes:
    """The path in the text of a FILE record: its components turned round, since the kernel gives the last one first."""
    if flags & TextFlag.PATHLESS:
        kind = _NUMBERED.get(mode & 0o170000)
        return b"anon:" + text.removesuffix(b"/") if kind is None else kind + b":[%d]" % inode
    components = text.removesuffix(b"/").split(b"/") if text else []
    path = b"/" + b"/".join(reversed(components))
    return b"(outside)" + path if flags & TextFlag.OUTSIDE and components else path


def resolve(base: bytes | None, raw: bytes) -> bytes | None:
    """The path that a raw argument names, counted from the directory ``base``; None when that is not known.

    An absolute argument counts from ``base`` too where there is one: that of a process that has changed its root. It
    does not lead above that. Dots are taken out as text: a symbolic link on the way is not followed, since the kernel's
    look-up was not recorded.
    """
    if not raw:
        return base
    if not raw.startswith(b"/") and base is None:
        return None
    if raw.startswith(b"/"):
        raw = posixpath.normpath(raw)
    path = posixpath.normpath(raw if base is None else base + b"/" + raw)
    return b"/" + path.lstrip(b"/")
