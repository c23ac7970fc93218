"""Input that others have written: bounded before it is parsed, refused in one way, cut short where it is shown.

Whatever the bytes are, :func:`decode_json` returns a value or raises :class:`MalformedJson`, in time that is linear in
their number.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from bedrock.errors import BedrockError

_T = TypeVar("_T")

_SHOWN = 200


class MalformedJson(BedrockError):
    """Bytes that are not JSON, or not JSON of the expected shape.

    ``path`` leads to the part at fault, as in ``labels[...]``. It is empty where the value as a whole is at fault, and
    None where the bytes are not JSON.
    """

    def __init__(self, message: str, path: str | None) -> None:
        super().__init__(f"{message}, at {path}" if path else message)
        self.message = message
        self.path = path


def decode_json(data: bytes, kind: type[_T], *, max_bytes: int) -> _T:
    """Return the ``kind`` that ``data`` holds as JSON. Raises :class:`MalformedJson`, and nothing else."""
    if len(data) > max_bytes:
        raise MalformedJson(f"has {len(data)} bytes, the limit is {max_bytes}", None)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).rpartition(" - at `$")
        raise MalformedJson(shortened(message or path), shortened(path.strip("`.")) if message else "") from None
    except RecursionError:
        raise MalformedJson("is nested too deeply", None) from None
    except (msgspec.DecodeError, ValueError) as error:  # a ValueError is text that is not UTF-8
        raise MalformedJson(f"is not JSON: {shortened(str(error))}", None) from None


def shortened(text: str, limit: int = _SHOWN) -> str:
    """Return ``text`` with at most ``limit`` characters, the last three of them dots where it was longer."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
