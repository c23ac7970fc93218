"""Write the pages of docs/reference that describe code from that code, and conf/bedrock.toml."""

from __future__ import annotations

from pathlib import Path

import click
import pyarrow as pa

from bedrock.cli import main
from bedrock.settings import all_settings, example_config
from bedrock.trace.export import FORMS
from bedrock.trace.schema import COLUMNS
from bedrock.tracer import format as format_module
from bedrock.tracer.causes import CAUSES, DROPPING, FEATURES
from bedrock.tracer.format import FILE_HEADER, LAYOUT, VERSION, CallFlag, Field, TextFlag
from bedrock.tracer.operations import CLASSES, Op

ROOT = Path(__file__).parent.parent


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "A flag wins over a variable, that over the file (`--config FILE` or `BEDROCK_CONFIG`), that over the default.",
        "",
        "| flag | variable | in the file | default | meaning |",
        "|---|---|---|---|---|",
    ]
    for info in all_settings():
        name = info.name.replace("|", "\\|")
        lines.append(f"| `{info.flag}` | `{info.env}` | `{name}` | `{info.shown_default}` | {info.meaning} |")
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    parts = ["# The command line", "", "What `--help` prints.", ""]

    def add(command: click.Command, name: str) -> None:
        context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
        parts.extend([f"## {name}", "", "```text", command.get_help(context), "```", ""])
        if isinstance(command, click.Group):
            for child in sorted(command.commands):
                add(command.commands[child], f"{name} {child}")

    add(main, "bedrock")
    return "\n".join(parts)


def trace_page() -> str:
    lines = [
        "# Trace format",
        "",
        f"`trace.bdt`, version {VERSION}. Version 2 is read, too.",
        "",
        (format_module.__doc__ or "").strip(),
        "",
    ]
    lines += ["## File header", "", *_field_table(FILE_HEADER)]
    for kind, fields in LAYOUT.items():
        lines += [f"## `{kind.name}` ({kind.value})", "", *_field_table(fields)]
    for title, members in (("Operations (`op`)", Op), ("Flags of a call", CallFlag), ("Flags of a text", TextFlag)):
        lines += [f"## {title}", "", ", ".join(f"`{(item.name or '').lower()}` {item.value}" for item in members), ""]
    lines += ["## Causes of loss", "", "| cause | the record | why |", "|---|---|---|"]
    for cause, why in CAUSES.items():
        lines.append(f"| `{cause.name.lower()}` | {'is missing' if cause in DROPPING else 'has less in it'} | {why} |")
    lines += ["", "## What a kernel may not show", "", "| name | bit | what |", "|---|---|---|"]
    for feature, what in FEATURES.items():
        lines.append(f"| `{(feature.name or '').lower()}` | {feature.value} | {what} |")
    return "\n".join(lines) + "\n"


def events_page() -> str:
    lines = [
        "# Traces in other forms",
        "",
        "`bedrock trace ID --format FORMAT` and `GET /api/sessions/:id/trace/events?format=FORMAT`, as a stream, in",
        "the order in which the calls returned. Every form carries the session with its verdict, and `unsupported`:",
        "what the kernel did not let the tracer see. [What the marks prove](trace-marks.md) explains that, and the",
        "columns that are true or false.",
        "",
        "| format | what | where the session is |",
        "|---|---|---|",
        *(f"| `{wanted}` | {what} | {where} |" for wanted, (what, where) in FORMS.items()),
        "",
        "## The columns",
        "",
        "Of all forms but `chrome` and `v1`. What does not apply is null; JSON lines leave it out, and what is false.",
        "",
        "A name is bytes and need not be UTF-8. In all columns of text `\\xNN` is one byte, in two lower-case",
        "hexadecimal digits: a byte that is not UTF-8, or a backslash in front of what would look like such an escape",
        "(`\\x5c`). Everything else stands for itself, other backslashes too. So no two names have the same text, and",
        "who replaces each `\\xNN` by its byte has the name (`bedrock.trace.paths.bytes_of` does that). In CSV the",
        "first character of a cell is escaped in the same way where a spreadsheet would take the cell for a formula:",
        "`=`, `+`, `-`, `@`, their full-width forms, tab and line breaks.",
        "",
        "| column | type | meaning |",
        "|---|---|---|",
    ]
    for name, kind, meaning in COLUMNS:
        shown = kind.value_type if pa.types.is_dictionary(kind) else kind
        lines.append(f"| `{name}` | {'list of string' if pa.types.is_list(shown) else shown} | {_cell(meaning)} |")
    lines += ["", "## Which calls belong to which class", "", "| class | calls |", "|---|---|"]
    for name, ops in CLASSES.items():
        lines.append(f"| `{name}` | {', '.join(f'`{op.name.lower()}`' for op in sorted(ops))} |")
    lines += ["", "`execve`, `execveat`, `fork`, `exit` and `core_dump` belong to none: they are always traced."]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _field_table(fields: list[Field]) -> list[str]:
    rows = [f"| `{field.name}` | {field.kind} | {_cell(field.meaning)} |" for field in fields]
    return ["| field | type | meaning |", "|---|---|---|", *rows, ""]


def pages() -> dict[Path, str]:
    reference = ROOT / "docs" / "reference"
    return {
        reference / "settings.md": settings_page(),
        reference / "cli.md": cli_page(),
        reference / "trace-format.md": trace_page(),
        reference / "trace-exports.md": events_page(),
        ROOT / "conf" / "bedrock.toml": example_config(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path.relative_to(ROOT))
