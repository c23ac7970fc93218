"""Pages of other sites, which a browser on this machine lets send requests here, are kept out.

A browser says itself where a request comes from: ``Origin`` stands on whatever may change something, and to addresses
that it trusts (HTTPS, the own machine) ``Sec-Fetch-Site`` stands on everything. Programs send neither.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from quart import request
from werkzeug.datastructures import Headers

from bedrock.api.asgi import BedrockQuart
from bedrock.api.problems import Problem
from bedrock.untrusted import shortened

_DEFAULT_PORTS = {"http": 80, "https": 443}


def why_foreign(method: str, host: str, headers: Headers) -> str:
    """Return by what a request is known as one of another site's page; empty where it is not.

    ``host`` is the name, and the port if it has one, by which this API was asked for. A link that a user follows here
    from elsewhere is let through: what it leads to is shown to the user, not to the page with the link.
    """
    origin = headers.get("Origin")
    if origin is not None and not _is_same(origin, host):
        return f"its Origin is {shortened(origin)!r}, not {shortened(host)!r}"
    site = headers.get("Sec-Fetch-Site", "none")
    if site in {"same-origin", "none"}:
        return ""
    if method in {"GET", "HEAD"} and headers.get("Sec-Fetch-Mode") == "navigate" and _is_shown_alone(headers):
        return ""
    return f"its Sec-Fetch-Site is {shortened(site)!r}"


def _is_shown_alone(headers: Headers) -> bool:
    """Whether what is asked for becomes the page in a tab, not a frame within another one."""
    return headers.get("Sec-Fetch-Dest", "document") == "document"


def _is_same(origin: str, host: str) -> bool:
    try:
        theirs = urlsplit(origin)
        ours = urlsplit(f"{theirs.scheme}://{host}")
        default = _DEFAULT_PORTS.get(theirs.scheme)
        return bool(theirs.hostname) and (theirs.hostname, theirs.port or default) == (
            ours.hostname,
            ours.port or default,
        )
    except ValueError:
        return False


def keep_foreign_pages_out(app: BedrockQuart) -> None:
    """Refuse each request of ``app`` that a page of another site makes a browser send."""

    @app.before_request
    async def check() -> None:
        reason = why_foreign(request.method, request.host, request.headers)
        if reason:
            raise Problem(403, f"a page of another site can't use this API: {reason}")
