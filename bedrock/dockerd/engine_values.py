"""What goes to the engine and what comes back, as values and errors of our own. Nothing here knows the docker SDK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from bedrock.errors import BedrockError


class EngineError(BedrockError):
    """The engine refused something; the text is its own sentence."""


class EngineUnavailable(EngineError):
    """The engine can't be reached, or went away during a call, whose outcome is then unknown."""


class ImageMissing(EngineError):
    """The image is neither on this host nor to be had."""


class ContainerMissing(EngineError):
    """There is no such container."""


class PullFailed(EngineError):
    """An image that exists could not be fetched."""


class ImageInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a session needs to know of an image."""

    id: str
    entrypoint: list[str]
    cmd: list[str]
    stop_signal: str
    labels: dict[str, str]
    digests: list[str]
    layers: list[str] = []  # directories of overlay2 on the engine's host, the topmost first


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a container. ``status`` is the engine's: created, running, exited, ..."""

    id: str
    name: str
    status: str
    pid: int
    exit_code: int
    oom_killed: bool
    error: str
    started_at: datetime | None
    finished_at: datetime | None
    labels: dict[str, str]
    image_id: str

    @property
    def has_ended(self) -> bool:
        return self.status in {"exited", "dead"}


class ContainerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A container to be created. ``binds`` are the engine's ``source:target:mode``.

    ``log_bytes`` is the size of the engine's log of it, which then begins a new file and keeps one old one.
    """

    name: str
    image: str
    command: Sequence[str]
    labels: Mapping[str, str]
    binds: Sequence[str]
    entrypoint: Sequence[str] | None = None
    cap_add: Sequence[str] = ()
    pid_mode: str | None = None
    network_mode: str | None = None
    init: bool = False
    security_opt: Sequence[str] = ()
    privileged: bool = False
    log_bytes: int = 8 << 20


def overlay_layers(driver: Mapping[str, Any]) -> list[str]:
    """The directories of an image's layers, the topmost first, from the ``GraphDriver`` of the engine's answer."""
    data = driver.get("Data") or {}
    if driver.get("Name") != "overlay2" or not data.get("UpperDir"):
        return []
    return [data["UpperDir"], *filter(None, (data.get("LowerDir") or "").split(":"))]
