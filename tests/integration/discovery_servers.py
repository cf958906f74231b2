"""A program that holds discoverable servers, for tests in namespaces.

    python discovery_servers.py '[["NAME", "rpc", "0.0.0.0", true], ...]'

Each server is a name, what it serves (``rpc`` or ``echo``), where, and whether it is discoverable. When all listen it
prints their ports as a line of JSON. At the end of its standard input it prints what each has counted, and ends.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineReceiver

from twistedudp import RPCMethods, UDPServerService, method
from twistedudp.echo import EchoProtocol

reactor: Any = installed


class Counting(RPCMethods):
    """Methods to be asked of all.

    Attributes:
        runs: How often ``count`` ran.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.runs = 0

    @method
    def count(self, add: int) -> list[Any]:
        """Return this server's name, and how often this ran, and what was given."""
        self.runs += 1
        return [self.name, self.runs, add]


class Ending(LineReceiver):
    """Prints the counters when standard input ends."""

    def __init__(self, servers: list[tuple[UDPServerService, Any]]) -> None:
        self.servers = servers

    def connectionLost(self, reason: Any = None) -> None:
        """Print, and end."""
        told = []
        for service, serves in self.servers:
            stats = service.discovery_stats
            counters: dict[str, Any] = {} if stats is None else {name: getattr(stats, name) for name in stats.__slots__}
            port: Any = service.stats
            told.append(
                {
                    **counters,
                    "runs": getattr(serves, "runs", 0),
                    "sent": port.datagrams_sent,
                    "received": port.datagrams_received,
                }
            )
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        if reactor.running:
            reactor.stop()


def main() -> None:
    """Serve until standard input ends."""
    servers = []
    for name, what, host, discoverable in json.loads(sys.argv[1]):
        serves: Any = Counting(name) if what == "rpc" else EchoProtocol()
        service = UDPServerService(reactor, 0, serves, host, discoverable=name if discoverable else None)
        service.privilegedStartService()
        service.startService()
        servers.append((service, serves))
    sys.stdout.write(json.dumps([service.address[1] for service, _ in servers if service.address]) + "\n")
    sys.stdout.flush()
    StandardIO(Ending(servers))  # type: ignore[no-untyped-call]  # Twisted has no annotation here
    reactor.run()


if __name__ == "__main__":
    main()
