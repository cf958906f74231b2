"""A network in a box: public, for the tests of programs that use twistedudp or any Twisted UDP protocol.

Theory of operation: a :class:`SimulatedNetwork` has hosts, each with a :class:`SimulatedReactor` on which any
``DatagramProtocol`` runs unchanged, and one :class:`SteppingClock`. Nothing is real: a test moves time itself, and the
same seed gives the same :class:`Trace`.
"""

from __future__ import annotations

from ..impairment._link import Arrival, Datagram, Link, LinkEffect
from ._clock import SimulationError, SteppingClock
from ._network import SimulatedNetwork
from ._port import SimulatedPort
from ._reactor import SimulatedReactor
from ._trace import Fate, Trace, TraceRecord

__all__ = [
    "Arrival",
    "Datagram",
    "Fate",
    "Link",
    "LinkEffect",
    "SimulatedNetwork",
    "SimulatedPort",
    "SimulatedReactor",
    "SimulationError",
    "SteppingClock",
    "Trace",
    "TraceRecord",
]
