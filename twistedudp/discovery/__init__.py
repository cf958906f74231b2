"""Which servers are there? A question to all of a network at once, and answers that do not come all at once.

Theory of operation: a server made discoverable opens a second socket, on the discovery port, which other servers of the
same host share, and joins one group of IPv4 and one of IPv6 on each network interface (``_responder``). A question
goes by broadcast and to both groups, on each interface, never past a router (``_discover``). It is asked in rounds;
each names those that have answered, who then keep silent, and how long answers are spread, so that many answers do not
come as a burst (``_questions``: the asker's state; ``_answers``: the server's; both pure, time and chance being
arguments). An answer is sent by unicast from the port of the *service*: that it came from there is its address, which
so cannot be claimed for another. ``_wire`` has the format, ``_interfaces`` the network interfaces.

Only questions are answered, and only those sent to a broadcast or multicast address by an asker on a network that this
host is attached to: so nobody farther away can be made the target of answers, and there is no reply to a reply. Nothing
is ever answered with an error.

What importing this package costs is a few constants; ``twistd`` passes here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._discover import discover
    from ._questions import DiscoveredPeer, DiscoveryAnswer

__all__ = [
    "DISCOVERY_PORT",
    "GROUP_IPV4",
    "GROUP_IPV6",
    "MAX_ROUNDS",
    "MAX_WAIT",
    "DiscoveredPeer",
    "DiscoveryAnswer",
    "discover",
]

DISCOVERY_PORT: Final = 10032
"""The UDP port that questions go to; IANA has assigned it to nobody."""

GROUP_IPV4: Final = "239.255.100.32"
"""Of the IPv4 local scope (RFC 2365 section 6.1)."""

GROUP_IPV6: Final = "ff12::6432"
"""Of link-local scope and not permanently assigned (RFC 4291 section 2.7: flag T)."""

MAX_ROUNDS: Final = 16
"""Rounds of one discovery; whoever has not answered by then is not going to."""

MAX_WAIT: Final = 60.0
"""Seconds that one discovery takes at most; what goes on for longer is monitoring."""

_HOMES = {"DiscoveredPeer": "_questions", "DiscoveryAnswer": "_questions", "discover": "_discover"}


def __getattr__(name: str) -> object:
    """Import a name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value
