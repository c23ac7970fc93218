"""Everything that the commands print: lines, tables and JSON, with foreign text made safe for a terminal.

No other module of the command line writes to standard output or standard error. What a session's own command has
printed is copied as it is, as any other tool that shows logs does; so are exports that go into a pipe or a file.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click
import msgspec
from rich.console import Console
from rich.status import Status as Spinner
from rich.table import Table
from rich.text import Text

from bedrock.printable import printable, printable_json, printable_lines

# As `docker run` has it: the fault is not the command's.
EXIT_BEDROCK_FAILED = 125


def say(text: str, *, err: bool = False) -> None:
    """Print one line."""
    click.echo(printable(text), err=err)


def say_lines(text: str, *, err: bool = False) -> None:
    """Print text that may have several lines. All but the first one are indented, so that none passes for another's."""
    click.echo(printable_lines(text, indent="    "), err=err)


def fail(error: BaseException | str, code: int = EXIT_BEDROCK_FAILED) -> NoReturn:
    """End with one line of what went wrong."""
    say_lines(f"bedrock: {error}", err=True)
    sys.exit(code)


def print_json(value: Any) -> None:
    """Print a value as JSON for programs and people."""
    click.echo(printable_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode()))


def print_json_line(content: bytes) -> None:
    """Print JSON that is encoded already."""
    click.echo(printable_json(content.decode()))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print rows under column heads; the columns named in ``right`` are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        is_number = column in right
        table.add_column(column, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(soft_wrap=not sys.stdout.isatty(), highlight=False, markup=False)
    if not sys.stdout.isatty():
        # A pipe has no width of its own; nothing may be cut or wrapped for a program that reads it.
        console.width = max(200, console.measure(table).maximum)
    console.print(table)


@contextmanager
def progress(text: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is waited for; yield what shows something else."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda text: None
        return
    with Spinner(Text(printable(text)), console=console) as spinner:
        yield lambda text: spinner.update(Text(printable(text)))


def copy_output(chunk: bytes, *, err: bool = False) -> None:
    """Pass on what a session's command has printed, byte by byte."""
    stream = sys.stderr if err else sys.stdout
    stream.buffer.write(chunk)
    stream.flush()


def print_export(pieces: Iterable[bytes], *, is_csv: bool = False) -> None:
    """Print an export: its bytes for programs, and on a terminal what can be shown of them."""
    if not sys.stdout.isatty():
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        return
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    is_quoted = False
    for piece in pieces:
        text = decoder.decode(piece)
        # A line break within the quotes of a CSV is part of a name; JSON has none in its strings.
        for index, part in enumerate(text.split('"') if is_csv else [text]):
            is_quoted ^= index > 0
            click.echo('"' * (index > 0) + (printable(part) if is_quoted else printable_lines(part)), nl=False)
