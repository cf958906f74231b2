"""The attacks of a siege, each with its rate; the sum leaves half of two cores to the servers and their clients.

Theory of operation: every attack has a network of sources of its own (of 10.0.0.0/8), by which nftables tells what it
sent and what it was sent, outside of our code. Rates are datagrams per second, over the whole siege.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tests.siege import payloads
from tests.siege.field import SERVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.siege.payloads import Payload

__all__ = ["HALF_OPEN", "HALF_OPEN_RATE", "IN_SESSION_RATE", "LARGE", "REFLECTOR_PORTS", "Attack", "all_attacks"]

LARGE: Final = 4000
"""Bytes of the response that amplifiers ask for, by requests of some 20."""

REFLECTOR_PORTS: Final = (7, 13, 17, 19, 53, 69, 123, 161, 389, 520, 1900, 3702, 5353, 11211)
"""Source ports of services that answer anything, which loops and reflections are made of."""

HALF_OPEN: Final = "10.6.0.0/24"
"""Addresses that a bad peer really has: with those of it that are used it holds all places for handshakes."""
HALF_OPEN_RATE: Final = 50
"""Handshakes a second that it begins, and leaves there."""

IN_SESSION_RATE: Final = 200
"""Records a second, of no session, with the addresses of honest clients' sessions."""

_EVERYWHERE: Final = 1_000_000


class Attack(NamedTuple):
    """Datagrams with forged sources at one target."""

    name: str
    """As counters can be named."""
    what: str
    at: str
    """The server's name: ``echo``, ``rpc`` or ``dtls``; or ``client``."""
    rate: float
    payloads: Sequence[Payload]
    sources: str
    hosts: int = _EVERYWHERE
    source_ports: Sequence[int] = ()


def all_attacks(ports: dict[str, int], seed: int) -> list[Attack]:
    """Return the attacks on servers.

    Args:
        ports: The ports of the servers there are, by their names.
        seed: What random bytes are made from.
    """
    once = [one for _ in range(3) for one in payloads.requests("count", 1, 2)]
    mixed = [*once, *payloads.requests("add", 1, 2), *payloads.requests("no such method")]
    large = payloads.requests("large", LARGE)
    own, reflectors, echoes = f"{SERVER}/32", REFLECTOR_PORTS, payloads.echoes()
    made = [
        Attack("flood_echo", "spoof flood, echo", "echo", 3000, echoes, "10.16.0.0/12"),
        Attack("flood_rpc", "spoof flood, requests", "rpc", 3000, mixed, "10.32.0.0/12"),
        Attack("amplify", "amplification, 100 prefixes", "rpc", 500, large, "10.1.0.0/16", 100),
        Attack("amplify_wide", "amplification, 1,000,000 sources", "rpc", 300, large, "10.48.0.0/12"),
        Attack("one_host", "flood by one host", "echo", 2000, payloads.echoes(8), "10.2.0.1/32", 1),
        Attack("reflect_echo", "reflectors' ports, echo", "echo", 100, echoes, "10.3.0.0/16", 1000, reflectors),
        Attack("reflect_rpc", "reflectors' ports, rpc", "rpc", 100, mixed, "10.4.0.0/16", 1000, reflectors),
        Attack("itself", "from the server's own address", "echo", 20, echoes, own, 1, (ports["echo"],)),
        Attack("bombs", "MessagePack bombs", "rpc", 500, payloads.bombs(), "10.64.0.0/12"),
        Attack("garbage_echo", "garbage, echo", "echo", 500, payloads.noise(seed), "10.80.0.0/12"),
        Attack("garbage_rpc", "garbage, rpc", "rpc", 1000, payloads.noise(seed + 1), "10.96.0.0/12"),
        Attack("proofs", "forged proofs of address", "rpc", 300, payloads.proofs(), "10.5.0.0/16", 1000),
    ]  # fmt: skip
    if "dtls" in ports:
        hellos, forged = (payloads.client_hellos(seed, cookies=cookies) for cookies in (False, True))
        garbage = payloads.noise(seed + 2) + payloads.session_records(seed + 3)
        junk = payloads.dtls_junk(seed + 4)
        made += [
            Attack("dtls_hellos", "ClientHellos, no cookie", "dtls", 1000, hellos, "10.112.0.0/12"),
            Attack("dtls_cookies", "ClientHellos, forged cookies", "dtls", 500, forged, "10.128.0.0/12"),
            Attack("dtls_damaged", "ClientHellos, damaged", "dtls", 300, junk, "10.144.0.0/12"),
            Attack("dtls_garbage", "garbage and stray records, DTLS", "dtls", 500, garbage, "10.160.0.0/12"),
        ]
    return made
