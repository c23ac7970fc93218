"""The options of our ZMQ sockets: limits, heartbeats, reconnection."""

from __future__ import annotations

import zmq

# Of each peer. The one for sending is the larger, since what does not fit is dropped and a burst should not be.
_SEND_HIGH_WATER_MARK = 10_000
_RECEIVE_HIGH_WATER_MARK = 1_000
_MAX_FRAME_BYTES = 16 << 20
_HEARTBEAT_MS = 5_000
# Without it a connection attempt to a host that is switched off lasts minutes, and so does noticing that it is back.
_CONNECT_TIMEOUT_MS = 5_000
_RECONNECT_MS, _RECONNECT_MAX_MS = 50, 1_000


def set_common_options(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """What both kinds share. Encryption and authentication (CURVE) belong here when they come."""
    socket.ipv6 = "[" in endpoint
    socket.sndhwm = _SEND_HIGH_WATER_MARK
    socket.rcvhwm = _RECEIVE_HIGH_WATER_MARK
    socket.maxmsgsize = _MAX_FRAME_BYTES
    # Of the network only: libzmq's own thread answers, whatever state the process is in.
    socket.heartbeat_ivl = _HEARTBEAT_MS
    socket.heartbeat_timeout = 2 * _HEARTBEAT_MS
    socket.heartbeat_ttl = 3 * _HEARTBEAT_MS


def set_reconnection(socket: zmq.Socket[bytes]) -> None:
    """How a socket that connects comes back when the link breaks."""
    socket.connect_timeout = _CONNECT_TIMEOUT_MS
    socket.reconnect_ivl = _RECONNECT_MS
    socket.reconnect_ivl_max = _RECONNECT_MAX_MS
