"""DockerD's conversation with the API. One poll is always on its way.

What goes into a poll is computed from the present state: everything when this run of the API is new to us or was
silent, and otherwise what has changed since the last answered poll. The API may be away for any time: sessions run on,
and their ends wait in the ledger.
"""

from __future__ import annotations

import enum

import structlog
import trio
import uuid_utils

from bedrock import __version__
from bedrock.concurrency.backoff import backoff_delays
from bedrock.concurrency.race import first_of
from bedrock.concurrency.sockets import DealerSocket
from bedrock.dockerd.agent import Agent
from bedrock.duration import format_duration
from bedrock.model import NodeName, SessionId
from bedrock.wire import PROTOCOL_VERSION, Header, Packet, PacketError, decode_packet, encode_packet

log = structlog.get_logger(__name__)

# Beyond the time for which the API may hold an answer; a silence that is longer means that it is away.
_ANSWER_MARGIN_S = 5.0
_RETRY_FIRST_S, _RETRY_MAX_S = 0.05, 2.0
# An API that is just being started is not away yet.
_CONNECT_S = 2.0


class _Answer(enum.Enum):
    CAME = enum.auto()
    OUTDATED = enum.auto()  # there is more to report by now: the next poll says it all
    NONE = enum.auto()  # the API is away


class Poller:
    """Polls for one agent over one socket. ``run`` and ``receive`` are two tasks of the same nursery."""

    def __init__(self, agent: Agent, socket: DealerSocket, node: NodeName, *, slots: int, wait_s: float) -> None:
        self._agent = agent
        self._socket = socket
        self._wait_s = wait_s
        self._headers: dict[str, str] = {
            Header.SENDER: node,
            Header.PROTOCOL: PROTOCOL_VERSION,
            Header.BOOT: str(uuid_utils.uuid4()),
            Header.SLOTS: str(slots),
            Header.WAIT: format_duration(int(wait_s * 1e9)),
            Header.VERSION: __version__,
        }
        self._sequence = 0
        self._answered = trio.Event()
        self._last_answer = Packet()
        self._api_boot = ""  # which run of the API has told us
        self._revision = "0"  # how much of our work
        self._is_away = False

    async def run(self) -> None:
        """Report and ask until cancelled."""
        reports_everything = True
        delays = backoff_delays(_RETRY_FIRST_S, _RETRY_MAX_S)
        while True:
            news = self._agent.take_news()
            api_boot = self._api_boot
            packet = self._make_packet(news, everything=reports_everything)
            answer = await self._exchange(packet)
            if answer is _Answer.NONE:
                self._agent.put_back(news)
                reports_everything = True
                await trio.sleep(next(delays))
            elif answer is _Answer.OUTDATED:
                self._agent.put_back(news)
            else:
                # A new run of the API knows nothing but what is in its store, and of one that does not say which run it
                # is nobody knows what it knows.
                reports_everything = api_boot != self._api_boot or self._was_answered_plainly()
                if self._was_refused(packet):
                    await trio.sleep(next(delays))
                    continue
                delays = backoff_delays(_RETRY_FIRST_S, _RETRY_MAX_S)
                if self._was_answered_plainly():
                    with trio.move_on_after(self._wait_s):
                        await self._agent.wait_news()

    def _make_packet(self, news: set[SessionId], *, everything: bool) -> Packet:
        self._sequence += 1
        headers = self._headers | {
            Header.SEQUENCE: str(self._sequence),
            Header.API_BOOT: self._api_boot,
            Header.SEEN: self._revision,
        }
        if everything:
            headers[Header.FULL] = "true"
        return Packet(headers, self._agent.report(None if everything else news))

    async def _exchange(self, packet: Packet) -> _Answer:
        """Send a poll and wait for its answer, for as long as it is worth waiting for."""
        self._answered = trio.Event()
        with trio.move_on_after(_CONNECT_S):
            await self._socket.wait_connected()
        if not self._socket.is_connected:
            self._note_absence("nobody there")
            await self._socket.wait_connected()
        self._socket.send([encode_packet(packet)])
        with trio.move_on_after(self._wait_s + _ANSWER_MARGIN_S):
            await first_of(self._answered.wait, self._agent.wait_news, self._socket.wait_disconnected)
            if self._answered.is_set():
                if self._is_away:
                    self._is_away = False
                    log.info("the API answers again", endpoint=self._socket.endpoint)
                return _Answer.CAME
            if self._socket.is_connected:
                return _Answer.OUTDATED
        self._note_absence("no answer")
        return _Answer.NONE

    def _note_absence(self, cause: str) -> None:
        if not self._is_away:
            self._is_away = True
            log.warning("the API is away; sessions run on", endpoint=self._socket.endpoint, cause=cause)

    def _was_answered_plainly(self) -> bool:
        """Whether the API names no protocol. It does not hold answers then, so asking again at once would never end."""
        return self._last_answer.header(Header.PROTOCOL) is None and self._last_answer.header(Header.ERROR) is None

    def _was_refused(self, packet: Packet) -> bool:
        """Whether the API could not take what was reported, so that asking again at once would go on for ever."""
        error = self._last_answer.header(Header.ERROR)
        if error is not None:
            log.warning("the API refused a poll", error=error)
            return True
        return any(self._agent.is_unacknowledged(event.session_id) for event in packet.events)

    async def receive(self) -> None:
        """Take answers until cancelled."""
        while True:
            for frames in await self._socket.receive_batch():
                try:
                    answer = decode_packet(frames[-1] if frames else b"")
                except PacketError as error:
                    log.warning("answer of the API refused", error=str(error))
                    continue
                await self._agent.apply(answer.events)
                # An answer to an older poll is as good as any for what is in it, but it confirms nothing newer.
                # One that names no poll can only be to the latest.
                if answer.header(Header.SEQUENCE) in {str(self._sequence), None}:
                    self._api_boot = answer.header(Header.API_BOOT) or self._api_boot
                    self._revision = answer.header(Header.REVISION) or self._revision
                    self._last_answer = answer
                    self._answered.set()
