"""The table of kernels, as text and as a page of the reference. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernel_matrix.judge import Outcome
from kernel_matrix.row import Row

HEADINGS = ("kernel", "arch", "pages", "tracer", "ok", "failed", "lossy", "unsupported", "stress", "seconds")


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table."""
    tracer = "loads" if not row.refusal else first_sentence(row.refusal)
    if row.broken:
        tracer = f"machine lost: {row.broken.splitlines()[0]}"
    stress = "-"
    if row.stress_lost is not None:
        stress = f"lost {_causes(row.stress_lost) or 0}, false {len(row.stress_false)}"
    judged = bool(row.judgements)
    return (
        row.kernel.release,
        row.kernel.arch_name,
        f"{row.page_bytes >> 10}K" if row.page_bytes else "-",
        tracer,
        str(row.count(Outcome.OK)) if judged else "-",
        str(row.count(Outcome.FAILED)) if judged else "-",
        _causes(row.lost) or "-",
        ", ".join(row.unsupported) or "-",
        stress,
        f"{row.seconds:.0f}",
    )


def first_sentence(text: str) -> str:
    return text.split("; ", maxsplit=1)[0].split(". ", maxsplit=1)[0]


def _causes(lost: Mapping[str, int]) -> str:
    return ", ".join(f"{cause} {count}" for cause, count in sorted(lost.items()))


def as_text(rows: Sequence[Row]) -> str:
    """A table for a terminal."""
    lines = [HEADINGS, *map(cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)  # fmt: skip
