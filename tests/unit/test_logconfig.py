"""What reaches stderr, seen from outside of a process of its own: logging is global to one."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from terminal import run_on_a_terminal

from bedrock.errors import InvalidInput
from bedrock.logconfig import configure_logging

pytestmark = pytest.mark.timeout(60)

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")

PRELUDE = """
import logging, sys, warnings
import structlog
from bedrock.logconfig import configure_logging
configure_logging({level!r}, {log_format!r})
log = structlog.get_logger("bedrock.part")
"""


def command(code: str, level: str, log_format: str) -> list[str]:
    return [sys.executable, "-c", PRELUDE.format(level=level, log_format=log_format) + code]


def stderr_of(code: str, *, level: str = "info", log_format: str = "json") -> str:
    done = subprocess.run(command(code, level, log_format), capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == ""
    return done.stderr


def on_a_terminal(code: str, *, log_format: str = "auto", **environment: str) -> str:
    shown, exit_code = run_on_a_terminal(command(code, "info", log_format), **environment)
    assert exit_code == 0
    return shown


def test_a_json_line_has_event_fields_level_logger_and_a_utc_timestamp() -> None:
    line = json.loads(stderr_of("log.info('session ended', exit_code=7)"))
    assert TIMESTAMP.fullmatch(line.pop("timestamp"))
    assert line == {"event": "session ended", "exit_code": 7, "level": "info", "logger": "bedrock.part"}


def test_a_value_that_is_bound_once_is_in_every_line_also_of_libraries() -> None:
    lines = stderr_of(
        "with structlog.contextvars.bound_contextvars(session='abc'):\n"
        "    log.info('one')\n"
        "    logging.getLogger('library').warning('two %s', 'three')\n"
        "log.info('four')\n"
    )
    assert [(line["event"], line.get("session")) for line in map(json.loads, lines.splitlines())] == [
        ("one", "abc"),
        ("two three", "abc"),
        ("four", None),
    ]


def test_an_exception_is_a_structured_field_with_its_members_and_without_local_variables() -> None:
    text = stderr_of(
        "def fail():\n"
        "    password = 'hunter' + '2'\n"
        "    raise ExceptionGroup('both', [ValueError('inner')])\n"
        "try:\n"
        "    fail()\n"
        "except ExceptionGroup:\n"
        "    log.exception('it failed')\n"
        "    logging.getLogger('library').exception('so it did')\n"
    )
    assert "hunter2" not in text
    for line in map(json.loads, text.splitlines()):
        (exception,) = line["exception"]
        assert exception["exc_type"] == "ExceptionGroup"
        assert exception["frames"][-1]["name"] == "fail"
        assert exception["exceptions"][0][0]["exc_value"] == "inner"


def test_in_text_an_exception_is_a_traceback_without_local_variables() -> None:
    text = stderr_of(
        "try:\n    password = 'hunter' + '2'\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('it failed')\n",
        log_format="text",
    )
    assert "ZeroDivisionError: division by zero\n" in text
    assert "it failed" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("debug", ["a", "b", "c", "d", "e"]),
        ("info", ["b", "c", "d", "e"]),
        ("warning", ["c", "d", "e"]),
        ("error", ["d"]),
    ],
)
def test_only_what_reaches_the_level_is_written_and_talkative_libraries_only_warn(
    level: str, events: list[str]
) -> None:
    lines = stderr_of(
        "log.debug('a'); log.info('b'); log.warning('c'); log.error('d')\n"
        "logging.getLogger('urllib3.connectionpool').debug('noise')\n"
        "logging.getLogger('httpx').info('noise')\n"
        "logging.getLogger('hypercorn.error').warning('e')\n",
        level=level,
    )
    assert [json.loads(line)["event"] for line in lines.splitlines()] == events


def test_pythons_warnings_are_log_lines_too() -> None:
    line = json.loads(stderr_of("warnings.warn('old')"))
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "UserWarning: old" in line["event"]


def test_auto_is_json_for_a_pipe_and_coloured_text_for_a_terminal() -> None:
    assert json.loads(stderr_of("log.info('hello')", log_format="auto"))["event"] == "hello"
    shown = on_a_terminal("log.info('hello', n=1)", NO_COLOR="")
    assert "hello" in shown
    assert "\x1b[" in shown
    assert not shown.startswith("{")


def test_no_color_and_a_pipe_keep_text_plain() -> None:
    assert "\x1b[" not in on_a_terminal("log.info('hello', n=1)", NO_COLOR="1")
    text = stderr_of("log.info('hello', n=1)", log_format="text")
    assert re.fullmatch(TIMESTAMP.pattern + r" \[info +\] hello +\[bedrock\.part\] n=1\n", text)


def test_json_can_be_had_on_a_terminal() -> None:
    assert json.loads(on_a_terminal("log.info('hello')", log_format="json"))["event"] == "hello"


def test_what_comes_from_outside_can_neither_steer_the_terminal_nor_forge_a_line() -> None:
    evil = "\\x1b[2J\\x9b2J\\u202e\\nforged"
    text = stderr_of(
        f"class Odd:\n    def __repr__(self): return '{evil}'\n"
        f"log.info('pulled {evil}', image='{evil}', of=Odd(), names=[Odd()])\n"
        f"try:\n    raise ValueError('{evil}')\nexcept ValueError:\n    log.exception('failed')\n",
        log_format="text",
    )
    assert not [char for char in text if not char.isprintable() and char != "\n"]
    assert not [line for line in text.splitlines()[:2] if line.startswith("forged")]


def test_a_value_that_json_does_not_know_is_shown_and_breaks_nothing() -> None:
    code = "import pathlib\nlog.info('odd', path=pathlib.Path('/x'), raw=b'\\xff', text='\\udcff')"
    assert json.loads(stderr_of(code))["event"] == "odd"
    assert "odd" in stderr_of(code, log_format="text")


def test_configuring_twice_does_not_write_twice() -> None:
    assert len(stderr_of("configure_logging('info', 'json')\nlog.info('once')").splitlines()) == 1


@pytest.mark.parametrize(
    ("level", "log_format", "field"),
    [
        ("loud", "json", "log_level"),
        ("", "json", "log_level"),
        ("INFO ", "json", "log_level"),
        ("info", "xml", "log_format"),
    ],
)
def test_a_level_or_format_that_does_not_exist_names_itself_and_the_choice(
    level: str, log_format: str, field: str
) -> None:
    with pytest.raises(InvalidInput, match="is none of ") as caught:
        configure_logging(level, log_format)
    assert caught.value.field == field
