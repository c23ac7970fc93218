"""The report as one self-contained page for people: no network, no other file."""

from __future__ import annotations

import signal
from collections import defaultdict
from functools import cache
from typing import Any

import jinja2
import msgspec
import plotly.offline
from markupsafe import Markup

from bedrock.trace.errnos import error_name
from bedrock.trace.report import Report, is_used
from bedrock.trace.summary import OpUse, ProcessUse

_ABOUT = ("id", "image", "command", "status", "reason", "exit_code", "started_at")
_LISTED_FILES = 500
_DRAWN_FILES = 15
_DRAWN_OPS = 12
_UNITS = ("kB", "MB", "GB", "TB")

Branch = tuple[ProcessUse, list["Branch"]]


def page_of(report: Report) -> str:
    """The report as HTML."""
    summary = report.summary
    used = [use for use in summary.files if is_used(use)]
    verdict = report.about.get("trace") or {"state": "untraced"}
    fields: dict[str, Any] = {
        name: getattr(report, name)
        for name in ("span_s", "summary", "sizes", "offsets", "slowest", "failed_lookups", "untouched")
    }
    return _template().render(
        **fields,
        about={name: report.about.get(name) for name in _ABOUT},
        verdict={"message": "", "lost": {}, **verdict},
        state=verdict["state"],
        logs=report.about.get("logs"),
        read_bytes=sum(use.read_bytes for use in summary.files),
        written_bytes=sum(use.written_bytes for use in summary.files),
        used_files=len(used),
        files=summary.files[:_LISTED_FILES],
        patterns=report.patterns[:_LISTED_FILES],
        first_touches=sorted(used, key=lambda use: use.first_use_s)[:_LISTED_FILES],
        process_tree=_tree(summary.processes),
        data=_script(_chart_data(report)),
        plotly=Markup(plotly.offline.get_plotlyjs()),
    )


def _chart_data(report: Report) -> dict[str, Any]:
    summary = report.summary
    moved = [use for use in summary.files if use.read_bytes or use.written_bytes][:_DRAWN_FILES]
    by_calls = sorted(summary.ops, key=lambda op: -op.calls)[:_DRAWN_OPS]
    return {
        "files": {
            # Charts tell their bars apart by name, and two files may have the same.
            "names": _distinct([_shortened(use.path) for use in moved]),
            "read": [use.read_bytes for use in moved],
            "written": [use.written_bytes for use in moved],
        },
        "offsets": report.offsets,
        "timeline": report.timeline,
        "sizes": report.sizes,
        "latency": [_histogram(op) for op in by_calls if op.duration_ns],
        "order": [
            [
                _percent(shares.consecutive, shares.followed),
                _percent(shares.sequential - shares.consecutive, shares.followed),
                _percent(shares.random, shares.followed),
            ]
            for shares in (report.shares["reads"], report.shares["writes"])
        ],
    }


def _histogram(op: OpUse) -> dict[str, Any]:
    used = [bucket for bucket, count in enumerate(op.latency) if count]
    return {"op": op.op, "x": [2**bucket * 1.5 for bucket in used], "y": [op.latency[bucket] for bucket in used]}


def _tree(processes: list[ProcessUse]) -> list[Branch]:
    """Processes below those that made them."""
    children: defaultdict[int | None, list[ProcessUse]] = defaultdict(list)
    for process in processes:
        children[process.parent_process].append(process)

    def branch(process: ProcessUse) -> Branch:
        return process, [branch(child) for child in children[process.process]]

    return [branch(process) for process in children[None]]


def _script(value: Any) -> Markup:
    """A value as JSON that may stand in a script: nothing in it can end the script."""
    text = msgspec.json.encode(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _distinct(names: list[str]) -> list[str]:
    seen: defaultdict[str, int] = defaultdict(int)
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result


def _shortened(path: str, length: int = 60) -> str:
    return path if len(path) <= length else f"…{path[-length:]}"


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def _share(part: int, whole: int) -> str:
    return f"{_percent(part, whole):.1f} %" if whole else "–"


def _size(size: int) -> str:
    value = float(size)
    if value < 1000:
        return f"{size} B"
    for unit in _UNITS:
        value /= 1000
        if value < 1000 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}"


def _duration(duration_ns: int) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if duration_ns >= size:
            return f"{duration_ns / size:.2f} {unit}"
    return f"{duration_ns} ns"


def _ended(status: int) -> str:
    """How a process ended, from its status as in wait(2)."""
    if status & 0x7F:
        try:
            return f"killed by {signal.Signals(status & 0x7F).name}"
        except ValueError:
            return f"killed by signal {status & 0x7F}"
    return f"exit code {status >> 8}"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bedrock.trace"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(size=_size, share=_share, errno=error_name, ended=_ended, duration=_duration)
    return environment.get_template("report.html")
