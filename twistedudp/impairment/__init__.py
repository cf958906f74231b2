"""What a network does to datagrams: loss, delay, duplication and so on, without any I/O.

Theory of operation: a :class:`LinkEffect` gets a datagram, the time, and a generator of random numbers of its own, and
says what leaves it and when; a :class:`Link` is a row of effects in one direction. Nothing here knows a socket, a clock
or a seed of its own, so the same effects serve the simulated network and the relay of ``twistd udpimpair``.

The effects are classes whose arguments are checked when an object is made. Most have a memory: each direction of each
link needs objects of its own. :func:`parse_effects` makes them from a text, and :data:`EFFECTS` lists the text forms.
"""

from __future__ import annotations

from ._effect import Effect, EffectError
from ._link import Arrival, Datagram, Link, LinkEffect
from ._loss import BurstLoss, Loss, Partition, PortUnreachable
from ._nat import NATInbound, NATRebinding
from ._payload import MTU, Corrupt, Truncate
from ._text import EFFECTS, EffectForm, ParsedEffects, format_effects, parse_effects
from ._timing import Delay, Duplicate, Jitter, Rate, Reorder

__all__ = [
    "EFFECTS",
    "MTU",
    "Arrival",
    "BurstLoss",
    "Corrupt",
    "Datagram",
    "Delay",
    "Duplicate",
    "Effect",
    "EffectError",
    "EffectForm",
    "Jitter",
    "Link",
    "LinkEffect",
    "Loss",
    "NATInbound",
    "NATRebinding",
    "ParsedEffects",
    "Partition",
    "PortUnreachable",
    "Rate",
    "Reorder",
    "Truncate",
    "format_effects",
    "parse_effects",
]
