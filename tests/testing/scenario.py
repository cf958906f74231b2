"""A program whose course depends on its seed in every way it can; prints the digest of what happened.

Run as ``python -m tests.testing.scenario SEED``, in processes of its own, to see that the seed alone decides.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.testing.protocols import Echo, ErrorRecorder
from twistedudp.testing import Arrival, SimulatedNetwork

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from twistedudp.testing import Datagram


def shake(datagram: Datagram, now: float, rng: random.Random) -> Iterable[Arrival]:
    """Lose, delay and duplicate at random."""
    del now
    return [Arrival(datagram, rng.randrange(4) / 8) for _ in range(rng.randrange(3))]


def digest_of(seed: int) -> str:
    """Run the program and return the trace's digest."""
    network = SimulatedNetwork(seed)
    reactors = [network.reactor() for _ in range(4)]
    for reactor in reactors:
        reactor.listenUDP(7, Echo(), "::")
        for other in reactors:
            network.link(reactor, other).add(shake)
    for reactor in reactors:
        port = reactor.listenUDP(0, ErrorRecorder(reactor), "::")
        port.setBroadcastAllowed(enabled=True)
        for other in reactors:
            for address in (*other.addresses, "127.0.0.1", "255.255.255.255"):
                for number in (7, 8):
                    port.write(f"{address} {number}".encode(), (address, number))
    network.run_until_idle()
    return network.trace.digest()


if __name__ == "__main__":
    sys.stdout.write(digest_of(int(sys.argv[1])))
