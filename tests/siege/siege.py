"""Everything at once: servers by ``twistd udpecho``, all attacks, honest clients, and what became of them.

Theory of operation: the servers and their honest clients run a moment alone; from then on what the servers take is
looked at. Then all attacks begin, each a process, and last as long as the clients call. What attackers sent and were
sent is counted by nftables, what clients saw by themselves; at the end every server must answer once more. A session of
DTLS lives as long as its client's port, which it has alone. Where DTLS is not installed its server is left out.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from tests.integration.routed import ServerProcess
from tests.integration.twistd import Directory, RunningTwistd
from tests.siege import payloads
from tests.siege.attacks import HALF_OPEN, HALF_OPEN_RATE, IN_SESSION_RATE, all_attacks
from tests.siege.certificates import missing_for_dtls, write_certificates
from tests.siege.field import CLIENTS, NEIGHBOUR, SERVER, STRANGERS, Field
from tests.siege.processes import BadPeer, Forgery, HonestClients, Watched, favour

if TYPE_CHECKING:
    from typing_extensions import Self

    from tests.integration.netns import NetworkNamespace
    from tests.siege.attacks import Attack
    from tests.siege.certificates import Certificates
    from tests.siege.field import Passed

__all__ = ["ALLOWANCE", "FACTOR", "METHODS", "TRUST", "Outcome", "Siege", "faults_of"]

METHODS: Final = '''
from twistedudp import RPCMethods, method

class Besieged(RPCMethods):
    """What is called in a siege."""

    def __init__(self) -> None:
        self.runs = 0

    @method
    def tally(self, size: int, ignored: str) -> list:
        """Tell how often this has run, in a response of some size."""
        self.runs += 1
        return [self.runs, "x" * size]

    @method
    def count(self, number: int, more: int) -> int:
        """Must run once."""
        return number + more

    @method(idempotent=True)
    def add(self, number: int, more: int) -> int:
        """May run again."""
        return number + more

    @method(idempotent=True)
    def large(self, size: int) -> str:
        """Has what an amplifier wants."""
        return "x" * size
'''
TRUST: Final = f"{CLIENTS}/32"

ALLOWANCE: Final = 128
"""Bytes of payload that a prefix which is not proven may be sent beyond three times what came from it."""
FACTOR: Final = 3

HOST_RATE: Final = 1000
HOST_BURST: Final = 2000
"""What one host is served by default: datagrams per second, and at once."""

SUCCESS: Final = 0.99
MOST_GROWTH: Final = 20 * 2**20
MOST_LOG: Final = 1_000_000
_CUT: Final = 10.0
"""Seconds after which a loop with a foreign echo server is over."""


@dataclass
class Outcome:
    """What became of it all; the names are those of attacks, clients and servers."""

    seconds: float = 0.0
    attacks: list[Attack] = field(default_factory=list)
    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    passed: dict[str, Passed] = field(default_factory=dict)
    clients: dict[str, dict[str, Any]] = field(default_factory=dict)
    servers: dict[str, dict[str, Any]] = field(default_factory=dict)
    kernel: dict[str, int] = field(default_factory=dict)
    loops: dict[str, int] = field(default_factory=dict)
    left_out: str = ""
    """Why there was no DTLS; empty if there was."""


@final
class Siege:
    """Servers, neighbours and clients on a field, ready; all ended at the end of the ``with`` block.

    Args:
        seed: What the attacks are made from.
        options: Options of every server beside those that say where it listens and what it serves.
        dtls: Whether one of them speaks DTLS, where it is installed.

    Attributes:
        servers: The servers by their names, ``echo``, ``rpc`` and ``dtls``.
        left_out: Why there is none that speaks DTLS; empty if there is.
    """

    def __init__(self, seed: int = 1, options: tuple[str, ...] = ("--trust", TRUST), *, dtls: bool = True) -> None:
        self.seed = seed
        self.left_out = missing_for_dtls() if dtls else "it was not asked for"
        with ExitStack() as undo:
            self.field = undo.enter_context(Field())
            directory = undo.enter_context(Directory())
            directory.write("besieged.py", METHODS)
            self._directory = directory
            self._undo = undo
            rpc = ("--protocol", "rpc", "--protocol-option", "class=besieged:Besieged")
            self.servers = {
                "echo": self.start(*options),
                "rpc": self.start(*options, *rpc),
            }
            self._certificates: Certificates | None = None
            if not self.left_out:
                self._certificates = write_certificates(directory.path)
                self.servers["dtls"] = self.start(*options, *rpc, *self._certificates.server)
            with self.field.neighbour.entered():
                self._other = undo.enter_context(RunningTwistd("--interface", NEIGHBOUR))
            self._foreign = ServerProcess(self.field.neighbour, NEIGHBOUR)
            undo.callback(self._foreign.stop)
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def start(self, *options: str) -> RunningTwistd:
        """Start a server on the field, for as long as it is there."""
        wanted = ("--interface", "0.0.0.0", *options)  # noqa: S104  # all of a namespace
        with self.field.server.entered():
            server = RunningTwistd(*wanted, python_path=[self._directory.path], apart=True)
        favour(server.process.pid)
        return self._undo.enter_context(server)

    @property
    def ports(self) -> dict[str, int]:
        """The servers' ports, by their names."""
        return {name: server.address[1] for name, server in self.servers.items()}

    def run(self, seconds: float, scale: float = 1.0) -> Outcome:
        """Have all of it happen.

        Args:
            seconds: How long.
            scale: What every attack's rate is multiplied with.
        """
        outcome = Outcome(seconds, all_attacks(self.ports, self.seed), left_out=self.left_out)
        self._count(outcome.attacks)
        with ExitStack() as undo:
            clients = {name: undo.enter_context(one) for name, one in self._clients(seconds).items()}
            for client in clients.values():
                client.wait()
            pids = {name: server.process.pid for name, server in self.servers.items()}
            before = self.field.kernel()
            with Watched(pids) as watched:
                began = time.monotonic()
                forgeries = {
                    name: undo.enter_context(one)
                    for name, one in self._begin(outcome.attacks, clients, seconds, scale).items()
                }
                outcome.sent = {name: forgery.figures(seconds + 60) for name, forgery in forgeries.items()}
                outcome.clients = {name: client.figures(seconds + 60) for name, client in clients.items()}
                outcome.seconds = time.monotonic() - began
            after = self.field.kernel()
        outcome.kernel = {name: after[name] - before[name] for name in ("InDatagrams", "OutDatagrams", "RcvbufErrors")}
        outcome.passed = self.field.counted()
        outcome.loops = self._loops(began)
        for name, server in self.servers.items():
            outcome.servers[name] = self._look_at(name, server, watched)
        return outcome

    def _count(self, attacks: list[Attack]) -> None:
        """Count what attacks and loops bring and are answered."""
        ports = self.ports
        aimed = [attack for attack in attacks if attack.at in ports]
        coming = {f"{one.name}_in": f"ip saddr {one.sources} udp dport {ports[one.at]}" for one in aimed}
        going = {f"{one.name}_out": f"ip daddr {one.sources} udp sport {ports[one.at]}" for one in aimed}
        if "dtls" in ports:
            coming["half_open_in"] = f"ip saddr {HALF_OPEN} udp dport {ports['dtls']}"
            going["half_open_out"] = f"ip daddr {HALF_OPEN} udp sport {ports['dtls']}"
        for name, port in (("own_loop", self._other.address[1]), ("foreign_loop", self._foreign.port)):
            coming[f"{name}_in"] = f"ip saddr {NEIGHBOUR} udp sport {port} udp dport {ports['echo']}"
            going[f"{name}_out"] = f"ip daddr {NEIGHBOUR} udp dport {port} udp sport {ports['echo']}"
        self.field.count(coming, going)

    def _clients(self, seconds: float) -> dict[str, HonestClients]:
        """Return the honest clients, started."""
        echo, rpc = ((SERVER, self.ports[name]) for name in ("echo", "rpc"))
        clients, strangers = self.field.clients, self.field.strangers
        plain = {
            "trusted, methods that run once": HonestClients(clients, rpc, "rpc", rate=20, seconds=seconds),
            "trusted, idempotent methods": HonestClients(clients, rpc, "idempotent", rate=20, seconds=seconds),
            "trusted, large responses": HonestClients(clients, rpc, "large", rate=5, seconds=seconds),
            "trusted, echo": HonestClients(clients, echo, "echo", rate=20, seconds=seconds),
            "unknown, methods that run once": HonestClients(strangers, rpc, "rpc", rate=10, seconds=seconds),
            "unknown, large responses": HonestClients(strangers, rpc, "large", rate=5, seconds=seconds),
            "unknown, echo": HonestClients(strangers, echo, "echo", rate=10, seconds=seconds),
        }
        return plain | self._secure_clients(seconds)

    def _secure_clients(self, seconds: float) -> dict[str, HonestClients]:
        """Return the honest clients that speak DTLS, started; all call methods that run once."""
        if self._certificates is None:
            return {}
        at, files = (SERVER, self.ports["dtls"]), self._certificates.client

        def clients(host: NetworkNamespace, rate: float, number: int) -> HonestClients:
            return HonestClients(
                host, at, "rpc", rate=rate, seconds=seconds, clients=number, dtls=files, anew=not number
            )

        trusted, strangers = self.field.clients, self.field.strangers
        return {
            "trusted, DTLS, long sessions": clients(trusted, 20, 4),
            "trusted, DTLS, a handshake a call": clients(trusted, 5, 0),
            "unknown, DTLS, long sessions": clients(strangers, 10, 2),
            "unknown, DTLS, a handshake a call": clients(strangers, 5, 0),
        }

    def _begin(
        self, attacks: list[Attack], clients: dict[str, HonestClients], seconds: float, scale: float
    ) -> dict[str, Forgery | BadPeer]:
        """Begin all attacks, and two loops, by one datagram each."""
        attacker, ports = self.field.attacker, self.ports
        begun: dict[str, Forgery | BadPeer] = {
            one.name: Forgery(
                attacker,
                (SERVER, ports[one.at]),
                one.payloads,
                sources=one.sources,
                count=one.hosts,
                source_ports=one.source_ports,
                rate=one.rate * scale,
                seconds=seconds,
                seed=self.seed,
            )
            for one in attacks
        }
        for name, host in (("trusted", CLIENTS), ("unknown", STRANGERS)):
            of_host = [client for who, client in clients.items() if who.startswith(name)]
            begun |= self._off_path(name, host, of_host, seconds, scale)
        if "dtls" in ports:
            begun["half_open"] = self._bad_peer(seconds, scale)
        for name, port in (("own_loop", self._other.address[1]), ("foreign_loop", self._foreign.port)):
            begun[name] = Forgery(
                attacker,
                (SERVER, ports["echo"]),
                payloads.echoes(),
                sources=f"{NEIGHBOUR}/32",
                count=1,
                source_ports=(port,),
                seed=self.seed,
            )
        return begun

    def _off_path(
        self, name: str, host: str, clients: list[HonestClients], seconds: float, scale: float
    ) -> dict[str, Forgery]:
        """Begin to forge what passes between the server and the clients on a host, from the right addresses and ports.

        Of replies only the number is guessed; of sessions' records, to the client and to the server, only the keys.
        """
        attacker, begun, of_sessions = self.field.attacker, dict[str, Forgery](), list[int]()
        records = payloads.session_records(self.seed)
        hellos = [*payloads.client_hellos(self.seed, cookies=False), *payloads.client_hellos(self.seed, cookies=True)]
        for client in clients:
            secure = client.target[1] == self.ports.get("dtls")
            of_sessions += client.ports if secure else ()
            for port in client.ports:
                begun[f"off_path_{name}_{port}"] = Forgery(
                    attacker,
                    (host, port),
                    records if secure else payloads.replies(),
                    sources=f"{SERVER}/32",
                    count=1,
                    source_ports=(client.target[1],),
                    rate=200 * scale,
                    seconds=seconds,
                    seed=self.seed,
                )
        for kind, sent in (("records", records), ("hellos", hellos)):
            if of_sessions:
                begun[f"in_session_{kind}_{name}"] = Forgery(
                    attacker,
                    (SERVER, self.ports["dtls"]),
                    [one for one in sent for _ in of_sessions],  # each with the address of each session
                    sources=f"{host}/32",
                    count=1,
                    source_ports=of_sessions,
                    rate=IN_SESSION_RATE * scale,
                    seconds=seconds,
                    seed=self.seed,
                )
        return begun

    def _bad_peer(self, seconds: float, scale: float) -> BadPeer:
        """Begin to begin handshakes."""
        (hello, random_at), (again, _) = payloads.client_hello(b""), payloads.client_hello(bytes(32))
        target, rate = (SERVER, self.ports["dtls"]), HALF_OPEN_RATE * scale
        return BadPeer(
            self.field.attacker, target, (hello, again), random_at, sources=HALF_OPEN, rate=rate, seconds=seconds
        )

    def _loops(self, began: float) -> dict[str, int]:
        """Return how many datagrams the loops bring still, within a second after the time they may last."""
        time.sleep(max(0.0, began + _CUT - time.monotonic()))
        before = self.field.counted()
        time.sleep(1.0)
        after = self.field.counted()
        return {
            name: after[f"{name}_in"].datagrams - before[f"{name}_in"].datagrams
            for name in ("own_loop", "foreign_loop")
        }

    def _look_at(self, name: str, server: RunningTwistd, watched: Watched) -> dict[str, Any]:
        kind = "echo" if name == "echo" else "idempotent"
        again: dict[str, Any] = {}
        if server.process.poll() is None:
            files = self._certificates.client if name == "dtls" and self._certificates is not None else None
            at = SERVER, self.ports[name]
            with HonestClients(self.field.clients, at, kind, rate=10, seconds=0.5, dtls=files) as last:
                again = last.figures()
        log = server.output + server.errors
        return {
            "lives": server.process.poll() is None and again.get("calls") == again.get("answered"),
            "resident": watched.samples[name][0].resident,
            "grown": watched.grown(name),
            "processor": watched.processor(name),
            "log_bytes": len(log.encode()),
            "log_lines": log.count("\n"),
            "tracebacks": len(re.findall(r"Traceback|Unhandled", log)),
            "log": log,
        }


def faults_of(outcome: Outcome) -> list[str]:
    """Return what did not hold, each in one line."""
    faults = []
    for name, server in outcome.servers.items():
        if not server["lives"]:
            faults.append(f"the server {name} does not answer any more")
        if server["tracebacks"]:
            faults.append(f"the server {name} logged {server['tracebacks']} tracebacks")
        if server["log_bytes"] >= MOST_LOG:
            faults.append(f"the server {name} logged {server['log_bytes']:,} bytes")
        if server["grown"] >= MOST_GROWTH:
            faults.append(f"the server {name} grew by {server['grown'] / 2**20:.1f} MiB")
    for name, client in outcome.clients.items():
        if client["wrong"]:
            faults.append(f"{name}: {client['wrong']} forged replies were taken for true")
        if name.startswith("trusted") and client["answered"] < SUCCESS * client["calls"]:
            faults.append(f"{name}: {client['answered']:,} of {client['calls']:,} calls answered: {client['failed']}")
        if name.startswith("trusted, DTLS") and client["kept"] < client["ports"]:
            faults.append(f"{name}: {client['ports'] - client['kept']} of {client['ports']} sessions were lost")
    return faults + _amplified(outcome) + _looped(outcome)


def _amplified(outcome: Outcome) -> list[str]:
    """Say where more was sent than may be to sources that are not proven."""
    faults = []
    for attack in outcome.attacks:
        came, went = outcome.passed[f"{attack.name}_in"], outcome.passed[f"{attack.name}_out"]
        # Each prefix may be sent that much, and no more than sent anything can have been.
        allowance = ALLOWANCE * min(attack.hosts, came.datagrams)
        if attack.at in {"rpc", "dtls"} and went.payload > FACTOR * came.payload + allowance:
            faults.append(f"{attack.what}: {went.payload:,} bytes sent for {came.payload:,}")
        if attack.at in {"echo", "dtls"} and went.payload > came.payload:
            faults.append(f"{attack.what}: {went.payload:,} bytes answered for {came.payload:,}")
        if attack.name == "one_host" and went.datagrams > HOST_RATE * (outcome.seconds + 1) + HOST_BURST:
            faults.append(f"{attack.what}: {went.datagrams:,} datagrams were answered in {outcome.seconds:.0f} s")
        if attack.name in {"itself", "reflect_echo", "dtls_garbage"} and went.datagrams:
            faults.append(f"{attack.what}: {went.datagrams:,} datagrams were answered")
    return faults


def _looped(outcome: Outcome) -> list[str]:
    faults = [f"the loop {name} still runs: {count:,} a second" for name, count in outcome.loops.items() if count]
    if outcome.passed["own_loop_in"].datagrams > 100:
        faults.append(f"two echo servers of ours exchanged {outcome.passed['own_loop_in'].datagrams:,} datagrams")
    return faults
