"""The request and response rules of twistedudp, without any I/O.

Theory of operation: the driving contract. There are four kinds of methods, and none of them does I/O or looks at a
clock: *commands* (``send_request``, ``cancel``, ``close``, ...) are what the caller wants; *inputs*
(``datagram_received``, ``peer_unreachable``, ``deadline_reached``, ``servers_resolved``, ...) are what happened;
*outputs* (``datagrams``, ``transmits``, ``next_deadline``, ``events``, ``unused_sockets``) are what is to be done about
it; the rest are getters. After any command or input the owner sends the datagrams and the transmits, arms its one timer
at ``next_deadline``, delivers the events and closes the unused sockets, in this order, so that an event's receiver who
calls a command finds a consistent state. ``now`` is in seconds on any clock that does not go back.

Nothing here imports twisted, sockets, clocks or randomness: time and random numbers are arguments.
"""

from __future__ import annotations

from ._amplification import ReplyBudget
from ._dispatch import FIRST_RETRY_SOCKET
from ._msgids import KEY_SIZE, message_ids
from ._pending import Kind, PendingRequest, RequesterStats
from ._requester import Requester
from ._responder import IncomingRequest, Responder
from ._responder_stats import ResponderStats
from ._round_trip import INTERNET, LAN, RetransmissionPolicy
from ._servers import MAX_SERVERS, PeerStats
from ._settings import SAFE_PAYLOAD, RequesterSettings, ResponderSettings
from ._slots import METHOD_SLOTS
from ._staleness import Staleness, arrived_since
from ._transmit import Transmit

__all__ = [
    "FIRST_RETRY_SOCKET",
    "INTERNET",
    "KEY_SIZE",
    "LAN",
    "MAX_SERVERS",
    "METHOD_SLOTS",
    "SAFE_PAYLOAD",
    "IncomingRequest",
    "Kind",
    "PeerStats",
    "PendingRequest",
    "ReplyBudget",
    "Requester",
    "RequesterSettings",
    "RequesterStats",
    "Responder",
    "ResponderSettings",
    "ResponderStats",
    "RetransmissionPolicy",
    "Staleness",
    "Transmit",
    "arrived_since",
    "message_ids",
]
