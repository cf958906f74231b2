"""The UDP port that everything stands on.

Theory of operation: :func:`listen` takes the arguments of ``reactor.listenUDP`` and returns a :class:`DatagramPort`,
which any Twisted ``DatagramProtocol`` runs on unchanged. The port keeps the life of the socket and gives each datagram
to a backend, the compiled one (``_mmsg``) or the one in plain Python (``_scalar``); their surface is the ``Backend``
protocol. Nothing here knows what a datagram means.
"""

from __future__ import annotations

from ._backend import BACKENDS
from ._bound import DEFAULT_RECEIVE_BUFFER, BoundSocket, bind
from ._errors import BroadcastNotAllowed
from ._holder import port_holder
from ._inherited import InheritedSocketError, adopt
from ._listen import listen
from ._port import MAX_DATAGRAM_SIZE, DatagramPort
from ._scalar import DATAGRAMS_PER_TURN, SECONDS_PER_TURN
from ._stats import DatagramStats

__all__ = [
    "BACKENDS",
    "DATAGRAMS_PER_TURN",
    "DEFAULT_RECEIVE_BUFFER",
    "MAX_DATAGRAM_SIZE",
    "SECONDS_PER_TURN",
    "BoundSocket",
    "BroadcastNotAllowed",
    "DatagramPort",
    "DatagramStats",
    "InheritedSocketError",
    "adopt",
    "bind",
    "listen",
    "port_holder",
]
