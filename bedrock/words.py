"""Splitting a command into words, as a POSIX shell does, in one pass.

:func:`shlex.split` gives the same words, in time that grows with the square of the text.
"""

from __future__ import annotations

import re

# One piece of a word, or the blanks between words. Possessive, so that a quote that is never closed is found at once.
_PIECE = re.compile(
    r"""
      (?P<blank>[ \t\r\n]++)
    | (?P<plain>[^ \t\r\n'"\\]++)
    | '(?P<single>[^']*+)'
    | "(?P<double>[^"\\]*+(?:\\.[^"\\]*+)*+)"
    | \\(?P<escaped>.)
    """,
    re.DOTALL | re.VERBOSE,
)
# Within double quotes a backslash makes these literal, and is literal itself before anything else.
_ESCAPE = re.compile(r'\\(["\\])')


def split_words(text: str) -> list[str]:
    """Return the words of ``text``; nothing is expanded. Raises :class:`ValueError` for a quote that is not closed."""
    words: list[str] = []
    pieces: list[str] = []
    position = 0
    while position < len(text):
        found = _PIECE.match(text, position)
        if found is None:
            raise ValueError("no escaped character" if text[position] == "\\" else "no closing quotation")
        position = found.end()
        match found.lastgroup:
            case "blank":
                if pieces:
                    words.append("".join(pieces))
                    pieces = []
            case "double":
                pieces.append(_ESCAPE.sub(r"\1", found["double"]))
            case kind:
                pieces.append(found[kind or "plain"])
    if pieces:
        words.append("".join(pieces))
    return words
