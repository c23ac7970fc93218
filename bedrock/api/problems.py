"""Errors as RFC 9457 problem details: one shape for every error of every route."""

from __future__ import annotations

import http
import secrets

import msgspec
import structlog
from quart import Response
from werkzeug.exceptions import HTTPException

from bedrock.api.artifacts import StorageFull
from bedrock.api.asgi import BedrockQuart
from bedrock.api.coordinator import NotEndedYet
from bedrock.api.sessions import UnknownSession
from bedrock.errors import BedrockError, InvalidInput
from bedrock.kv import StoreError
from bedrock.lifecycle import TransitionRefused

log = structlog.get_logger(__name__)

_STATUS: list[tuple[type[BedrockError], int]] = [
    (InvalidInput, 400),
    (TransitionRefused, 400),
    (UnknownSession, 404),
    (NotEndedYet, 409),
    (StorageFull, 507),
    (StoreError, 503),
]


class Problem(BedrockError):
    """An error with its HTTP status, for what has no exception of its own."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def problem_response(status: int, detail: str, **members: str) -> Response:
    """Return the response for one error. ``members`` are RFC 9457's extension members."""
    body = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return Response(msgspec.json.encode(body), status=status, content_type="application/problem+json")


def install_error_handlers(app: BedrockQuart) -> None:
    """Have every error that leaves a handler of ``app`` answered as a problem."""

    @app.errorhandler(BedrockError)
    async def known(error: BedrockError) -> Response:
        if isinstance(error, Problem):
            response = problem_response(error.status, str(error))
            response.headers.extend(error.headers)
            return response
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
        if status >= 500:
            log.error("request failed", status=status, error=str(error))
        members = {"field": error.field} if isinstance(error, InvalidInput) else {}
        return problem_response(status, str(error), **members)

    @app.errorhandler(HTTPException)
    async def of_the_framework(error: HTTPException) -> Response:
        code = error.code or 500
        response = problem_response(code, error.description or "")
        for name, value in error.get_headers():
            if name.lower() in {"allow", "location", "retry-after", "content-range"}:
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    async def unexpected(error: Exception) -> Response:
        incident = secrets.token_hex(6)
        log.error("request failed unexpectedly", incident=incident, exc_info=error)
        return problem_response(
            500, f"something went wrong here; the log has it as incident {incident}", incident=incident
        )
