"""Who may send to a port, and how often: decided before a datagram is looked into, without any I/O.

Theory of operation: an :class:`AdmissionPolicy` says what is let in. :class:`Admission` decides by it, for one datagram
after the other, from the sender's address, the size and the time alone: whether its network is allowed at all, and
whether the sender, the network around it and all senders together have sent less than they may. What it remembers of
senders has a fixed size, since source addresses are easily forged. The compiled backend of ports decides the same in C.
"""

from __future__ import annotations

from ._admission import PACKET, Admission, Refusals, weight_of
from ._policy import AdmissionPolicy, PolicyError, covering, parse_network
from ._stats import REASONS, AdmissionStats

__all__ = [
    "PACKET",
    "REASONS",
    "Admission",
    "AdmissionPolicy",
    "AdmissionStats",
    "PolicyError",
    "Refusals",
    "covering",
    "parse_network",
    "weight_of",
]
