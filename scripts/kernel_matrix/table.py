"""The table of kernels, as text and as a page of the reference. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import dedent

from kernel_matrix.judge import Outcome
from kernel_matrix.row import Row

# Columns and what they mean.
COLUMNS = {
    "kernel": "what `uname -r` says",
    "arch": "of the machine",
    "pages": "their size",
    "tracer": "whether it loads and attaches; where it does not, the first sentence of why",
    "tests": "how many of the tests on the engine, run on this kernel's sessions, have passed, and how many failed",
    "strace": "the same for programs whose calls were compared with what strace saw of the same run",
    "lossy": "what was missing in the traces of tests that failed or had to run once more, by cause",
    "unsupported": "what the tracer says that it does not see on this kernel; tests of that are not counted",
    "stress": "records that were lost, and that were false, where twelve threads interrupt each other in their calls",
    "seconds": "that all of it took",
}
_TITLE = """\
    # Kernels

    What the tracer does on the kernels that people run. Each was booted in a virtual machine and ran sessions, of which
    the tests on the engine judged the traces. This page is written by

        {command} --write-docs

    with {emulator}. 5.10 is the kernel of Debian 11, 6.1 of Debian 12, 6.12 of Debian 13; later ones are
    from Debian's backports.
    """


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table."""
    stress = "-"
    if row.stress_lost is not None:
        stress = f"{_causes(row.stress_lost) or 'none'} lost, {len(row.stress_false) or 'none'} false"
    return (
        row.kernel.release,
        row.kernel.arch_name,
        f"{row.page_bytes >> 10}K" if row.page_bytes else "-",
        _tracer(row),
        _counts(row, is_comparison=False),
        _counts(row, is_comparison=True),
        _causes(row.lost) or "-",
        ", ".join(row.unsupported) or "-",
        stress,
        f"{row.seconds:.0f}",
    )


def _tracer(row: Row) -> str:
    if row.broken:
        return f"not known: {row.broken.splitlines()[0]}"
    works = row.refusal.split("; ", maxsplit=1)[0] or "loads"
    return f"{works}; the kernel complains" if row.complaints else works


def _counts(row: Row, *, is_comparison: bool) -> str:
    passed, failed = (row.count(outcome, is_comparison=is_comparison) for outcome in (Outcome.OK, Outcome.FAILED))
    return f"{passed} passed, {failed} failed" if passed or failed else "-"


def _causes(lost: Mapping[str, int]) -> str:
    return ", ".join(f"{cause} {count}" for cause, count in sorted(lost.items()))


def as_text(rows: Sequence[Row]) -> str:
    """A table for a terminal."""
    lines = [tuple(COLUMNS), *map(cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_page(rows: Sequence[Row], *, command: str, emulator: str) -> str:
    """A page in Markdown: the table, its columns, and everything that failed or was left out."""
    lines = [dedent(_TITLE).format(command=command, emulator=emulator)]
    lines += [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in cells(row))} |" for row in rows]
    lines += ["", *(f"- *{name}*: {meaning}" for name, meaning in COLUMNS.items())]
    judged = [row for row in rows if row.judgements]
    for outcome in (Outcome.FAILED, Outcome.LEFT_OUT):
        found: dict[str, list[str]] = {}
        for row in judged:
            for judgement in row.judgements:
                if judgement.outcome is outcome:
                    found.setdefault(judgement.test, []).append(row.kernel.name)
        # What is left out everywhere needs what no machine has, and says nothing about kernels.
        if outcome is Outcome.LEFT_OUT:
            found = {test: names for test, names in found.items() if len(names) < len(judged)}
        if found:
            lines += ["", f"## {outcome.capitalize()}", ""]
            lines += [f"- {test}: {', '.join(names)}" for test, names in sorted(found.items())]
    return "\n".join(lines) + "\n"
