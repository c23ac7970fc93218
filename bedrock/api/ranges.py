"""Byte ranges of RFC 9110, section 14: the single range, which is what clients that resume or page use. Pure."""

from __future__ import annotations

import re

from bedrock.errors import BedrockError

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)


class RangeNotSatisfiable(BedrockError):
    """The range begins behind the end of the file."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range begins behind the end of the file, which has {size} bytes")
        self.size = size


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the half-open byte range that ``header`` asks for, None for the whole file.

    A header that is not understood (several ranges, another unit) is to be ignored, says the RFC. Raises
    :class:`RangeNotSatisfiable`.
    """
    match = _RANGE.fullmatch((header or "").replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start = int(match[1])
        end = min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= size or start >= end:
        raise RangeNotSatisfiable(size)
    return start, end
