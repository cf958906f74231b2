"""Measuring echo servers: processes pinned to a core, the load generator on another, all contestants in turns.

Theory of operation: in each round every server is started anew, for what luck a process has with its memory is its own
for life. Then, for each load (window and clients), all are measured one after the other, each time beginning with
another one, so that what else the machine does hits all alike. The others sleep meanwhile. A server's processor time is
its process's clock, which the load generator reads before and after the replies that count; see echo_load.c.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from _echo_contestants import command

from twistedudp.transport._backend import ENVIRONMENT_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from _contestants import Cores
    from _echo_contestants import Contestant, Programs
    from typing_extensions import Self

__all__ = [
    "LOOPBACK",
    "Load",
    "Measure",
    "MeasureFailed",
    "Place",
    "Round",
    "Server",
    "Volume",
    "measure",
    "measure_rounds",
]

_START_LIMIT: Final = 60.0
"""Seconds within which a server has started, or has answered what it is asked."""
_GIVE_UP: Final = 60.0
"""Seconds that the load generator may take beyond those it was given: it gives up by itself before."""


class MeasureFailed(Exception):
    """A contestant could not be measured; the text says which and why, in one line."""


class Load(NamedTuple):
    """How many requests are under way in all, and from how many sockets they come."""

    window: int
    clients: int


class Volume(NamedTuple):
    """How much is measured of each load."""

    seconds: float
    """Seconds of replies that count; 0 where their number is given."""
    replies: int
    """Replies that count; 0 where seconds are given."""
    warm_up: int
    """Replies before those."""
    timeout: float
    """Seconds after which a request without a reply is lost."""
    size: int
    """Bytes of payload."""
    spin: bool
    """Whether the load generator spins instead of sleeping."""


class Place(NamedTuple):
    """Where servers and generator are: an address, and how each side gets into its network."""

    name: str
    address: str
    server_side: Callable[[], AbstractContextManager[object]]
    client_side: Callable[[], AbstractContextManager[object]]
    packets: Callable[[], int] | None = None
    """Counts the packets that have come to the clients so far, where that can be told."""


class Bench(NamedTuple):
    """What all measurements of a run have in common."""

    programs: Programs
    """What was built."""
    where: Cores
    """The cores of both sides."""
    place: Place
    volume: Volume


LOOPBACK: Final = Place("loopback", "127.0.0.1", nullcontext, nullcontext)


class Measure(NamedTuple):
    """What one measurement gave. Times are in microseconds."""

    replies: int
    cpu: float
    """Processor time of the server's process per reply, user and system."""
    rate: float
    """Replies per second."""
    p50: float
    """The round trip that half of the replies kept."""
    p99: float
    generator: float
    """Processor time of the load generator per reply."""
    sent: int
    verified: int
    """Replies that were right, also those of the warm-up."""
    lost: int
    late: int
    duplicate: int
    altered: int
    buffer: int
    """The receive buffer of a client, in bytes."""


class Round(NamedTuple):
    """What one round gave: the measures, and for those that tell it what their servers were and what they counted."""

    measures: dict[tuple[str, Load], Measure]
    servers: dict[str, dict[str, Any]]


@contextmanager
def _on_core(core: int | None) -> Iterator[None]:
    """Let the processes that are started inside run on one core only, whatever threads they make."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _environment() -> dict[str, str]:
    """Return a server's environment: Go on one core, and our ports on the backend that they choose by themselves."""
    return {name: value for name, value in os.environ.items() if name != ENVIRONMENT_VARIABLE} | {"GOMAXPROCS": "1"}


class Server:
    """A running contestant; it has ended when the ``with`` block is left.

    Args:
        contestant: Which one.
        bench: What it is measured with.

    Attributes:
        contestant: Which one.
        about: What it told when it had started: its port, and what else belongs to its kind.
    """

    def __init__(self, contestant: Contestant, bench: Bench) -> None:
        self.contestant = contestant
        self.about: dict[str, Any] = {}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in __exit__
        with bench.place.server_side(), _on_core(bench.where.server):
            self._process = subprocess.Popen(
                command(contestant, bench.programs, bench.place.address),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=_environment(),
            )

    def __enter__(self) -> Self:
        try:
            self.about = self._heard()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        # All of them end with their standard input, or need not be asked.
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, self._errors):
            if pipe is not None:
                pipe.close()

    @property
    def process(self) -> int:
        """The number of its process."""
        return self._process.pid

    def counted(self) -> dict[str, int]:
        """Return what it counted; only for those that do."""
        assert self._process.stdin is not None  # noqa: S101  # it is a pipe
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._heard()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        ready, _, _ = select.select([self._process.stdout], [], [], _START_LIMIT)
        if not ready:
            raise MeasureFailed(f"{self.contestant.name}: its server said nothing for {_START_LIMIT:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        heard: dict[str, Any] = json.loads(line)
        return heard

    def _ended(self) -> MeasureFailed:
        status = self._process.wait(_START_LIMIT)
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        reason = f": {said[-1]}" if said else ""
        return MeasureFailed(f"{self.contestant.name}: its server ended with exit status {status}{reason}")


def measure(server: Server, bench: Bench, load: Load) -> Measure:
    """Load a server and return what its replies cost.

    Raises:
        MeasureFailed: It could not be measured.
    """
    volume, place = bench.volume, bench.place
    amount = ["--replies", volume.replies] if volume.replies else ["--seconds", volume.seconds]
    arguments = [
        *("--clients", load.clients, "--window", load.window, "--size", volume.size, "--warm-up", volume.warm_up),
        *(*amount, "--timeout", volume.timeout, "--process", server.process, *(["--spin"] if volume.spin else [])),
        *(place.address, server.about["port"]),
    ]
    name = server.contestant.name
    with place.client_side(), _on_core(bench.where.client):
        process = subprocess.Popen(
            [bench.programs.load, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    with process:
        try:
            output, errors = process.communicate(timeout=volume.seconds + _GIVE_UP)
        except subprocess.TimeoutExpired:
            process.kill()
            raise MeasureFailed(f"{name}: the load generator did not end") from None
        finally:
            if process.poll() is None:
                process.kill()
    if process.returncode:
        raise MeasureFailed(f"{name}: {errors.strip() or 'the load generator failed'} ({load.window} under way)")
    heard = json.loads(output)
    each = 1e6 / heard["replies"]
    return Measure(
        cpu=heard["server_seconds"] / heard["server_replies"] * 1e6,
        rate=heard["replies"] / heard["seconds"],
        p50=heard["p50"] * 1e6,
        p99=heard["p99"] * 1e6,
        generator=heard["generator_seconds"] * each,
        **{what: heard[what] for what in ("replies", "sent", "verified", "lost", "late", "duplicate", "altered")},
        buffer=heard["receive_buffer"],
    )


def measure_rounds(
    contestants: Sequence[Contestant],
    bench: Bench,
    loads: Sequence[Load],
    *,
    rounds: int,
    wanted: Callable[[Contestant, Load], bool] = lambda _contestant, _load: True,
    progress: Callable[[str], None] = lambda _text: None,
) -> list[Round]:
    """Measure all contestants in turns.

    Args:
        contestants: Which ones.
        bench: What they are measured with.
        loads: What they are loaded with.
        rounds: How often.
        wanted: Whether a contestant is measured with a load.
        progress: Is called with what is being done.

    Raises:
        MeasureFailed: One could not be measured, or its counters are wrong.
    """
    done = []
    for number in range(rounds):
        with ExitStack() as stack:
            progress(f"round {number + 1} of {rounds}: starting the servers")
            servers = [stack.enter_context(Server(one, bench)) for one in contestants]
            found = Round({}, {server.contestant.name: server.about for server in servers})
            for turn, load in enumerate(loads):
                first = (number * len(loads) + turn) % len(servers)
                for server in servers[first:] + servers[:first]:
                    if wanted(server.contestant, load):
                        what = f"{load.window} under way, {load.clients:,} clients: {server.contestant.label}"
                        progress(f"{bench.place.name}, round {number + 1} of {rounds}: {what}")
                        measured = measure(server, bench, load)
                        found.measures[server.contestant.name, load] = measured
            for server in servers:
                if server.contestant.ours:
                    _take_counts(server, found)
        done.append(found)
    if bench.place.packets is not None:
        _check_packets(bench.place.packets(), done)
    return done


def _check_packets(packets: int, rounds: Sequence[Round]) -> None:
    """Make sure that each reply was a packet of its own: that is what the place is for."""
    replies = sum(measured.verified for found in rounds for measured in found.measures.values())
    if packets < replies:
        raise MeasureFailed(f"wire: {replies:,} replies came in {packets:,} packets: segmentation offload is not off")


def _take_counts(server: Server, found: Round) -> None:
    """Ask a server of ours what it counted, and compare it with what the load generator knows."""
    name = server.contestant.name
    counted = server.counted()
    found.servers[name] = {**server.about, "counted": counted}
    measures = [measured for (measured_name, _), measured in found.measures.items() if measured_name == name]
    sent, verified = (sum(getattr(one, what) for one in measures) for what in ("sent", "verified"))
    # twistd udpecho has been sent one datagram from its own address, which it must have refused.
    probes = 1 if name == "udpecho" else 0
    numbers = {"datagrams_received": counted["datagrams_received"] - probes}
    if probes:
        numbers["echoed"] = counted["echoed"]
        refused = counted["refused_own_address"]
        if refused != 1:
            raise MeasureFailed(f"{name}: a datagram from its own address was refused {refused} times, not once")
    for what, number in numbers.items():
        if not verified <= number <= sent:
            raise MeasureFailed(f"{name}: it counted {number:,} {what}, but {sent:,} were sent, {verified:,} answered")
