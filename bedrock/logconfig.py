"""Structured logs: text for a terminal, JSON lines otherwise, of our own code and of the libraries alike."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import Processor

from bedrock.errors import InvalidInput

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(level: str, log_format: str = "auto") -> None:
    """Send everything that is logged to stderr. ``log_format``: ``text``, ``json``, or ``auto`` (by the terminal)."""
    if level not in _LEVELS:
        raise InvalidInput("log_level", f"{level!r} is none of {', '.join(_LEVELS)}")
    if log_format not in {"auto", "text", "json"}:
        raise InvalidInput("log_format", f"{log_format!r} is none of auto, text, json")
    is_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if is_text
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    )
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
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    # These say at "info" what our own lines say better.
    for name in ("httpx", "httpcore", "hypercorn", "urllib3", "docker"):
        logging.getLogger(name).setLevel(max(_LEVELS[level], logging.WARNING))
