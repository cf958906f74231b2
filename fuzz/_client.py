"""A client as its owner drives it, and a model of what may end which request.

Theory of operation: the owner follows the driving contract at the head of ``twistedudp/core/_requester.py``. The model
knows what was asked for, and looks at the transmits to know what was sent where; from that it knows what an input may
end. It never looks into the requester, but at the very end, when no request must be left in there.
"""

from __future__ import annotations

import functools
import random
from collections import deque
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final

from twistedudp.core import KEY_SIZE, Kind, PendingRequest, Requester, RequesterSettings, message_ids
from twistedudp.errors import CircuitOpen, LocalError

from ._source import Broken

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from twistedudp.address import Address
    from twistedudp.core import Transmit
    from twistedudp.errors import TwistedUDPError

    from ._source import Tell

__all__ = ["START", "Asked", "Client"]

START: Final = 1000.0
"""Seconds on the client's clock when it begins."""

_ATOMS: Final = frozenset({str, bytes, int, float, bool, type(None), FunctionType, MethodType, RequesterSettings})


@dataclass(eq=False)
class Asked:
    """What the model knows of one request: what was given back for it, and what was seen to be sent."""

    request: PendingRequest
    deadline: float
    again: Callable[[], None]
    """Makes an equal request."""
    sent: list[Transmit] = field(default_factory=list)
    counts: bool = True
    """Whether it has a place in its server's window: not if the address has left the list since, for when it comes back
    it is a new one."""

    def is_asked(self, peer: Address) -> bool:
        """Tell whether it was sent to this address."""
        return any(transmit.peer == peer for transmit in self.sent)

    def has_left(self, peer: Address, socket: int) -> bool:
        """Tell whether it was sent to this address from this socket."""
        return any(transmit[1:] == (peer, socket) for transmit in self.sent)


class Client:  # budget: a client, its surroundings, and the model
    """One client.

    Args:
        settings: The requester's.
        seed: What its message ids and its jitter are made from.
        repeats: Requests that their caller makes again when they end.
        tell: Where it is told what happens.
    """

    def __init__(self, settings: RequesterSettings, seed: int, repeats: int, tell: Tell) -> None:
        rng = random.Random(seed)  # noqa: S311  # inputs are reproducible on purpose
        self.settings = settings
        self.requester = Requester(
            msgids=message_ids(rng.randbytes(KEY_SIZE)), random=rng.random, settings=self.settings
        )
        self.tell = tell
        self.now = START
        self.repeats = repeats
        self.waiting: list[Asked] = []
        self.all: list[Asked] = []
        self.last_sent: list[Transmit] = []
        self.known: set[Address] = set()
        self.notified: set[bytes] = set()
        self.open: set[int] = {0}

    def command(self, command: Callable[[], PendingRequest], timeout: float) -> None:
        """Give a command that makes a request."""
        try:
            request = command()
        except (LocalError, CircuitOpen) as error:
            self.tell("refused: %s", error)
            return
        self.tell("request %d: %s, timeout %g", len(self.all), request.payload, timeout)
        asked = Asked(request, self.now + timeout, lambda: self.command(command, timeout))
        self.waiting.append(asked)
        self.all.append(asked)

    def resolved(self, addresses: tuple[Address, ...]) -> None:
        """Let the resolver answer."""
        self.tell("addresses: %s", addresses)
        self.known.update(addresses)
        for asked in self.waiting:
            asked.counts = asked.counts and bool(asked.sent) and asked.sent[-1].peer in addresses
        self.requester.servers_resolved(addresses, now=self.now)
        self.pump(())

    def pump(self, may_end: Collection[Asked], *errors: type[TwistedUDPError], result: bool = False) -> list[Asked]:
        """Do what the driving contract asks for, and return the requests that ended.

        Args:
            may_end: The requests that the last input may end.
            errors: What they may fail with.
            result: Whether they may have a result.
        """
        ended: list[Asked] = []
        while True:
            # Before the events are looked at: what ended by this input may have been sent by it.
            while transmits := self.requester.transmits():
                self.last_sent = transmits
                for transmit in transmits:
                    self.tell("  to %s from socket %d: %s", transmit.peer, transmit.socket, transmit.payload)
                    self._note(transmit)
            events = self.requester.events()
            if not events:
                break
            for request in events:
                ended.append(self._ended(request, may_end, errors, result=result))
                if self.repeats:
                    self.repeats -= 1
                    ended[-1].again()
        self._close_unused()
        if len(self.requester) != len(self.waiting):
            raise Broken(f"{len(self.requester)} requests wait, {len(self.waiting)} should")
        if self.waiting and self.requester.next_deadline() is None:
            raise Broken(f"{len(self.waiting)} requests wait and no timer is armed")
        peers = self.requester.stats.peers
        has_room = bool(peers) and all(peer.in_flight < int(peer.window) for peer in peers)
        if has_room and not all(asked.sent for asked in self.waiting):
            raise Broken(f"a request waits for its turn, but no window is full: {peers}")
        return ended

    def check_nothing_is_left(self) -> None:
        """Check that there is no trace of any request."""
        if self.waiting or len(self.requester):
            raise Broken(f"{len(self.waiting)} requests never ended")
        if (due := self.requester.next_deadline()) is not None:
            raise Broken(f"nothing waits and the timer is armed for {due}")
        if left := _requests_in(self.requester):
            raise Broken(f"{len(left)} requests have ended and are kept")
        if any(peer.in_flight for peer in self.requester.stats.peers):
            raise Broken(f"something is in flight: {self.requester.stats.peers}")
        if self.open != {0}:
            raise Broken(f"sockets are open that nobody needs: {sorted(self.open)}")

    def _note(self, transmit: Transmit) -> None:
        """Find whose a transmit is: that of a request that waits, as far as was told, or a notification."""
        if transmit.peer not in self.known:
            raise Broken(f"{transmit} goes to nobody's address")
        self.open.add(transmit.socket)
        for asked in self.waiting:
            request = asked.request
            if transmit.payload == request.payload and request.kind is not Kind.RAW:
                break
            if transmit.payload == request.payload and transmit.socket == request.socket:
                break
        else:
            if transmit.payload not in self.notified:
                raise Broken(f"{transmit} is sent for nobody")
            return
        self._check_transmit(asked, transmit)
        asked.counts = asked.counts or not asked.sent or transmit.peer != asked.sent[-1].peer
        asked.sent.append(transmit)

    def _check_transmit(self, asked: Asked, transmit: Transmit) -> None:
        """Check that a first transmit has its place in the window, and that another one leaves from where it may."""
        if asked.sent:
            if not asked.request.idempotent and transmit.socket != asked.sent[0].socket:
                raise Broken(f"{transmit} of a call that must not run twice leaves from another socket")
            return
        window = self.settings.window
        others = [other for other in self.waiting if other.sent and other.counts and not other.request.done]
        under_way = sum(other.sent[-1].peer == transmit.peer for other in others)
        if window is not None and under_way >= window:
            raise Broken(f"{transmit} is sent while {under_way} are under way to its server, the window is {window}")

    def _ended(
        self,
        request: PendingRequest,
        may_end: Collection[Asked],
        errors: tuple[type[TwistedUDPError], ...],
        *,
        result: bool,
    ) -> Asked:
        asked = next((asked for asked in self.waiting if asked.request is request), None)
        self.tell("  ended: %s, result %s, error %r", request.payload, request.result, request.error)
        outcome = f"{request.payload.hex()} ended with {request.error!r}, {request.result!r}"
        if asked is None:
            raise Broken(f"{outcome}, but does not wait")
        # What waits for its turn fails as soon as no server is left that answers.
        given_up = isinstance(request.error, CircuitOpen) and not asked.sent
        if asked not in may_end and not given_up:
            raise Broken(f"{outcome}, for which nothing came")
        right = given_up or (result if request.error is None else isinstance(request.error, errors))
        if not request.done or not right:
            raise Broken(f"{outcome}, which nothing gave")
        self.waiting.remove(asked)
        return asked

    def _close_unused(self) -> None:
        for socket in self.requester.unused_sockets():
            self.tell("  socket %d is closed", socket)
            for asked in self.waiting:
                if any(transmit.socket == socket for transmit in asked.sent):
                    raise Broken(f"socket {socket} is closed and {asked.request.payload.hex()} waits on it")
            if not socket:
                raise Broken("the usual socket is closed")
            self.open.discard(socket)


def _requests_in(owner: object) -> list[PendingRequest]:
    """Return all requests that can be reached from an object of the core by its attributes and containers."""
    found: list[PendingRequest] = []
    of: type[Any]
    seen: set[int] = set()
    stack: list[object] = [owner]
    while stack:
        element = stack.pop()
        of = type(element)
        if of in _ATOMS or id(element) in seen:
            continue
        seen.add(id(element))
        if isinstance(element, PendingRequest):
            found.append(element)
        elif isinstance(element, dict):
            stack += [*element.keys(), *element.values()]
        elif isinstance(element, (list, tuple, set, frozenset, deque)):
            stack += element
        elif of.__module__.startswith("twistedudp.core."):
            names = (*getattr(element, "__dict__", ()), *_slots(type(element)))  # type: ignore[arg-type]  # classes are hashable
            stack += [getattr(element, name, None) for name in names]
    return found


@functools.cache
def _slots(of: type[Any]) -> list[str]:
    return [name for cls in of.__mro__ for name in getattr(cls, "__slots__", ()) if not name.startswith("__")]
