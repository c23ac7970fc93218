r"""Foreign text made safe for a terminal, in the one place where that is done.

Names, commands, paths, messages and image names come from images, from other hosts and from whoever may post a session.
On a terminal, escape sequences in them could move the cursor, set its title or its clipboard; C1 controls do the same
without an ESC; a line break forges a row, and marks of direction make a line read otherwise than it is.

So whatever is not to be seen is shown as an escape: ``\xNN`` for ASCII, ``\uNNNN`` and ``\UNNNNNNNN`` beyond it. A
backslash stands for itself, so that text which has been made safe stays what it is when it is made safe once more.
"""

from __future__ import annotations

from collections.abc import Callable


class _Escapes(dict[int, str | int]):
    """A table for ``str.translate``, filled as characters come up."""

    def __init__(self, escape: Callable[[int], str]) -> None:
        super().__init__()
        self._escape = escape

    def __missing__(self, code: int) -> str | int:
        self[code] = shown = code if chr(code).isprintable() else self._escape(code)
        return shown


def _escape(code: int) -> str:
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape_in_json(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


_ESCAPES = _Escapes(_escape)
_ESCAPES_IN_JSON = _Escapes(_escape_in_json)


def printable(text: str) -> str:
    r"""``text`` in one line, with ``\x1b`` in the place of an ESC, and so on for all that a terminal would not show.

    What is shown is what :meth:`str.isprintable` says: letters, digits, signs and spaces of every script; no controls,
    no line breaks, no marks of direction, no surrogates, nothing that Unicode has not assigned.
    """
    return text if text.isprintable() else text.translate(_ESCAPES)


def printable_lines(text: str, *, indent: str = "") -> str:
    """The same for text that may have several lines, all but the first one with ``indent`` before them."""
    return f"\n{indent}".join(printable(line) for line in text.split("\n"))


def printable_json(text: str) -> str:
    """JSON text that means the same, and has nothing in it but line breaks and what a terminal shows."""
    if text.isprintable():
        return text
    return "\n".join(line.translate(_ESCAPES_IN_JSON) for line in text.split("\n"))
