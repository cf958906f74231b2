"""A network in a box: public, for the tests of programs that use twistedudp or any Twisted UDP protocol.

Theory of operation: a :class:`SimulatedNetwork` has hosts, each with a :class:`SimulatedReactor` on which any
``DatagramProtocol`` runs unchanged, and one :class:`SteppingClock`. Nothing is real: a test moves time itself, and the
same seed gives the same :class:`Trace`, which ``network.explain()`` draws. :mod:`twistedudp.impairment` has the
effects that links may be given. For pytest there is the fixture ``simulated_network``, for trial
:class:`SimulatedNetworkMixin`.

The names live in submodules and are imported at their first use (PEP 562): pytest imports the plugin in this package
wherever twistedudp is installed, and must not pay for Twisted, nor choose its reactor, where no test wants it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..impairment._link import Arrival, Datagram, Link, LinkEffect
    from ._clock import SimulationError, SteppingClock
    from ._mixin import SimulatedNetworkMixin
    from ._network import SimulatedNetwork
    from ._port import SimulatedPort
    from ._reactor import SimulatedReactor
    from ._trace import Fate, Trace, TraceNote, TraceRecord

__all__ = [
    "Arrival",
    "Datagram",
    "Fate",
    "Link",
    "LinkEffect",
    "SimulatedNetwork",
    "SimulatedNetworkMixin",
    "SimulatedPort",
    "SimulatedReactor",
    "SimulationError",
    "SteppingClock",
    "Trace",
    "TraceNote",
    "TraceRecord",
]

_HOMES = {
    "Arrival": "..impairment._link",
    "Datagram": "..impairment._link",
    "Fate": "._trace",
    "Link": "..impairment._link",
    "LinkEffect": "..impairment._link",
    "SimulatedNetwork": "._network",
    "SimulatedNetworkMixin": "._mixin",
    "SimulatedPort": "._port",
    "SimulatedReactor": "._reactor",
    "SimulationError": "._clock",
    "SteppingClock": "._clock",
    "Trace": "._trace",
    "TraceNote": "._trace",
    "TraceRecord": "._trace",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name], __name__), name)
    return value


def __dir__() -> list[str]:
    """List the public names, whether imported yet or not."""
    return sorted({*globals(), *__all__})
