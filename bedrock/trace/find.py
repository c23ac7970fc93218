"""Finding files and calls by path: by the last name of a file, or by any other that it had."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from bedrock.trace.events import Event
from bedrock.trace.summary import TraceSummary


def is_at_or_below(name: str | None, paths: Iterable[str]) -> bool:
    """Whether a name is one of some paths, or below one."""
    return name is not None and any(name == path or name.startswith(path.rstrip("/") + "/") for path in paths)


def select_files(summary: TraceSummary, paths: Iterable[str]) -> TraceSummary:
    """The summary with those files, and failed opens, of which any name is at or below one of the paths."""
    paths = list(paths)
    files = [use for use in summary.files if any(is_at_or_below(name, paths) for name in (use.path, *use.aliases))]
    failed = [failed for failed in summary.failed_opens if is_at_or_below(failed.path, paths)]
    return msgspec.structs.replace(summary, files=files, failed_opens=failed)


def select_events(events: Iterable[Event], summary: TraceSummary, paths: Iterable[str]) -> Iterator[Event]:
    """The calls on files of which any name, at any time, is at or below one of the paths, or that were given such."""
    paths = list(paths)
    found = {use.file for use in select_files(summary, paths).files}
    for event in events:
        if event.file in found or is_at_or_below(event.path, paths) or is_at_or_below(event.second, paths):
            yield event
