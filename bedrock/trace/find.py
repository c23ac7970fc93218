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
    """The calls on files of which any name, at any time, is at or below one of the paths, and those given such a name.

    A call that gives no file, such as the removal of a name, is shown for each name of the files that were found.
    """
    paths = list(paths)
    uses = select_files(summary, paths).files
    found = {use.file for use in uses}
    names = {name for use in uses for name in (use.path, *use.aliases)}
    for event in events:
        is_named = event.file is None and (event.path in names or event.second in names)
        if event.file in found or is_named or is_at_or_below(event.path, paths) or is_at_or_below(event.second, paths):
            yield event
