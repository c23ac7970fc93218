"""The Quart application class with the repairs that streaming needs.

Quart takes in a request's body as fast as the network brings it, whether anybody reads it or not; checks the size limit
only against what is unread; and has no time limit for a body that is read as a stream. Here the body pushes back,
counts all that came, and must come at a reasonable pace.
"""

from __future__ import annotations

from typing import Any

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent
from quart.wrappers import Request
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers.request import TrioBody, TrioRequest
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

_HIGH_WATER_BYTES = 1 << 20
_CHUNK_S = 60.0
# A body that is slower than this on average after the first minute is only there to hold the connection.
_SLOWEST_BYTES_PER_S = 1024


class StreamBody(TrioBody):
    """A request's body, to be read as ``async for chunk in request.body``, and only so."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, max_content_length)
        self._drained = trio.Event()
        self._seen = 0
        self._discards = False
        self._since = trio.current_time()

    def append(self, data: bytes) -> None:
        if self._discards:
            return
        self._seen += len(data)
        if self._max_content_length is not None and self._seen > self._max_content_length:
            self._must_raise = RequestEntityTooLarge()
            self.set_complete()
            return
        super().append(data)

    async def wait_room(self) -> None:
        """Return when more may be appended."""
        while len(self._data) > _HIGH_WATER_BYTES and not self._complete.is_set():
            self._drained = trio.Event()
            await self._drained.wait()

    def discard(self) -> None:
        """Nobody will read the rest: let it come and throw it away, so that nothing waits for room."""
        self._discards = True
        self._data.clear()
        self._drained.set()

    async def __anext__(self) -> bytes:
        spent = trio.current_time() - self._since
        if spent > _CHUNK_S and self._seen < spent * _SLOWEST_BYTES_PER_S and not self._complete.is_set():
            raise RequestTimeout(f"the body comes at less than {_SLOWEST_BYTES_PER_S} bytes a second")
        with trio.move_on_after(_CHUNK_S) as patience_scope:
            try:
                data = await super().__anext__()
            except StopAsyncIteration:
                # Quart looks for this before it waits only, and a body that is too large would end as if it were whole.
                if self._must_raise is not None:
                    raise self._must_raise from None
                raise
        if patience_scope.cancelled_caught:
            raise RequestTimeout(f"nothing of the body came for {_CHUNK_S:.0f} seconds")
        self._drained.set()
        return data


class StreamRequest(TrioRequest):
    body_class = StreamBody


class _Connection(TrioASGIHTTPConnection):
    async def handle_messages(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Request, receive: ASGIReceiveCallable
    ) -> None:
        body: Any = request.body
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            if message["type"] == "http.request":
                body.append(message.get("body", b""))
                if not message.get("more_body", False):
                    body.set_complete()
                await body.wait_room()
        nursery.cancel_scope.cancel()

    async def handle_request(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Request, send: ASGISendCallable
    ) -> None:
        response = await self.app.handle_request(request)
        body: Any = request.body
        body.discard()

        async def send_whole(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                # The server answers the last message with a disconnect, which cancels us in the middle of it.
                with trio.move_on_after(_CHUNK_S, shield=True):
                    await send(message)
            else:
                await send(message)

        # No time limit here: a stream may take as long as its client reads, and the server limits each write.
        await self._send_response(send_whole, response)
        nursery.cancel_scope.cancel()


class BedrockQuart(QuartTrio):
    """Quart-Trio for an application that streams."""

    request_class = StreamRequest
    asgi_http_class = _Connection


def make_quart(name: str, *, max_body_bytes: int) -> BedrockQuart:
    """Return an application without routes, templates or static files."""
    app = BedrockQuart(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = max_body_bytes
    app.config["RESPONSE_TIMEOUT"] = None
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.strict_slashes = False
    return app
