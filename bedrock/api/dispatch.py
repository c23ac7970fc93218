"""The poll: packets of the nodes in, what each node must do out.

A node's packet first reports, then asks. The reports are applied in the order in which they came; each end that has
been stored is acknowledged in the answer (``session_cleanup``). Then our own nodes are told what has changed since the
revision they have seen, and if nothing has, the answer is held for as long as the node allows. A node that names no
protocol is answered at once with all that it has to do. Nothing here relies on a packet arriving: what gets lost is
told again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import trio

from bedrock import __version__
from bedrock.api.coordinator import Coordinator
from bedrock.api.fleet import Duty, NodeState
from bedrock.api.poll import Poll, outcome_of, progress_of, read_poll, started_at_of, unreadable_end
from bedrock.concurrency.service_nursery import open_service_nursery
from bedrock.concurrency.sockets import RouterSocket, open_router
from bedrock.errors import BedrockError
from bedrock.kv import StoreError
from bedrock.model import NodeName, SessionId, Status, parse_session_id
from bedrock.wire import (
    PROTOCOL_VERSION,
    Event,
    EventType,
    Header,
    Packet,
    PacketError,
    PlainOrder,
    StartOrder,
    decode_packet,
    encode_packet,
    encode_payload,
)

log = structlog.get_logger(__name__)

API_SENDER = "api"
# Packets that are being worked on at once, held polls not counted. More wait in the socket, where they push back.
_MAX_BUSY = 512
# Of one answer. With one more order, and in base64, it still is well below what a frame may have.
_MAX_ORDERS_BYTES = 6 << 20


class Dispatcher:
    """Made by :func:`open_dispatcher`. ``endpoint`` is where DockerDs connect to."""

    def __init__(self, coordinator: Coordinator, socket: RouterSocket, boot: str) -> None:
        self._coordinator = coordinator
        self._socket = socket
        self._boot = boot
        self._busy = trio.CapacityLimiter(_MAX_BUSY)
        self._locks: dict[NodeName, trio.Lock] = {}
        self._held: dict[NodeName, trio.CancelScope] = {}
        self._newest: dict[NodeName, int] = {}
        self.endpoint = socket.endpoint

    async def check(self) -> None:
        """Return when packets can be received and there is room for working on one: at once, unless something hangs."""
        await self._socket.ping()
        async with self._busy:
            return

    async def run(self) -> None:
        """Answer packets until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                for identity, frames in await self._socket.receive_batch():
                    await self._busy.acquire_on_behalf_of(token := object())
                    nursery.start_soon(self._serve, identity, frames, token)

    async def _serve(self, identity: bytes, frames: list[bytes], token: object) -> None:
        """Answer one packet. A failure in it is this packet's alone."""
        metrics = self._coordinator.metrics
        metrics.polls.inc()
        # A REQ socket puts an empty frame in front, which its answer must carry too.
        envelope, data = frames[:-1], frames[-1] if frames else b""
        try:
            try:
                poll = await self._apply(data)
            finally:
                self._busy.release_on_behalf_of(token)
            answer = data if poll is None else await self._respond(poll)
        except BedrockError as error:
            metrics.packets_refused.labels("store" if isinstance(error, StoreError) else "content").inc()
            log.warning("packet refused", peer=identity.hex(), error=str(error))
            answer = _refusal(str(error))
        except Exception:
            # Whatever a packet has hit upon, the other nodes are served on.
            metrics.packets_refused.labels("defect").inc()
            log.exception("packet could not be handled", peer=identity.hex())
            answer = _refusal("the API could not handle the packet; its log says why")
        if answer is not None:
            self._socket.send(identity, [*envelope, answer])

    async def _apply(self, data: bytes) -> Poll | None:
        """Take in one packet's reports. None means an empty packet, which is echoed."""
        if not data:
            return None
        packet = decode_packet(data)
        if not packet.headers and not packet.events:
            return None
        poll = read_poll(packet, self._boot)
        node = self._coordinator.fleet.heard(poll.sender)
        node.keeps_ttl = poll.is_ours
        if poll.is_ours:
            node.slots, node.version = poll.slots or node.slots, poll.version
            if node.boot != poll.boot:
                node.boot = poll.boot
                log.info("node registered", node=node.name, slots=node.slots, version=node.version)
        # This packet is the node's newest question: an older one need not wait for its answer any more.
        poll.number = self._newest[node.name] = self._newest.get(node.name, 0) + 1
        held = self._held.pop(node.name, None)
        if held is not None:
            held.cancel()
        # One after another, so that a node's reports are taken in the order in which it sent them.
        async with self._locks.setdefault(node.name, trio.Lock()):
            reported = set()
            for event in packet.events:
                reported.add(event.session_id)
                answer = await self._report(node, event, is_ours=poll.is_ours)
                if answer is not None:
                    poll.answers.append(answer)
            if poll.is_full:
                await self._coordinator.report_everything(node, {SessionId(item) for item in reported})
        self._coordinator.node_ready(node)
        return poll

    async def _report(self, node: NodeState, event: Event, *, is_ours: bool) -> Event | None:
        """Take in one reported event; return what to answer to it, if anything."""
        if event.event_type not in {EventType.RUNNING, EventType.END, EventType.FAILED, EventType.PROGRESS}:
            return None  # of a newer node, or an answer of ours that was sent back
        coordinator = self._coordinator
        try:
            session_id = parse_session_id(event.session_id)
            if event.event_type == EventType.PROGRESS:
                coordinator.report_progress(node, session_id, progress_of(event))
                return None
            if event.event_type == EventType.RUNNING:
                duty = await coordinator.report_running(node, session_id, started_at_of(event, is_ours=is_ours))
                return Event(EventType.STOPPED, session_id) if duty is Duty.STOP else None
            try:
                outcome = outcome_of(event, is_ours=is_ours)
            except PacketError as error:
                # The session has ended all the same, and the node would report it again and again.
                self._note_refusal(node, event, error)
                outcome = unreadable_end(error)
            await coordinator.report_end(node, session_id, outcome)
        except StoreError:
            raise
        except BedrockError as error:
            # One bad event must not keep the others of its packet from being heard.
            self._note_refusal(node, event, error)
            return None
        return Event(EventType.CLEANUP, session_id)

    def _note_refusal(self, node: NodeState, event: Event, error: BedrockError) -> None:
        self._coordinator.metrics.packets_refused.labels("event").inc()
        log.warning("reported event refused", node=node.name, event_type=event.event_type, error=str(error))

    async def _respond(self, poll: Poll) -> bytes | None:
        node = self._coordinator.fleet.know(poll.sender)
        is_newest = self._newest[node.name] == poll.number
        if poll.wait_s > 0 and is_newest and not poll.answers and not node.duties_since(poll.seen):
            with trio.move_on_after(poll.wait_s) as hold_scope:
                self._held[node.name] = hold_scope
                await node.wait_change()
            if self._held.get(node.name) is hold_scope:
                del self._held[node.name]
            # A superseded poll is answered too, at once: the node may be waiting for either answer.
        revision = told = node.revision
        events = list(poll.answers)
        size_bytes = 0
        for session_id, item in node.duties_since(poll.seen):
            if size_bytes > _MAX_ORDERS_BYTES:
                # The node asks again at once, and is told what came after this.
                revision = told
                break
            if item.duty is Duty.STOP:
                events.append(Event(EventType.STOPPED, session_id))
            elif (order := await self._order(session_id, is_ours=poll.is_ours)) is not None:
                events.append(order)
                size_bytes += len(order.payload)
            told = item.revision
        headers: dict[str, str] = {Header.SENDER: API_SENDER}
        if poll.is_ours:
            headers |= {
                Header.PROTOCOL: PROTOCOL_VERSION,
                Header.API_BOOT: self._boot,
                Header.REVISION: str(revision),
                Header.SEQUENCE: poll.sequence,
                Header.VERSION: __version__,
            }
        return encode_packet(Packet(headers, events))

    async def _order(self, session_id: SessionId, *, is_ours: bool) -> Event | None:
        session, _ = await self._coordinator.sessions.get(session_id)
        if session.status is not Status.PENDING:
            return None
        self._coordinator.told(session_id)
        order: StartOrder | PlainOrder
        if is_ours:
            order = StartOrder(
                image=session.image,
                command=session.argv,
                ttl=session.ttl_ns,
                init=session.init,
                trace=session.tracing,
                max_output=session.max_output,
            )
        else:
            order = PlainOrder(image=session.image, command=" ".join(session.argv), ttl=session.ttl_ns)
        return Event(EventType.START, session_id, encode_payload(order))


def _refusal(error: str) -> bytes:
    return encode_packet(Packet({Header.SENDER: API_SENDER, Header.ERROR: error}))


@asynccontextmanager
async def open_dispatcher(coordinator: Coordinator, endpoint: str, *, boot: str) -> AsyncIterator[Dispatcher]:
    """Listen for DockerDs on ``endpoint`` (``tcp://HOST:PORT``) and answer them until the context is left.

    ``boot`` names this run of the API. Raises what :func:`open_router` raises when the endpoint can't be used.
    """
    async with open_router(endpoint) as socket, open_service_nursery() as services:
        dispatcher = Dispatcher(coordinator, socket, boot)
        services.start_soon(dispatcher.run)
        yield dispatcher
