"""What a network does to datagrams: loss, delay, duplication and so on, without any I/O.

Theory of operation: a :class:`LinkEffect` gets a datagram, the time, and a generator of random numbers of its own, and
says what leaves it and when; a :class:`Link` is a row of effects in one direction. Nothing here knows a socket, a clock
or a seed of its own, so the same effects serve the simulated network and the relay of ``twistd udpimpair``.
"""

from __future__ import annotations

from ._link import Arrival, Datagram, Link, LinkEffect

__all__ = ["Arrival", "Datagram", "Link", "LinkEffect"]
