"""Sizes in bytes as people write them: ``512MiB``, ``8GiB``, or a plain number."""

from __future__ import annotations

import re

from bedrock.errors import InvalidInput

_SIZE = re.compile(r"([0-9]{1,15})\s*(|B|KiB|MiB|GiB|TiB)")
_MAX_CHARACTERS = 40
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def parse_size(text: str, *, field: str) -> int:
    """Return a size in bytes. Raises :class:`InvalidInput` naming ``field``."""
    match = _SIZE.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
    if match is None:
        raise InvalidInput(field, f"{text[:40]!r} is not a size, for example 512MiB, 8GiB or a number of bytes")
    return int(match[1]) * _UNITS[match[2]]


def format_size(size: int) -> str:
    """The shortest way to write a size that :func:`parse_size` reads as the same number."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)
