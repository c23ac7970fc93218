"""The list of an image's files: what is in it, and that it never costs more than itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from bedrock.dockerd.engine_values import ImageInfo
from bedrock.dockerd.image_files import open_image_listings
from bedrock.trace.image_files import read_image_files
from bedrock.trace.paths import bytes_of

_NO_ENGINE = cast("Any", None)


def _image(layer: Path) -> ImageInfo:
    return ImageInfo(
        id="sha256:1", entrypoint=[], cmd=[], stop_signal="SIGTERM", labels={}, digests=[], layers=[str(layer)]
    )


async def test_a_name_that_is_not_utf_8_is_listed_byte_for_byte(tmp_path: Path) -> None:
    names = [b"caf\xe9", b"caf\xc3\xa9", b"\xff\xfe", rb"caf\xe9", b"a\nb"]
    layer = tmp_path / "layer"
    layer.mkdir()
    for name in names:
        Path(os.fsdecode(os.fsencode(layer) + b"/" + name)).write_bytes(name)
    with trio.fail_after(20):
        async with open_image_listings(_NO_ENGINE, tmp_path / "kept", node="alpha") as listings:
            listings.begin(_image(layer))
            path = await listings.get("sha256:1", patience_s=10)
    assert path is not None
    listing = read_image_files(path)
    assert listing is not None
    assert sorted((bytes_of(text), size) for text, size in listing.files) == sorted(
        (b"/" + name, len(name)) for name in names
    )


async def test_a_list_that_can_not_be_made_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(layers: object) -> list[tuple[str, int]]:
        raise KeyError("a defect")

    monkeypatch.setattr("bedrock.dockerd.image_files.list_layers", fail)
    with trio.fail_after(20):
        async with open_image_listings(_NO_ENGINE, tmp_path / "kept", node="alpha") as listings:
            listings.begin(_image(tmp_path))
            assert await listings.get("sha256:1", patience_s=10) is None
    assert "a defect" in capsys.readouterr().out
