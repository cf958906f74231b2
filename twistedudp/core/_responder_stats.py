"""What a server has counted.

Theory of operation: plain numbers that only grow; the responder and what belongs to it add to them, anybody reads them.
"""

from __future__ import annotations

from collections import Counter

__all__ = ["ResponderStats"]


class ResponderStats:
    """Counters of a server, all of them since it was made.

    Attributes:
        requests: Requests handed out to be run.
        notifications: Notifications handed out to be run.
        responses: Results sent, or kept for a client that has to prove its address first.
        errors: Errors sent or kept, by code: ``busy`` where there was no room for a request, ``unproven_address`` where
            something else was kept.
        withheld: Times that not even ``unproven_address`` could be sent within the budget of an unproven address.
        proofs: Proofs of addresses that were valid.
        released: Responses that were withheld at first and left when the proof came.
        strangers: Requests that were not let in, since addresses that are not proven had their share of the response
            cache.
        repeated: Requests that had been let in before and did not run again: hits of the response cache.
        large: Responses larger than the 1,200 bytes that pass everywhere whole.
        rejected: Datagrams dropped in silence, by reason: ``malformed``, ``not_a_request``, ``too_large``,
            ``source_port_zero``, ``to_group`` (sent to a broadcast or multicast address, and no notification),
            ``busy`` and ``server_stopping`` (notifications only: requests are answered), ``stale`` (they had waited for
            longer than their callers do), ``bad_token`` (a proof of an address that is none: forged, too old, or made
            for another address), ``unneeded_proof`` (one where addresses need none), ``send_failed`` (responses that
            the transport refused).
        probe_sessions_evicted: Series of probes that were forgotten before their time because there were too many.
    """

    __slots__ = (
        "errors", "large", "notifications", "probe_sessions_evicted", "proofs", "rejected", "released", "repeated",
        "requests", "responses", "strangers", "withheld",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = 0
        self.notifications = 0
        self.responses = 0
        self.repeated = 0
        self.large = 0
        self.probe_sessions_evicted = 0
        self.withheld = 0
        self.proofs = 0
        self.released = 0
        self.strangers = 0
        self.errors: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()

    def __repr__(self) -> str:
        counters = (f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"<ResponderStats {' '.join(text for text in counters if not text.endswith(('=0', '=Counter()')))}>"
