"""What clients send, checked: every refusal names the field and says what would be right. Pure."""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import TypeVar

import msgspec

from bedrock.duration import format_duration, parse_duration
from bedrock.errors import InvalidInput
from bedrock.model import MAX_OUTPUT_BYTES, EventClass, Session, Status, TraceMode, TraceSpec, new_session_id, utc_now
from bedrock.size import format_size, parse_size
from bedrock.tracer.format import MAX_PREFIX_BYTES, MAX_PREFIXES
from bedrock.untrusted import MalformedJson, decode_json
from bedrock.words import split_words

_T = TypeVar("_T")

MAX_BODY_BYTES = 1 << 20
_MAX_COMMAND = 128 << 10  # the kernel's own limit for one argument
_MAX_LABELS = 32
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_MAX_LABEL_VALUE = 63
_MAX_DIGITS = 10
_MAX_TRACE_BYTES = 1 << 50  # far beyond any disk, and well within what C and JSON hold
# What the engine takes as a reference: [host[:port]/]path[:tag][@digest].
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[a-z0-9]+:[0-9a-fA-F]{32,})?"
)
_IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}")


class TraceRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``trace`` of a request, where it is more than a mode."""

    mode: str | None = None
    paths: list[str] = []
    classes: list[str] = []
    max_size: str | int | None = None


class CreateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /api/sessions``."""

    image: str
    ttl: str
    command: str | list[str] = ""
    init: bool = False
    labels: dict[str, str] = {}
    trace: str | TraceRequest = TraceRequest()
    max_output: str | int | None = None


class StatusRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``PUT /api/sessions/:id``. Only the status is looked at; other fields are left alone."""

    status: Status


def new_session(request: CreateRequest) -> Session:
    """Make the session that a request asks for. Raises :class:`InvalidInput`."""
    ttl_ns = parse_duration(request.ttl, field="ttl")
    if ttl_ns == 0:
        raise InvalidInput("ttl", "must be longer than zero, for example 30s")
    argv = split_command(request.command)
    return Session(
        id=new_session_id(),
        created_at=utc_now(),
        status=Status.PENDING,
        image=_check_image(request.image),
        command=request.command if isinstance(request.command, str) else shlex.join(argv),
        argv=argv,
        ttl=format_duration(ttl_ns),
        init=request.init,
        labels=_check_labels(request.labels),
        tracing=_trace_spec(request.trace),
        max_output=_max_output(request.max_output),
    )


def split_command(command: str | list[str]) -> list[str]:
    """Split a string as a POSIX shell splits words; an array is taken as it is. Empty means the image's own CMD."""
    if isinstance(command, str):
        if len(command) > _MAX_COMMAND:
            raise InvalidInput("command", f"is longer than {_MAX_COMMAND} bytes")
        try:
            argv = split_words(command)
        except ValueError as error:
            raise InvalidInput("command", f"can't be split into words: {error}") from None
    else:
        argv = command
    if any("\0" in word for word in argv):
        raise InvalidInput("command", "contains a NUL character, which no argument can")
    if sum(len(word.encode("utf-8", "surrogatepass")) + 1 for word in argv) > _MAX_COMMAND:
        raise InvalidInput("command", f"is longer than {_MAX_COMMAND} bytes")
    return argv


def _check_image(image: str) -> str:
    if not image:
        raise InvalidInput("image", "is empty; give an image such as busybox or nginx:stable")
    if len(image) > 512 or not (_IMAGE.fullmatch(image) or _IMAGE_ID.fullmatch(image)):
        raise InvalidInput("image", f"{image[:100]!r} is not an image reference such as nginx:stable")
    return image


def _trace_spec(wanted: str | TraceRequest) -> TraceSpec:
    if isinstance(wanted, str):
        wanted = TraceRequest(mode=wanted)
    if wanted.mode is not None and wanted.mode not in set(TraceMode):
        raise InvalidInput("trace", f"the mode {wanted.mode[:40]!r} is none of {', '.join(TraceMode)}")
    if len(wanted.classes) > len(EventClass):
        raise InvalidInput("trace", f"there are {len(wanted.classes)} classes; each is named once at most")
    for name in wanted.classes:
        if name not in set(EventClass):
            raise InvalidInput("trace", f"the class {name[:40]!r} is none of {', '.join(EventClass)}")
    max_size = wanted.max_size
    if isinstance(max_size, str):
        max_size = parse_size(max_size, field="trace")
    if max_size is not None and not 0 <= max_size <= _MAX_TRACE_BYTES:
        raise InvalidInput("trace", f"max_size is not from 0, which means no upper size, to {_MAX_TRACE_BYTES} bytes")
    return TraceSpec(
        mode=None if wanted.mode is None else TraceMode(wanted.mode),
        paths=_check_paths(wanted.paths),
        classes=sorted({EventClass(name) for name in wanted.classes}),
        max_size=max_size,
    )


def _max_output(wanted: str | int | None) -> int | None:
    size = parse_size(wanted, field="max_output") if isinstance(wanted, str) else wanted
    if size is not None and not 1 <= size <= MAX_OUTPUT_BYTES:
        limit = format_size(MAX_OUTPUT_BYTES)
        raise InvalidInput("max_output", f"must be from 1 byte to {limit}, for example 64MiB")
    return size


def _check_paths(paths: list[str]) -> list[str]:
    if len(paths) > MAX_PREFIXES:
        raise InvalidInput("trace", f"there are {len(paths)} paths, the limit is {MAX_PREFIXES}")
    for path in paths:
        if len(path.encode("utf-8", "surrogatepass")) > MAX_PREFIX_BYTES:
            raise InvalidInput("trace", f"the path {path[:80]!r} is longer than {MAX_PREFIX_BYTES} bytes")
        if not path.startswith("/") or posixpath.normpath(path) != path or "\0" in path:
            raise InvalidInput("trace", f"the path {path[:80]!r} is not absolute, or not in its shortest form")
    return paths


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > _MAX_LABELS:
        raise InvalidInput("labels", f"there are {len(labels)}, the limit is {_MAX_LABELS}")
    for name, value in labels.items():
        if _LABEL_NAME.fullmatch(name) is None:
            raise InvalidInput(
                "labels", f"{name[:80]!r} is not a label name: up to 63 of letters, digits, '.', '_', '-', '/'"
            )
        if len(value) > _MAX_LABEL_VALUE or not value.isprintable() or not value.isascii():
            raise InvalidInput("labels", f"the value of {name!r} must be up to 63 printable ASCII characters")
    return labels


def parse_label(text: str) -> tuple[str, str]:
    """``name=value`` of a query."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput("label", f"{text[:80]!r} is not name=value")
    _check_labels({name: value})
    return name, value


def parse_status(text: str) -> Status:
    try:
        return Status(text)
    except ValueError:
        known = ", ".join(item.value for item in Status)
        raise InvalidInput("status", f"{text[:40]!r} is none of {known}") from None


def parse_limit(text: str, *, maximum: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and 1 <= int(text) <= maximum):
        raise InvalidInput("limit", f"{text[:40]!r} is not a number from 1 to {maximum}")
    return int(text)


def parse_flag(text: str | None, *, field: str, default: bool) -> bool:
    if text is None:
        return default
    if text.lower() in {"true", "1", "yes"}:
        return True
    if text.lower() in {"false", "0", "no"}:
        return False
    raise InvalidInput(field, f"{text[:40]!r} is neither true nor false")


def parse_prefer_wait(header: str | None, *, maximum_s: float) -> float:
    """Seconds of ``Prefer: wait=N`` (RFC 7240), 0 without it; a preference that can't be read is no error."""
    for preference in (header or "").split(","):
        name, _, value = preference.strip().partition("=")
        if name.lower() == "wait" and value.isascii() and value.isdigit():
            return min(float(value[:6]), maximum_s)
    return 0.0


def parse_body(data: bytes, kind: type[_T]) -> _T:
    """Decode a JSON body. Raises :class:`InvalidInput`, which names the field at fault."""
    try:
        return decode_json(data, kind, max_bytes=MAX_BODY_BYTES)
    except MalformedJson as error:
        missing = re.search(r"missing required field `(\w+)`|unknown field `(.+)`", error.message)
        named = missing[1] or missing[2] if missing else re.split(r"[.\[]", (error.path or "").lstrip("["))[0]
        raise InvalidInput(named or "body", error.message) from None
