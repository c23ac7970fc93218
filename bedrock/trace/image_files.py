"""The list of an image's files, as it travels with a session: which of them were never touched is seen from that.

``image.files`` is zstd-compressed JSON. Its paths are text in which ``\\xNN`` stands for a byte that is not UTF-8, as
in everything that is made of a trace (:func:`bedrock.trace.paths.text_of`), so that the two can be compared.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import zstandard

from bedrock.untrusted import MalformedJson, decode_json

_MAX_LISTING_BYTES = 256 << 20  # unpacked: an image of some million files


class ImageFiles(msgspec.Struct, kw_only=True):
    """The regular files of an image: path and size in bytes."""

    image_id: str
    files: list[tuple[str, int]]


def write_image_files(listing: ImageFiles) -> bytes:
    """The content of ``image.files``."""
    return zstandard.ZstdCompressor(level=3).compress(msgspec.json.encode(listing))


def read_image_files(path: Path) -> ImageFiles | None:
    """The files of an image; None where the list can't be read, which a report does without."""
    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as listing:
            raw = listing.read(_MAX_LISTING_BYTES + 1)
        return decode_json(raw, ImageFiles, max_bytes=_MAX_LISTING_BYTES)
    except (OSError, zstandard.ZstdError, MalformedJson):
        return None
