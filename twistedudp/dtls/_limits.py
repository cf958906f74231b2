"""The bounds of sessions, and the counters of what went beyond them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..errors import DTLSConfigurationError

__all__ = ["DTLSLimits", "DTLSStats"]


@dataclass(frozen=True, slots=True)
class DTLSLimits:
    """The bounds of a port's sessions.

    Attributes:
        mtu: Bytes of the largest datagram that is sent. 1,200 gets through everywhere (RFC 9000 section 14); about 37
            of them are DTLS's own. A payload that does not fit is refused by ``write``.
        sessions: Sessions that are open at once: 80 kB of memory each. No more are let in then, none is put out.
        sessions_per_host: Of these, with one host (IPv4 /32, IPv6 /64): a quarter, lest one has them all.
        half_open: Handshakes at once: 66 kB of memory each. A new one beyond it takes the place of the oldest, if that
            is older than ``half_open_patience``, or waits for its next try.
        half_open_per_host: Of these, from one host (IPv4 /32, IPv6 /64); beyond it likewise, among its own.
        half_open_patience: Seconds that a handshake may take in peace even where there are too many.
        handshake_timeout: Seconds after which a handshake has failed.
        idle_timeout: Seconds without anything genuine of the peer's after which a session is closed.
        hello_rate: ClientHellos per second that are looked at: 5,000 take about an eighth of a processor.
        hello_burst: How many may come at once.
    """

    mtu: int = 1200
    sessions: int = 2000
    sessions_per_host: int = 500
    half_open: int = 128
    half_open_per_host: int = 4
    half_open_patience: float = 2.0
    handshake_timeout: float = 30.0
    idle_timeout: float = 300.0
    hello_rate: float = 5000.0
    hello_burst: int = 5000

    def __post_init__(self) -> None:
        # 256: below it OpenSSL has no room for data. 16,384: the largest record (RFC 6347 section 4.1).
        if not 320 <= self.mtu <= 16384:
            raise DTLSConfigurationError(f"mtu={self.mtu!r}: it must be from 320 to 16,384 bytes")
        for name in ("sessions", "sessions_per_host", "half_open", "half_open_per_host", "hello_burst"):
            if getattr(self, name) < 1:
                raise DTLSConfigurationError(f"{name}={getattr(self, name)!r}: it must be 1 or more")
        for name in ("half_open_patience", "handshake_timeout", "idle_timeout", "hello_rate"):
            if not getattr(self, name) > 0:
                raise DTLSConfigurationError(f"{name}={getattr(self, name)!r}: it must be more than 0")


@dataclass(slots=True)
class DTLSStats:
    """Counters of an endpoint or a client; they only grow."""

    opened: int = 0
    """Sessions whose handshake was completed, the peer's certificate and name included."""
    replaced: int = 0
    """Of these, sessions of a peer that had one already, and began anew."""
    failed: Counter[str] = field(default_factory=Counter)
    """Handshakes that failed, by the reason: ``wrong_ca``, ``wrong_name``, ``expired``, ``not_allowed``, ``refused``,
    ``failed``, ``deadline``; ``evicted`` and ``restarted`` (the peer began another)."""
    ended: Counter[str] = field(default_factory=Counter)
    """Sessions that were open and are no more: ``closed`` (by the peer), ``idle``, ``stopped`` (by us), ``replaced``,
    ``broken`` (OpenSSL gave up)."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Datagrams received that led to nothing: ``not_dtls``, ``source_port_zero``, ``unknown_peer`` (no session and no
    ClientHello), ``not_a_hello`` (OpenSSL refused it), ``hello_rate``, ``repeated_hello`` (of a session that is open),
    ``sessions_full``, ``sessions_per_host``, ``half_open_full``, ``half_open_per_host``, ``no_data`` (a session's
    record that was forged, sent twice or cut, or carries no data), ``stranger`` (at a client: not from its server),
    ``group`` (sent to a broadcast or multicast address)."""
    not_sent: Counter[str] = field(default_factory=Counter)
    """Payloads written that were not sent: ``no_session``, ``queue_full`` (at a client, before its session is open).
    And ``unsendable``: answers to ClientHellos of an address that none can be sent to, such as a broadcast's."""
    hellos_answered: int = 0
    """Cookies that were sent to whoever asked for a session (HelloVerifyRequest)."""
    retransmissions: int = 0
    """Flights of handshakes that were sent again because no answer came in time."""
    alarms_survived: int = 0
    """Errors of OpenSSL that a second look did not confirm: those of another session (trap G1)."""
    callback_errors: int = 0
    """Exceptions that the wrapped protocol let out; each is in the log, up to twenty a minute."""
