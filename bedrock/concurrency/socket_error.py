"""Why a ZMQ socket could not be opened, and what helps."""

from __future__ import annotations

import errno

import zmq

from bedrock.errors import BedrockError

_REMEDIES = {
    errno.EADDRINUSE: "another process listens there: end it, or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.ENODEV: "an address or the name of a network interface of this machine is needed, not a host name",
    errno.EINVAL: "an endpoint looks like tcp://127.0.0.1:8081",
    errno.EPROTONOSUPPORT: "an endpoint looks like tcp://127.0.0.1:8081",
    errno.EACCES: "ports below 1024 are for root",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


class SocketError(BedrockError):
    """A socket could not be opened. ``endpoint`` is the one that was asked for, ``errno`` ZMQ's reason."""

    def __init__(self, endpoint: str, cause: zmq.ZMQError) -> None:
        number = cause.errno or 0
        remedy = f"; {_REMEDIES[number]}" if number in _REMEDIES else ""
        super().__init__(f"{endpoint} can't be used: {zmq.strerror(number)}{remedy}")
        self.endpoint = endpoint
        self.errno = number
