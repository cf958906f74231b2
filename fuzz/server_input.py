"""Server input: a request runs once and is answered, at most as often as it was asked; nothing else ever happens.

Whatever datagrams come, from whomever, in whatever order, and however methods end. So: no exception, no response to
what is no request, none to anybody else, never more than one for a datagram, none that does not decode, no second run
of a request that is repeated, no table beyond its bound, no traceback in the log that is not a method's own, and after
the stop nothing left and nobody without an answer.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import MessageLengthError
from twisted.logger import LogLevel, globalLogPublisher

from twistedudp import _msgpack, methods, protocol
from twistedudp.errors import DecodeError
from twistedudp.messages import Notification, Request, Response
from twistedudp.protocol import RPCServerProtocol

from ._methods import NAMES, MethodFault, Methods, outcome
from ._source import MAX_STEPS, Broken, Source, silent

if TYPE_CHECKING:
    from twisted.logger import LogEvent

    from twistedudp.address import Address
    from twistedudp.messages import Message

    from ._source import Tell

__all__ = ["MAX_SIZE", "Step", "play"]

MAX_SIZE: Final = 640
"""Bytes of an input."""

PEERS: Final = (("127.0.0.1", 4000), ("127.0.0.1", 4001), ("127.0.0.2", 4000), ("::1", 4000), ("127.0.0.1", 0))
WAITS: Final = (0.0, 0.001, 1.0, 29.9, 30.0, 30.1, 3600.0)
_AGE: Final = 30.0
_MAX_RESPONSE: Final = 2048


class Step(IntEnum):
    """What an input can do."""

    DATAGRAM = 0
    """Any bytes: peer, bytes."""
    REQUEST = 1
    """A request: peer, msgid, method, its parameters as msgpack."""
    NOTIFICATION = 2
    """A notification: peer, method, its parameters as msgpack."""
    AGAIN = 3
    """An earlier datagram once more: peer, which."""
    WAIT = 4
    """Time passes: how long."""
    FINISH = 5
    """A method that waits comes to its end: which, how."""
    UNWRITABLE = 6
    """The next response cannot be sent: why."""
    RESTART = 7
    """The server stops and starts."""
    TOGETHER = 8
    """Three earlier datagrams come at once: for each from whom, which."""


_METHODS: Final = Methods()
_TABLE: Final = methods.method_table(_METHODS)


def _serve(**options: Any) -> RPCServerProtocol:
    """Make a server's protocol with the table of methods that was made once: it costs ten times what an input does."""
    namespace = vars(protocol)
    original = namespace["method_table"]
    namespace["method_table"] = lambda _: _TABLE
    try:
        made = RPCServerProtocol(_METHODS, **options)
    finally:
        namespace["method_table"] = original
    made.noisy = False
    return made


class Wire:
    """The transport: keeps what is written, or fails as Twisted's own port does."""

    def __init__(self) -> None:
        self.written: list[tuple[bytes, Address]] = []
        self.lost: list[tuple[bytes, Address]] = []
        self.fault: Exception | None = None

    def write(self, data: bytes, addr: Address) -> None:
        """Take a response."""
        if self.fault is not None:
            fault, self.fault = self.fault, None
            self.lost.append((data, addr))
            raise fault
        self.written.append((data, addr))


class Play:  # budget: a server, its surroundings, and the model of what it owes to whom
    """One input played to one server.

    Args:
        source: The input.
        tell: Where it is told what the input means.
    """

    def __init__(self, source: Source, tell: Tell) -> None:
        self.source = source
        self.tell = tell
        self.now = 1000.0
        self.wire = Wire()
        self.methods = _METHODS
        self.methods.reset()
        self.faults: list[LogEvent] = []
        self.protocol = _serve(
            max_request_size=256,
            max_response_size=_MAX_RESPONSE,
            max_running=source.choose((4, 1, 2)),
            cache_entries=source.choose((64, 1, 3)),
            cache_size=source.choose((65536, 1, 1200)),
            cache_age=_AGE,
            clock=lambda: self.now,
        )
        self.responder = self.protocol._responder
        self.settings = self.responder.settings
        self.protocol.makeConnection(self.wire)  # type: ignore[arg-type]  # it writes, and that is all there is to it
        self.seen: list[bytes] = []
        self.owed: Counter[tuple[Address, int]] = Counter()
        self.unanswered: set[tuple[Address, int]] = set()
        self.sights: dict[tuple[Address, bytes], float] = {}

    def run(self) -> None:
        """Play all steps, then stop the server."""
        steps = {
            Step.DATAGRAM: self._datagram,
            Step.REQUEST: self._request,
            Step.NOTIFICATION: self._notification,
            Step.AGAIN: self._again,
            Step.WAIT: self._wait,
            Step.FINISH: self._finish,
            Step.UNWRITABLE: self._unwritable,
            Step.RESTART: self._restart,
            Step.TOGETHER: self._together,
        }
        choices = tuple(steps.values())
        globalLogPublisher.addObserver(self._logged)  # type: ignore[arg-type]  # any callable is an observer
        try:
            for _ in range(MAX_STEPS):
                if not self.source:
                    break
                self.source.choose(choices)()
                self._check_bounds()
            self._stop()
        finally:
            globalLogPublisher.removeObserver(self._logged)  # type: ignore[arg-type]  # likewise
        for event in self.faults:
            raise Broken(f"logged: {event.get('log_failure') or event.get('log_format')}")

    # Steps

    def _datagram(self) -> None:
        peer = self.source.choose(PEERS)
        self._receive(self.source.chunk(), peer)

    def _request(self) -> None:
        peer = self.source.choose(PEERS)
        msgid = self.source.byte() & 0x7F
        self._receive(b"\x94\x00" + bytes([msgid]) + self._rest_of_call(), peer)

    def _notification(self) -> None:
        peer = self.source.choose(PEERS)
        self._receive(b"\x93\x02" + self._rest_of_call(), peer)

    def _rest_of_call(self) -> bytes:
        name = self.source.choose(NAMES).encode()
        count = self.source.byte() & 0x0F
        return bytes([0xA0 | len(name)]) + name + bytes([0x90 | count]) + self.source.chunk()

    def _again(self) -> None:
        peer = self.source.choose(PEERS)
        if self.seen:
            self._receive(self.source.choose(self.seen), peer)

    def _together(self) -> None:
        if not self.seen:
            return
        datagrams = [(self.source.choose(self.seen), peer) for peer in (self.source.choose(PEERS) for _ in range(3))]
        runs = len(self.methods.ran)
        self.protocol.datagrams_received(datagrams)
        self._check_together(datagrams, len(self.methods.ran) - runs)
        if len(responses := self._take_responses()) > len(datagrams):
            raise Broken(f"{len(datagrams)} datagrams made {len(responses)}")

    def _wait(self) -> None:
        self.now += self.source.choose(WAITS)
        self.tell("it is %.3f s", self.now)

    def _finish(self) -> None:
        if not self.methods.waiting:
            return
        deferred = self.source.choose(self.methods.waiting)
        self.methods.waiting.remove(deferred)
        how = self.source.byte()
        self.tell("a method ends in way %d", how)
        try:
            result = outcome(how, how)
        except Exception as error:  # noqa: BLE001  # whatever it raises is how the method fails
            deferred.errback(error)
        else:
            deferred.callback(result)
        self._take_responses()

    def _unwritable(self) -> None:
        self.wire.fault = self.source.choose((OSError("no buffer space"), MessageLengthError("too long")))
        self.tell("the next response cannot be written: %s", self.wire.fault)

    def _restart(self) -> None:
        self._stop()
        self.protocol.makeConnection(self.wire)  # type: ignore[arg-type]  # as above

    def _stop(self) -> None:
        self.tell("the server stops")
        self.protocol.doStop()
        self.methods.waiting.clear()
        self.methods.shared = Deferred()
        self._take_responses()
        if len(self.responder) or self.protocol._unfinished:
            raise Broken(f"after the stop {len(self.responder)} requests are running")
        if self.unanswered:
            raise Broken(f"never answered: {self.unanswered}")

    # The model

    def _receive(self, payload: bytes, peer: Address) -> None:
        """Let a datagram come in and check what becomes of it."""
        self.tell("from %s: %s", peer, payload)
        self.seen = [*self.seen[-7:], payload]
        message = self._let_in(payload, peer)
        if isinstance(message, Request):
            self.owed[peer, message.msgid] += 1
            self.unanswered.add((peer, message.msgid))
        runs = len(self.methods.ran)
        self.protocol.datagramReceived(payload, peer)
        new_runs = len(self.methods.ran) - runs
        if new_runs > (0 if message is None or isinstance(message, Response) else 1):
            raise Broken(f"{payload.hex()} made {new_runs} runs")
        self._check_repeat(payload, peer, new_runs)
        responses = self._take_responses()
        if len(responses) > 1 or (responses and responses[0][1] != peer):
            raise Broken(f"{payload.hex()} made {len(responses)} datagrams, to {[to for _, to in responses]}")
        if responses and isinstance(message, Request) and _msgid(responses[0][0]) != message.msgid:
            raise Broken(f"{payload.hex()} is answered by {responses[0][0].hex()}")

    def _let_in(self, payload: bytes, peer: Address) -> Message | None:
        """Return what a datagram asks for, or ``None`` where the server must not even look."""
        if not peer[1] or len(payload) > self.settings.max_request_size:
            return None
        try:
            return _msgpack.decode_untrusted(payload)
        except DecodeError:
            return None

    def _check_repeat(self, payload: bytes, peer: Address, runs: int) -> None:
        if payload[:1] == b"\x93":
            return  # a notification: nobody asks for its response again, so a repeat is another one
        remembered = self._is_remembered(payload, peer)
        if runs and remembered:
            raise Broken(f"{payload.hex()} ran again")
        if runs or remembered:
            self.sights[peer, payload] = self.now

    def _check_together(self, datagrams: list[tuple[bytes, Address]], runs: int) -> None:
        """Check the runs that datagrams made which came at once; which of them ran cannot be told."""
        may_run: set[tuple[Address, bytes]] = set()
        notifications = 0
        for payload, peer in datagrams:
            self.tell("together with others from %s: %s", peer, payload)
            message = self._let_in(payload, peer)
            if isinstance(message, Request):
                self.owed[peer, message.msgid] += 1
                self.unanswered.add((peer, message.msgid))
                if self._is_remembered(payload, peer):
                    self.sights[peer, payload] = self.now
                else:
                    may_run.add((peer, payload))
            notifications += isinstance(message, Notification)
        if runs > len(may_run) + notifications:
            raise Broken(f"{len(datagrams)} datagrams at once made {runs} runs")
        if runs == len(may_run) + notifications:
            self.sights.update(dict.fromkeys(may_run, self.now))

    def _is_remembered(self, payload: bytes, peer: Address) -> bool:
        sight = self.sights.get((peer, payload))
        return sight is not None and sight + _AGE >= self.now

    def _take_responses(self) -> list[tuple[bytes, Address]]:
        """Take what was written, and check that each of it is owed."""
        written, self.wire.written = self.wire.written, []
        for payload, peer in written:
            self.tell("  to %s: %s", peer, payload)
            response = _msgpack.decode_untrusted(payload)
            if not isinstance(response, Response) or len(payload) > _MAX_RESPONSE:
                raise Broken(f"{len(payload):,} bytes are sent, {payload[:40].hex()} ...")
            if response.error is not None and (response.result is not None or not _is_error(response.error)):
                raise Broken(f"{response} is no error of ours")
            key = (peer, response.msgid)
            if not self.owed[key]:
                raise Broken(f"{peer} gets {response} without having asked")
            self.owed[key] -= 1
        self.unanswered.difference_update((peer, _msgid(payload)) for payload, peer in written + self.wire.lost)
        return written

    def _check_bounds(self) -> None:
        settings, cache = self.settings, self.responder._cache
        if len(self.responder) > settings.max_running + len(NAMES):  # one of each is let in that holds no slot
            raise Broken(f"{len(self.responder)} requests are running, {settings.max_running} may")
        if len(cache) > settings.cache_entries:
            raise Broken(f"{len(cache)} responses are kept, {settings.cache_entries} may be")
        # The bound is looked at when a request comes: it and those that run then may each add their own to it.
        own = (settings.max_running + 1) * (_MAX_RESPONSE + settings.max_request_size + 1024)
        if cache.size > settings.cache_size + own or (cache.size and not len(cache)):
            raise Broken(f"{len(cache)} responses take {cache.size:,} bytes")

    def _logged(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is None and event["log_level"] < LogLevel.error:
            return
        if failure is None or not failure.check(MethodFault):
            self.faults.append(event)


def _msgid(payload: bytes) -> int:
    message = _msgpack.decode_untrusted(payload)
    return message.msgid if isinstance(message, Response) else -1


def _is_error(error: object) -> bool:
    return isinstance(error, dict) and all(isinstance(error.get(key), str) for key in ("code", "message"))


def play(data: bytes, tell: Tell = silent) -> None:
    """Play one input to a new server."""
    Play(Source(data), tell).run()
