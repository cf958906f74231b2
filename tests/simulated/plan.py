"""What one seed means: the hosts, what their links do, and everything that happens to them, drawn before anything runs.

Theory of operation: a :class:`Plan` is pure data. It is drawn from generators that are derived from the seed, one for
each part, so that a change to how one part is drawn leaves the others as they were. Times are virtual seconds from the
start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from twistedudp.impairment import (
    MTU,
    BurstLoss,
    Corrupt,
    Delay,
    Duplicate,
    Jitter,
    Loss,
    Partition,
    PortUnreachable,
    Rate,
    Reorder,
    Truncate,
)
from twistedudp.impairment._link import derived_rng

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from twistedudp.impairment import LinkEffect

__all__ = ["EFFECTS", "CallPlan", "ClientPlan", "Event", "LinkKey", "Plan", "ServerPlan", "make_plan"]

MakeEffect: TypeAlias = "Callable[[], LinkEffect]"
LinkKey: TypeAlias = tuple[int, int, int]
"""A client, a server, and the direction: 0 there, 1 back."""

SHARE: Final = 0.4
"""How many of the seeds have any one effect, so that it acts in one fifth of them at least."""

RPC_METHODS: Final = ("now", "now", "now", "later", "coroutine", "fail", "broken", "never", "look", "unknown", "wrong")
"""What clients call, as often as it stands here."""


class CallPlan(NamedTuple):
    """One call of a client's and what is done about it."""

    client: int
    method: str
    """A name of :data:`RPC_METHODS`; ``echo``, ``echo_bytes`` and ``notify`` are the client's own."""
    timeout: float
    idempotent: bool
    pad: int
    """Bytes that it carries for nothing."""
    reply: int
    """Characters that its result carries for nothing."""
    milliseconds: int
    """How long the method takes, where it takes time."""
    cancel_after: float | None
    """Seconds after which the caller gives up, ``None`` for never."""
    then: str
    """What its callback does: nothing (empty), ``call``, ``cancel``, ``stop``, ``restart``, ``notify``."""


class Event(NamedTuple):
    """Something that happens from outside."""

    time: float
    what: str
    """``call``, ``stop_client``, ``start_client``, ``stop_server``, ``crash``, ``move``."""
    which: int
    """The client, the server or the name."""
    down: float = 0.0
    """Seconds until it is started again."""
    call: CallPlan | None = None


class ServerPlan(NamedTuple):
    """One server host, with an rpc server and an echo server."""

    silent: bool
    options: dict[str, Any]
    starts_at: float


class ClientPlan(NamedTuple):
    """One client host with one client."""

    echo: bool
    """Whether it talks to the echo servers."""
    servers: tuple[int, ...]
    by_name: bool
    options: dict[str, Any]
    bounds: dict[str, Any]
    """Of its core's tables, where they are to be reached."""


@dataclass(frozen=True)
class Plan:
    """All of one seed.

    Attributes:
        seed: The seed.
        servers: The server hosts.
        clients: The client hosts.
        effects: The names of the effects of each link, and what makes them.
        delays: For each client and server the constant delay of both directions.
        nat_interval: Seconds that a NAT's mapping lives.
        lookup_delay: Seconds that looking up a name takes.
        forge: The share of the clients' datagrams on which a forger acts.
        prove: Whether servers want the addresses proven that they send much to.
        events: What happens, in order of time.
        ends_at: When everything is stopped.
    """

    seed: int
    servers: tuple[ServerPlan, ...]
    clients: tuple[ClientPlan, ...]
    effects: dict[LinkKey, tuple[tuple[str, MakeEffect | None], ...]]
    delays: dict[tuple[int, int], float]
    nat_interval: float
    lookup_delay: float
    forge: float
    prove: bool
    events: tuple[Event, ...]
    ends_at: float


def _log_uniform(rng: random.Random, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _loss(rng: random.Random) -> MakeEffect:
    probability = rng.choice((0.05, 0.1, 0.2, 0.3, 0.5))
    return lambda: Loss(probability)


def _burst_loss(rng: random.Random) -> MakeEffect:
    loss, burst = rng.choice((0.1, 0.2, 0.4)), rng.uniform(1.5, 6.0)
    return lambda: BurstLoss.from_means(loss, burst)


def _delay(rng: random.Random) -> MakeEffect:
    seconds = _log_uniform(rng, 0.002, 1.5)
    return lambda: Delay(seconds)


def _jitter(rng: random.Random) -> MakeEffect:
    seconds, keep_order = _log_uniform(rng, 0.002, 0.5), rng.random() < 0.3
    return lambda: Jitter(seconds, keep_order)


def _duplicate(rng: random.Random) -> MakeEffect:
    probability, delay = rng.choice((0.1, 0.3, 0.6)), rng.choice((0.0, 0.01, 0.3, 2.0))
    return lambda: Duplicate(probability, delay)


def _reorder(rng: random.Random) -> MakeEffect:
    probability, hold = rng.choice((0.1, 0.3, 0.5)), rng.choice((0.02, 0.1, 1.0))
    return lambda: Reorder(probability, hold)


def _corrupt(rng: random.Random) -> MakeEffect:
    probability, bits = rng.choice((0.1, 0.2, 0.4)), rng.choice((1, 1, 2, 8))
    return lambda: Corrupt(probability, bits)


def _truncate(rng: random.Random) -> MakeEffect:
    probability = rng.choice((0.1, 0.2, 0.4))
    return lambda: Truncate(probability)


def _mtu(rng: random.Random) -> MakeEffect:
    size, icmp = rng.choice((80, 120, 200, 600)), rng.random() < 0.4
    return lambda: MTU(size, icmp)


def _rate(rng: random.Random) -> MakeEffect:
    bits, queue = _log_uniform(rng, 8e3, 1e6), rng.choice((0.05, 0.2, 1.0))
    return lambda: Rate(bits, queue_seconds=queue)


def _partition(rng: random.Random) -> MakeEffect:
    if rng.random() < 0.5:
        dark, light, start = rng.uniform(0.3, 4.0), rng.uniform(0.5, 4.0), rng.uniform(0.0, 4.0)
        return lambda: Partition(dark=dark, light=light, start=start)
    begin = rng.uniform(0.0, 4.0)
    end = begin + rng.choice((1.0, 4.0, 20.0, 40.0))
    return lambda: Partition([(begin, end)])


def _port_unreachable(rng: random.Random) -> MakeEffect:
    probability = rng.choice((0.05, 0.15, 0.4))
    return lambda: PortUnreachable(probability)


EFFECTS: Final[dict[str, Callable[[random.Random], MakeEffect]]] = {
    "Loss": _loss,
    "BurstLoss": _burst_loss,
    "Delay": _delay,
    "Jitter": _jitter,
    "Duplicate": _duplicate,
    "Reorder": _reorder,
    "Corrupt": _corrupt,
    "Truncate": _truncate,
    "MTU": _mtu,
    "Rate": _rate,
    "Partition": _partition,
    "PortUnreachable": _port_unreachable,
}
"""What draws each effect, by its name; ``NATRebinding`` takes both directions and is drawn apart."""


def make_plan(seed: int) -> Plan:
    """Draw what a seed means."""
    hosts = derived_rng(seed, "hosts")
    servers = tuple(_server(hosts) for _ in range(hosts.choice((1, 2, 3))))
    clients = tuple(_client(hosts, len(servers)) for _ in range(hosts.choice((1, 2, 2, 3))))
    events, ends_at = _events(derived_rng(seed, "events"), clients, len(servers))
    links = derived_rng(seed, "links")
    return Plan(
        seed=seed,
        servers=servers,
        clients=clients,
        effects=_effects(links, clients),
        delays={(one, other): _log_uniform(links, 0.001, 0.05) for one in range(3) for other in range(3)},
        nat_interval=links.choice((0.5, 1.5, 4.0)),
        lookup_delay=links.choice((0.0, 0.01, 0.3)),
        forge=hosts.choice((0.0, 0.0, 0.15)),
        prove=derived_rng(seed, "prove").random() < SHARE,
        events=events,
        ends_at=ends_at,
    )


def _server(rng: random.Random) -> ServerPlan:
    options: dict[str, Any] = {}
    if rng.random() < 0.4:
        options["cache_entries"] = rng.choice((1, 2, 4, 8))
    if rng.random() < 0.2:
        options["cache_size"] = rng.choice((1, 1500, 6000))
    if rng.random() < 0.5:
        options["cache_age"] = rng.choice((3.5, 8.0))
    if rng.random() < 0.3:
        options["max_running"] = rng.choice((1, 2, 4))
    return ServerPlan(rng.random() < 0.5, options, rng.choice((0.0, 0.0, 0.0, 1.0)))


def _client(rng: random.Random, servers: int) -> ClientPlan:
    options: dict[str, Any] = {
        "window": rng.choice((None, None, None, 1, 2, 8)),
        "policy": rng.choice(("internet", "lan")),
        "breaker_threshold": rng.choice((0, 1, 2, 1)),
        "breaker_cooldown": rng.choice((0.3, 1.0, 3.0)),
        "retry_refused": rng.random() < 0.3,
    }
    bounds: dict[str, Any] = {}
    if rng.random() < 0.2:
        bounds = {
            "max_outstanding": rng.choice((3, 8)),  # no window may be larger
            "max_retry_ports": rng.choice((1, 2)),
            "max_queued_notifications": 1,
        }
        options["window"] = options["window"] and min(options["window"], bounds["max_outstanding"])
    chosen = tuple(rng.sample(range(servers), rng.randint(1, servers)))
    return ClientPlan(rng.random() < 0.25, chosen, rng.random() < 0.4, options, bounds)


def _effects(
    rng: random.Random, clients: tuple[ClientPlan, ...]
) -> dict[LinkKey, tuple[tuple[str, MakeEffect | None], ...]]:
    """Draw which effects there are, and on which of the links that are used; what is alone on its link acts most."""
    links = [
        (number, server, direction)
        for number, client in enumerate(clients)
        for server in client.servers
        for direction in (0, 1)
    ]
    first = [(number, client.servers[0], direction) for number, client in enumerate(clients) for direction in (0, 1)]
    placed: dict[LinkKey, list[tuple[str, MakeEffect | None]]] = {}
    for name in (*EFFECTS, "NATRebinding"):
        if rng.random() >= SHARE:
            continue
        # One way to a client's first server at least: others may never be used.
        for link in dict.fromkeys((rng.choice(first), *(link for link in links if rng.random() < 0.2))):
            if name == "NATRebinding":
                # Both directions together; the simulation puts the part for the way back in its place.
                placed.setdefault((*link[:2], 0), []).append((name, None))
            else:
                placed.setdefault(link, []).append((name, EFFECTS[name](rng)))
    for effects in placed.values():
        rng.shuffle(effects)
    return {link: tuple(effects) for link, effects in placed.items()}


def _events(rng: random.Random, clients: tuple[ClientPlan, ...], servers: int) -> tuple[tuple[Event, ...], float]:
    length = rng.choice((2.0, 4.0, 8.0, 16.0))
    events = []
    for _ in range(rng.randint(15, 40)):
        time = rng.uniform(0.0, length)
        client = rng.randrange(len(clients))
        burst = range(rng.choice((1, 1, 1, 2, 8)))
        events += [Event(time, "call", client, call=_call(rng, client, clients[client].echo)) for _ in burst]
    if rng.random() < 0.4:
        events += [
            Event(rng.uniform(0.0, length), "stop_client", rng.randrange(len(clients)), rng.choice((0.0, 0.5, 3.0)))
            for _ in range(rng.choice((1, 2)))
        ]
    for what, chance in (("stop_server", 0.35), ("crash", 0.35)):
        if rng.random() < chance:
            down = rng.choice((0.01, 0.5, 3.0))
            events.append(Event(rng.uniform(0.0, length), what, rng.randrange(servers), down))
    if rng.random() < 0.5:
        events += [Event(rng.uniform(0.0, length), "move", rng.randrange(servers)) for _ in range(2)]
    events.sort(key=lambda event: event.time)
    return tuple(events), length + rng.choice((0.0, 1.0, 10.0, 61.0))


def _call(rng: random.Random, client: int, echo: bool) -> CallPlan:
    kind = rng.random()
    if echo:
        method = "echo_bytes" if kind < 0.6 else "echo" if kind < 0.85 else "now" if kind < 0.95 else "notify"
    else:
        method = "notify" if kind < 0.08 else "echo" if kind < 0.16 else rng.choice(RPC_METHODS)
    timeout = _log_uniform(rng, 0.05, 60.0) if rng.random() < 0.4 else rng.choice((0.5, 2.0, 2.0, 5.0))
    return CallPlan(
        client,
        method,
        timeout,
        rng.random() < 0.35,
        rng.choice((0, 0, 0, 30, 100, 700)),
        rng.choice((0, 0, 0, 30, 100, 700)),
        rng.choice((1, 20, 300, 2500, 9000)),
        _log_uniform(rng, 0.0005, timeout) if rng.random() < 0.12 else None,
        rng.choice(("call", "cancel", "stop", "restart", "notify")) if rng.random() < 0.06 else "",
    )
