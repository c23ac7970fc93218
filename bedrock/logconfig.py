"""Structured logs: text for a terminal, JSON lines otherwise, of our own code and of the libraries alike."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from bedrock.errors import InvalidInput
from bedrock.printable import printable, printable_lines

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_FORMATS = ("auto", "text", "json")
# These say at "info" what our own lines say better.
_TALKATIVE = ("httpx", "httpcore", "hypercorn", "urllib3", "docker")


def configure_logging(level: str, log_format: str = "auto") -> None:
    """Send everything that is logged to stderr, Python's own warnings included.

    ``level`` is debug, info, warning or error; ``log_format`` is text, json, or auto (text on a terminal). What is
    bound with ``structlog.contextvars`` is in every line. Local variables are never shown: they may hold secrets.
    Raises :class:`InvalidInput` for another level or format.
    """
    if level not in _LEVELS:
        raise InvalidInput("log_level", f"{level!r} is none of {', '.join(_LEVELS)}")
    if log_format not in _FORMATS:
        raise InvalidInput("log_format", f"{log_format!r} is none of {', '.join(_FORMATS)}")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    is_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_text_renderers() if is_text else _json_renderers()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(_LEVELS[level], logging.WARNING))
    logging.captureWarnings(True)


def _json_renderers() -> list[Processor]:
    return [
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        structlog.processors.JSONRenderer(),
    ]


def _text_renderers() -> list[Processor]:
    has_colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return [_escape, structlog.dev.ConsoleRenderer(colors=has_colours, exception_formatter=_write_traceback)]


def _escape(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Show control characters instead of obeying them: much of what is logged comes from outside."""
    return {key: value if key == "exc_info" else _shown(value) for key, value in event.items()}


def _shown(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    # The renderer shows the rest by repr(), of which a library's own classes make what they like.
    return value if isinstance(value, int | float | None) else printable(repr(value))


def _write_traceback(target: TextIO, error: ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    target.write(printable_lines(text.getvalue()))
