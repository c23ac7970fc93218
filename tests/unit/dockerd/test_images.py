"""Pulls that an engine does not finish."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio

from bedrock.concurrency.threads import Batch
from bedrock.dockerd.engine_values import EngineUnavailable, ImageMissing, PullFailed
from bedrock.dockerd.images import open_images


class _Engine:
    """Has no image, and pulls as it is told to."""

    def __init__(self, messages: AsyncIterator[Batch[dict[str, Any]]]) -> None:
        self._messages = messages

    async def image(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        raise ImageMissing(f"no such image: {name}")

    @asynccontextmanager
    async def open_pull(self, name: str) -> AsyncIterator[AsyncIterator[Batch[dict[str, Any]]]]:
        yield self._messages


async def _breaks_off() -> AsyncIterator[Batch[dict[str, Any]]]:
    yield Batch([{"status": "Pulling from library/busybox", "id": "latest"}], False)


async def _surprises() -> AsyncIterator[Batch[dict[str, Any]]]:
    yield Batch([{"status": "Downloading", "progressDetail": {"total": 3}}], False)


async def test_a_pull_that_ends_without_an_image_is_not_one_of_an_image_that_is_missing() -> None:
    async with open_images(cast("Any", _Engine(_breaks_off())), pull_timeout_s=60) as images:
        with trio.fail_after(10), pytest.raises(EngineUnavailable, match="broke off"):
            await images.ensure("busybox", lambda text: None)


async def test_what_nobody_expected_of_a_pull_fails_that_pull_alone() -> None:
    async with open_images(cast("Any", _Engine(_surprises())), pull_timeout_s=60) as images:
        with trio.fail_after(10), pytest.raises(PullFailed, match="KeyError"):
            await images.ensure("busybox", lambda text: None)
        with trio.fail_after(10), pytest.raises(EngineUnavailable):
            await images.ensure("busybox", lambda text: None)
