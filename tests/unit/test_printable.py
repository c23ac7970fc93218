"""What may reach a terminal, whatever names, commands and messages hold."""

from __future__ import annotations

import ast
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock.printable import printable, printable_json, printable_lines

_PACKAGE = Path(__file__).parent.parent.parent / "bedrock"
# Cc: ESC and the C1 controls among them; Cf: marks of direction among them; Zl, Zp: line breaks; Cs: surrogates.
_NEVER = {"Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"}

# Every code point is as likely as any other, and those that do harm are likelier.
_TEXT = st.text(st.characters() | st.characters(codec=None, categories=["Cc", "Cf", "Zl", "Zp", "Cs"]), max_size=60)


@given(_TEXT)
def test_nothing_that_steers_a_terminal_breaks_a_line_or_turns_it_round_is_left(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(char) for char in shown} & _NEVER
    assert len(shown.splitlines()) <= 1
    shown.encode()  # no surrogate is left either


@given(_TEXT)
def test_what_is_safe_stays_as_it_is(text: str) -> None:
    assert printable(printable(text)) == printable(text)


@given(_TEXT.filter(lambda text: "\\" not in text))
def test_nothing_is_lost_where_no_backslash_was(text: str) -> None:
    shown = printable(text)
    assert shown.encode("latin-1", "backslashreplace").decode("unicode_escape") == text


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S"], include_characters=" "), max_size=60))
def test_text_of_every_script_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(_TEXT, _TEXT)
def test_texts_are_made_safe_piece_by_piece_or_together(first: str, second: str) -> None:
    assert printable(first) + printable(second) == printable(first + second)


@given(st.lists(_TEXT.map(lambda text: text.replace("\n", "")), min_size=1, max_size=5))
def test_lines_stay_lines_and_only_the_first_one_begins_at_the_margin(lines: list[str]) -> None:
    first, *others = printable_lines("\n".join(lines), indent="    ").split("\n")
    assert first == printable(lines[0])
    assert others == [f"    {printable(line)}" for line in lines[1:]]


_JSON = st.recursive(
    st.none() | st.integers() | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(_JSON, st.sampled_from([None, 2]))
def test_json_means_the_same_and_has_nothing_that_a_terminal_obeys(value: object, indent: int | None) -> None:
    shown = printable_json(json.dumps(value, ensure_ascii=False, indent=indent))
    assert json.loads(shown) == value
    assert all(line.isprintable() for line in shown.split("\n"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ÄÖÜ 漢字 \N{GRINNING FACE}", "plain ÄÖÜ 漢字 \N{GRINNING FACE}"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\r\tc\x7f", "a\\x0ab\\x0d\\x09c\\x7f"),
        ("\x9b2J", "\\u009b2J"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("\u2028\ufeff\udcff\U000e0041", "\\u2028\\ufeff\\udcff\\U000e0041"),
        ("printf 'a\\n'", "printf 'a\\n'"),
    ],
)
def test_escapes_look_like_this(text: str, shown: str) -> None:
    assert printable(text) == shown


# -- no output goes round it

# Where text is written to a terminal; logs go through logging.
_WRITERS = {
    "cli/output.py",
    "concurrency/service.py",  # the one line of an error, when a service ends
}
_WRITING = {"print", "echo", "secho", "echo_via_pager", "Console", "sys.stdout.write", "sys.stderr.write"}
_STREAMS = {"sys.stdout.buffer", "sys.stderr.buffer", "sys.__stdout__", "sys.__stderr__"}


def _writes(path: Path) -> set[str]:
    """The expressions of a module by which it could write to the terminal."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    streams = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)} & _STREAMS
    return streams | {name for name in called if name in _WRITING or name.rpartition(".")[2] in _WRITING}


def test_text_is_written_in_one_place_only() -> None:
    writers = {str(path.relative_to(_PACKAGE)): calls for path in _PACKAGE.rglob("*.py") if (calls := _writes(path))}
    assert set(writers) <= _WRITERS, writers
