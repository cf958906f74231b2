"""What can be set of the client's and the server's half of the protocol."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..address import LARGEST_PAYLOAD
from ._breaker import COOL_DOWN, THRESHOLD
from ._round_trip import INTERNET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._round_trip import RetransmissionPolicy

__all__ = ["SAFE_PAYLOAD", "RequesterSettings", "ResponderSettings"]

SAFE_PAYLOAD: Final = 1200
"""Bytes of payload that pass practically every path whole (RFC 9000 section 14 builds on it); larger datagrams may be
cut into fragments on the way (RFC 8085 section 3.2), of which the loss of one is the loss of all."""


@dataclass(frozen=True)
class RequesterSettings:
    """What can be set of a requester.

    Attributes:
        max_datagram_size: Bytes of the largest request or notification; raw echoes have the address family's limit.
        max_outstanding: Requests that may wait at once; more are refused with :class:`TooManyRequests`. The default
            needs 256 MiB at most.
        max_queued_notifications: Notifications that may wait for the server's address; more are dropped and counted.
        max_retry_ports: Local ports that may be open at once for retransmissions of idempotent requests, of which
            each wants a fresh one; where there is none the usual one does.
        retry_refused: Go on retransmitting to a server that refuses, until the deadline.
        window: Requests that may be in flight to each server at once; ``None`` for congestion control.
        policy: The bounds of the time between two tries.
        breaker_threshold: Calls in a row without an answer before a server's circuit breaker opens; 0 for never.
        breaker_cooldown: Seconds between two calls that are let through while it is open.
        max_payload: Bytes that the transport carries in one datagram, where that is less than UDP does.
        peer_age: Seconds without an answer after which what is known of a server is out of date: paths change.
    """

    max_datagram_size: int = 8192
    max_outstanding: int = 262144
    max_queued_notifications: int = 1024
    max_retry_ports: int = 64
    retry_refused: bool = False
    window: int | None = None
    policy: RetransmissionPolicy = INTERNET
    breaker_threshold: int = THRESHOLD
    breaker_cooldown: float = COOL_DOWN
    max_payload: int = LARGEST_PAYLOAD
    peer_age: float = 600.0

    def __post_init__(self) -> None:
        """Check what users give.

        Raises:
            ValueError: A value cannot be one.
        """
        size, window, threshold, cooldown = (
            self.max_datagram_size, self.window, self.breaker_threshold, self.breaker_cooldown
        )  # fmt: skip
        if type(size) is not int or not 1 <= size <= LARGEST_PAYLOAD:
            raise ValueError(f"max_datagram_size={size!r}: it must be from 1 to {LARGEST_PAYLOAD:,} bytes")
        if window is not None and (type(window) is not int or not 1 <= window <= self.max_outstanding):
            raise ValueError(
                f"window={window!r}: it must be a whole number from 1 to {self.max_outstanding:,}, or None"
            )
        if type(threshold) is not int or threshold < 0:
            raise ValueError(f"breaker_threshold={threshold!r}: it must be a whole number of calls, 0 for never")
        if type(cooldown) not in (int, float) or not 0 < cooldown < math.inf:
            raise ValueError(f"breaker_cooldown={cooldown!r}: it must be a positive number of seconds")


@dataclass(frozen=True)
class ResponderSettings:
    """What can be set of a responder.

    Attributes:
        max_request_size: Bytes of the largest request taken; larger ones are counted and dropped.
        max_response_size: Bytes of the largest response sent; the default is what one IPv4 datagram carries.
        max_running: Requests that may be running at once; from then on methods that hold slots are refused, with the
            answer ``busy``. Each costs about 1 KiB and whatever its method holds.
        idempotent: The names of the methods that may run twice; their responses are not kept.
        cache_entries: Requests whose responses are kept, so that a repeated request does not run again; where there is
            no room, requests are answered ``busy``.
        cache_size: Bytes of requests and responses kept from which on no new request is let in.
        cache_age: Seconds for which a response is kept after its request was last seen. A client sends its request
            again after at most 3 s (RFC 8085 section 3.1.3); this is room for nine such tries to be lost in a row.
        method_slots: How many requests may be running of a method, by name, where that is not
            :data:`~twistedudp.core._slots.METHOD_SLOTS`.
    """

    max_request_size: int = 8192
    max_response_size: int = 65507
    max_running: int = 4096
    idempotent: frozenset[str] = frozenset()
    cache_entries: int = 262144
    cache_size: int = 64 * 1024 * 1024
    cache_age: float = 30.0
    method_slots: Mapping[str, int] = field(default_factory=dict)
