"""The request and response rules of twistedudp, without any I/O.

Theory of operation: see the driving contract in :mod:`twistedudp.core._requester`. Nothing here imports twisted,
sockets, clocks or randomness: time and random numbers are arguments.
"""

from __future__ import annotations

from ._dispatch import FIRST_RETRY_SOCKET
from ._msgids import KEY_SIZE, message_ids
from ._pending import Kind, PendingRequest, RequesterStats
from ._requester import Requester
from ._responder import IncomingRequest, Responder, ResponderStats
from ._round_trip import INTERNET, LAN, RetransmissionPolicy
from ._servers import MAX_SERVERS, PeerStats
from ._settings import SAFE_PAYLOAD, RequesterSettings, ResponderSettings
from ._transmit import Transmit

__all__ = [
    "FIRST_RETRY_SOCKET",
    "INTERNET",
    "KEY_SIZE",
    "LAN",
    "MAX_SERVERS",
    "SAFE_PAYLOAD",
    "IncomingRequest",
    "Kind",
    "PeerStats",
    "PendingRequest",
    "Requester",
    "RequesterSettings",
    "RequesterStats",
    "Responder",
    "ResponderSettings",
    "ResponderStats",
    "RetransmissionPolicy",
    "Transmit",
    "message_ids",
]
