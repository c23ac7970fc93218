"""Go durations: ``10s``, ``6m``, ``1h30m``, ``250ms``.

The grammar is that of Go's ``time.ParseDuration``: a possibly signed sequence of decimal numbers, each with a unit out
of ``ns``, ``us`` (or ``µs``), ``ms``, ``s``, ``m``, ``h``; a bare ``0`` is allowed. Values are whole nanoseconds and
fit 64 bits, as in Go. Durations that users give to Bedrock are times to wait, so a negative one is refused here, and so
is a text of more than 100 characters.
"""

from __future__ import annotations

import re

from bedrock.errors import InvalidInput

NANOSECONDS_PER_SECOND = 1_000_000_000
MAX_NS = 2**63 - 1

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # micro sign
    "\u03bcs": 1_000,  # Greek letter mu: Go takes both
    "ms": 1_000_000,
    "s": NANOSECONDS_PER_SECOND,
    "m": 60 * NANOSECONDS_PER_SECOND,
    "h": 3_600 * NANOSECONDS_PER_SECOND,
}
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)", re.ASCII)
# Far beyond what any sensible duration takes to write; reading a number costs the square of its digits.
_MAX_CHARACTERS = 100
_EXAMPLES = "for example 10s, 6m, 1h30m or 250ms"


def parse_duration(text: str, *, field: str = "duration") -> int:
    """Return the nanoseconds of a Go duration.

    ``field`` is how the user knows this value; :class:`InvalidInput` names it and says what is wrong.
    """
    if len(text) > _MAX_CHARACTERS:
        raise InvalidInput(field, f"{_shown(text)} is longer than {_MAX_CHARACTERS} characters; {_EXAMPLES}")
    if text in {"0", "+0"}:
        return 0
    if not text:
        raise InvalidInput(field, f"is empty; give a duration, {_EXAMPLES}")
    if text.startswith("-"):
        raise InvalidInput(field, f"{_shown(text)} is negative; give a duration, {_EXAMPLES}")
    body = text.removeprefix("+")
    position, total = 0, 0
    while position < len(body) or position == 0:
        part = _PART.match(body, position)
        if part is None or not (part[1] or part[2]):
            hint = (
                "a number needs a unit (ns, us, ms, s, m, h)" if body[position:].isdigit() else "it is not a duration"
            )
            raise InvalidInput(field, f"{_shown(text)}: {hint}, {_EXAMPLES}")
        whole, fraction, unit_ns = part[1] or "0", part[2] or "0", _UNITS_NS[part[3]]
        total += int(whole) * unit_ns + int(fraction) * unit_ns // 10 ** len(fraction)
        position = part.end()
    if total > MAX_NS:
        raise InvalidInput(field, f"{_shown(text)} is longer than the longest duration, about 292 years")
    return total


def format_duration(ns: int) -> str:
    """Return the shortest Go duration of ``ns`` nanoseconds (``1h30m``, not ``1h30m0s``)."""
    if ns == 0:
        return "0s"
    if ns < 0:
        return "-" + format_duration(-ns)
    if ns < NANOSECONDS_PER_SECOND:
        for unit, size in (("ms", 1_000_000), ("us", 1_000), ("ns", 1)):
            if ns >= size:
                return _decimal(ns, size) + unit
    hours, rest = divmod(ns, _UNITS_NS["h"])
    minutes, rest = divmod(rest, _UNITS_NS["m"])
    parts = [f"{hours}h"] if hours else []
    if minutes:
        parts.append(f"{minutes}m")
    if rest:
        parts.append(_decimal(rest, NANOSECONDS_PER_SECOND) + "s")
    return "".join(parts)


def _decimal(ns: int, unit_ns: int) -> str:
    whole, fraction = divmod(ns, unit_ns)
    if not fraction:
        return str(whole)
    digits = len(str(unit_ns)) - 1
    return f"{whole}.{fraction:0{digits}d}".rstrip("0")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
