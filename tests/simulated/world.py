"""A plan brought to life: real clients and real servers on a simulated network, and what happens to them.

Theory of operation: the clients, servers, cores and ports are those of the package, the network is
:class:`~twistedudp.testing.SimulatedNetwork`. Each host has one program. The events of the plan are delayed calls of
the network's clock; between any two of those calls, of whosever, the tables of all programs are looked at. What was
sent and what arrived is in the trace, which is looked at when all is over.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from tests.simulated.forger import Forger
from tests.simulated.ledger import Call, ClientLife, Ledger, ServerLife, Tasks, Violation
from twistedudp import UDPClientService, UDPServerService
from twistedudp._alarm import wall_clock
from twistedudp.echo import EchoProtocol
from twistedudp.impairment import Delay, NATRebinding
from twistedudp.impairment._link import derived_rng
from twistedudp.protocol import RPCServerProtocol
from twistedudp.testing import SimulatedNetwork

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from twisted.internet.defer import Deferred

    from tests.simulated.plan import CallPlan, ClientPlan, Event, Plan, ServerPlan
    from twistedudp.address import Address
    from twistedudp.impairment import Arrival, Datagram, LinkEffect
    from twistedudp.testing._host import Host

__all__ = ["ECHO_PORT", "RPC_PORT", "ClientHost", "ServerHost", "WatchedNetwork", "World"]

TOKEN_KEY: Final = bytes(32)
"""What servers prove addresses with, all of them in all of their lives; a random one would make runs differ."""

RPC_PORT: Final = 10000
ECHO_PORT: Final = 7


class WatchedEffect:
    """An effect that notes whether it ever does anything."""

    def __init__(self, name: str, effect: LinkEffect, ledger: Ledger) -> None:
        self.__name__ = name  # what the trace calls it
        self.effect = effect
        self._ledger = ledger

    def __call__(self, datagram: Datagram, now: float, rng: random.Random, /) -> Iterable[Arrival]:
        """Do what the effect does."""
        arrivals = tuple(self.effect(datagram, now, rng))
        if len(arrivals) != 1 or arrivals[0].delay or arrivals[0].datagram is not datagram:
            self._ledger.occurred[self.__name__] += 1
        return arrivals


class WatchedNetwork(SimulatedNetwork):
    """A network that keeps what was sent as its sender sent it, before any effect.

    Attributes:
        sent: For each datagram the number of its record in the trace, its host's name, and itself.
        forged: The numbers of the records that forgers have made.
        forger: Told of each datagram that is sent, if there is one.
    """

    sent: list[tuple[int, str, Datagram]]
    forged: set[int]
    forger: Forger | None = None

    def send(self, host: Host, datagram: Datagram, *, here: bool = True, elsewhere: bool = True) -> None:
        """Put a datagram on its way."""
        self.sent.append((len(self.trace), host.name, datagram))
        super().send(host, datagram, here=here, elsewhere=elsewhere)
        if self.forger is not None and datagram.error is None:
            self.forger.saw(host, datagram)

    def forge(self, host: Host, datagram: Datagram) -> None:
        """Put a datagram on its way of which its source address knows nothing."""
        self.forged.add(len(self.trace))
        super().send(host, datagram)


class ServerHost:
    """A host with an rpc server and an echo server, which are stopped, crash, and come again."""

    def __init__(self, world: World, number: int, plan: ServerPlan) -> None:
        self._world = world
        self.number = number
        self._plan = plan
        self.addresses = (f"192.0.2.{number + 1}", f"2001:db8::{number + 1}")
        self.reactor = world.network.reactor(*self.addresses, silent=plan.silent)
        self.name = self.reactor.host.name
        self.up = False
        self.life: ServerLife | None = None
        self._services: list[UDPServerService] = []

    def start(self) -> None:
        """Begin a new life."""
        if not self._world.running:
            return
        self._services = [
            UDPServerService(self.reactor, RPC_PORT, self._protocol, "::"),
            UDPServerService(self.reactor, ECHO_PORT, EchoProtocol, "::"),
        ]
        self.up = True
        for service in self._services:
            service.startService()

    def _protocol(self) -> RPCServerProtocol:
        world = self._world
        tasks = Tasks(world.ledger, self.reactor)
        protocol = RPCServerProtocol(
            tasks,
            clock=self.reactor.seconds,
            wall_clock=wall_clock(self.reactor),
            prove_addresses=world.plan.prove,
            token_key=TOKEN_KEY,
            **self._plan.options,
        )
        lives = world.ledger.server_lives
        world.network.note(f"server life {len(lives)} begins", self.reactor)
        self.life = tasks.life = ServerLife(len(lives), self.number, self.addresses, protocol, world.fates)
        lives.append(self.life)
        return protocol

    def stop(self, down: float | None) -> list[Deferred[Any]]:
        """Stop in good order, and start again after so many seconds, or never."""
        if not self.up:
            return []
        self.up = False
        life = self.life
        assert life is not None
        self._world.network.note("server stops", self.reactor)
        stopped = [deferred for service in self._services if (deferred := service.stopService()) is not None]
        stopped[0].addCallback(lambda _: setattr(life, "died", self._world.fates))
        if down is not None:
            self._world.network.clock.callLater(down, self.start)
            self._world.ledger.occurred["server restart"] += 1
        return stopped

    def crash(self, down: float) -> None:
        """Fail, and come up again after so many seconds."""
        if not self.up:
            return
        self.up = False
        assert self.life is not None
        self.life.died, self.life.crashed = self._world.fates, True
        self.reactor.crash()
        self._world.network.clock.callLater(down, self._come_up)
        self._world.ledger.occurred["crash"] += 1

    def _come_up(self) -> None:
        self.reactor = self.reactor.restart()
        self.start()


class ClientHost:
    """A host with a client, which is stopped and started, and makes calls."""

    def __init__(self, world: World, number: int, plan: ClientPlan) -> None:
        self._world = world
        self._plan = plan
        addresses = f"192.0.2.{number + 11}", f"2001:db8::{number + 11}"
        self.reactor = world.network.reactor(*addresses, name=f"c{number}.example")
        self.name = self.reactor.host.name
        self.number = number
        port = ECHO_PORT if plan.echo else RPC_PORT
        hosts = [f"s{server}.example" if plan.by_name else f"192.0.2.{server + 1}" for server in plan.servers]
        rng = derived_rng(world.plan.seed, "client", str(number))
        self.service = UDPClientService(self.reactor, [(host, port) for host in hosts], rng=rng, **plan.options)
        self.service._settings = dataclasses.replace(self.service._settings, **plan.bounds)
        self.life: ClientLife | None = None

    def start(self) -> None:
        """Begin a new life."""
        if self.service.running or not self._world.running:
            return
        self.service.startService()
        self.life = ClientLife(self.number, self.service, self.service._pump)
        self._world.ledger.client_lives.append(self.life)
        if self.number in {life.client for life in self._world.ledger.client_lives[:-1]}:
            self._world.ledger.occurred["client restart"] += 1

    def stop(self, _: object = None) -> list[Deferred[Any]]:
        """Stop: everything that waits fails."""
        life = self.life
        if life is None or not self.service.running:
            return []
        self._world.network.note("client stops", self.reactor)
        self._world.ledger.occurred["client stop"] += bool(life.waiting)
        life.stopping = True
        return [self.service.stopService().addCallback(self._closed, life)]

    def _closed(self, _: object, life: ClientLife) -> None:
        life.closed = True
        protocols: list[Any] = [port.protocol for port in self.reactor.ports if port.bound_address]
        if life.pump._ports or any(getattr(protocol, "_pump", None) is life.pump for protocol in protocols):
            raise Violation("ports are free", f"client {self.number} has stopped and holds {life.pump._ports}")

    def call(self, plan: CallPlan) -> None:
        """Make a call, and do about it what is planned."""
        if plan.method == "notify":
            self.notify()
            return
        life = self.life
        if life is None:
            return
        world, service = self._world, self.service
        token = len(world.ledger.calls)
        call = Call(token, plan, life, world.network.clock.seconds())
        world.ledger.calls.append(call)
        running = service.running
        if running:
            life.calls.append(call)
            life.waiting += 1
        if plan.method == "echo_bytes":
            call.payload = (b"", b"same", b"same", b"%d" % token + bytes(plan.pad))[token % 4]
            deferred: Deferred[Any] = service.echo_bytes(call.payload, plan.timeout)
        elif plan.method == "echo":
            deferred = service.echo([token, bytes(plan.pad)], plan.timeout)
        else:
            params = [token, plan.method, plan.reply, plan.milliseconds, bytes(plan.pad)]
            params += [0] if plan.method == "wrong" else []
            name = plan.method if plan.method in {"look", "unknown"} else "work"
            deferred = service.call(name, *params, timeout=plan.timeout, idempotent=plan.idempotent)
        call.deferred = deferred
        call.at_once = bool(deferred.called)
        deferred.addBoth(self._fired, call, running=running)
        if plan.cancel_after is not None:
            world.network.clock.callLater(plan.cancel_after, self.cancel, call)

    def notify(self) -> None:
        """Send a notification."""
        if self.service.running:
            self.service.notify("note", 0)

    def cancel(self, call: Call) -> None:
        """Give a call up."""
        if call.fired or call.deferred is None:
            return
        deferred: Any = call.deferred
        # A call may have its outcome already, and only not been told it yet; its cancel may cancel others in turn.
        overtaken = deferred.request.done
        call.cancelled = True
        call.deferred.cancel()
        call.life.overtaken += overtaken
        self._world.ledger.occurred["cancel"] += not overtaken

    def _fired(self, result: Any, call: Call, *, running: int) -> None:
        call.fired += 1
        call.ended = self._world.network.clock.seconds()
        call.life.waiting -= running
        error = getattr(result, "value", None)
        if isinstance(error, BaseException):
            call.error = error
        else:
            call.result = result
        then = call.plan.then
        if then and self._world.running:
            self._world.ledger.occurred[f"{then} in a callback"] += 1
            self._react(then, call)

    def _react(self, then: str, call: Call) -> None:
        if then == "call":
            self.call(call.plan._replace(then="", cancel_after=None))
        elif then == "notify":
            self.notify()
        elif then == "cancel":
            for other in call.life.calls[-6:]:
                self.cancel(other)
        else:
            self.stop()
            if then == "restart":
                self.start()


class World:
    """All of one seed.

    Attributes:
        plan: What happens.
        network: The network.
        ledger: What was asked for, and what came of it.
        servers: The server hosts.
        clients: The client hosts.
        nats: The NATs.
        shortest: For each client and server the seconds that no round trip is shorter than.
        running: Whether the plan's events are still to happen; afterwards callbacks do nothing.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ledger = Ledger()
        self.network = network = WatchedNetwork(plan.seed, lookup_delay=plan.lookup_delay)
        network.sent, network.forged = [], set()
        self.servers = [ServerHost(self, number, server) for number, server in enumerate(plan.servers)]
        for server in self.servers:
            network.names[f"s{server.number}.example"] = server.addresses[: 1 + plan.seed % 2]
        self.clients = [ClientHost(self, number, client) for number, client in enumerate(plan.clients)]
        self.client_hosts = [client.name for client in self.clients]
        self.nats: list[NATRebinding] = []
        self.shortest: dict[tuple[int, int], float] = {}
        self.running = True
        self._moves = derived_rng(plan.seed, "moves")
        self._connect()
        if plan.forge:
            network.forger = Forger(self, plan.forge)
        for event in plan.events:
            network.clock.callLater(event.time, self._happen, event)
        for server in self.servers:
            network.clock.callLater(plan.servers[server.number].starts_at, server.start)
        for client in self.clients:
            client.start()

    @property
    def fates(self) -> int:
        """How many fates the trace has decided."""
        return self.network.trace._settled

    def server_of(self, address: Address) -> ServerHost | None:
        """Return the server host that has an address."""
        return next((server for server in self.servers if address[0] in server.addresses), None)

    def _connect(self) -> None:
        """Put the effects on the links."""
        for client in self.clients:
            for server in self.servers:
                there, back = self.network.links(client.reactor, server.reactor)
                there.delay = back.delay = self.plan.delays[client.number, server.number]
                shortest = there.delay + back.delay
                nat: NATRebinding | None = None
                for direction, link in enumerate((there, back)):
                    for name, make in self.plan.effects.get((client.number, server.number, direction), ()):
                        if make is not None:
                            effect = make()
                            link.add(WatchedEffect(name, effect, self.ledger))
                            shortest += effect.seconds if isinstance(effect, Delay) else 0.0
                        elif nat is None:
                            nat = NATRebinding(self.plan.nat_interval)
                            link.add(nat)
                self.shortest[client.number, server.number] = shortest
                if nat is not None:
                    back.add(nat.inbound)
                    self.nats.append(nat)

    def _happen(self, event: Event) -> None:
        if event.what == "call":
            assert event.call is not None
            self.clients[event.which].call(event.call)
        elif event.what == "stop_client":
            client = self.clients[event.which]
            client.stop()
            if event.down:
                self.network.clock.callLater(event.down, client.start)
            else:
                client.start()
        elif event.what == "stop_server":
            self.servers[event.which].stop(event.down)
        elif event.what == "crash":
            self.servers[event.which].crash(event.down)
        else:
            self._move(event.which)

    def _move(self, which: int) -> None:
        """Let a name lead to something else: another server, two of them, or nothing at all."""
        one, other = self._moves.choice(self.servers), self._moves.choice(self.servers)
        self.network.names[f"s{which}.example"] = self._moves.choice(
            ((), one.addresses, one.addresses[:1], (one.addresses[0], other.addresses[0]))
        )
        self.ledger.occurred["name moves"] += any(client.by_name for client in self.plan.clients)
