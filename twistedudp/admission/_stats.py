"""What admission has counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

__all__ = ["REASONS", "AdmissionStats"]

REASONS: Final = ("denied", "not_allowed", "host_rate", "network_rate", "total_rate")
"""Why a datagram was refused: its network is denied, or not among the allowed; the host, the network around it, or all
senders together have sent too many. The compiled backend knows them by their places here."""


@dataclass(slots=True)
class AdmissionStats:
    """The counters of one port's admission, since the port was made."""

    refused: Counter[str] = field(default_factory=Counter)
    """Datagrams refused, by reason (:data:`REASONS`); where the policy is ``log_only``, those that would have been."""
    evictions: int = 0
    """Senders, or networks, forgotten before their time because too many others came: they have a full burst again."""
