"""A chat room over plain UDP: whatever one peer sends reaches all others who were heard from in the last minute.

Serve it from the top of the checkout with the plugin file beside it, and talk from as many terminals as you like::

    PYTHONPATH=examples/chat twistd -n udpecho --protocol chat
    socat - UDP:127.0.0.1:10000

There is no joining and no leaving: the first datagram, which may be empty, gives a peer its seat, and a minute of
silence takes it away. A source address can be forged, and one datagram makes many here, so this is a protocol for
loopback or a network whose users you know. The room is bounded: in seats, in seconds, and in the size of a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.protocol import DatagramProtocol

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


class ChatRoom(DatagramProtocol):
    """Fans each message out to everybody else in the room, with its sender's address before it.

    The parameters of a plugin's class are its options: ``--protocol-option seats=10``. ``clock`` is none, because its
    annotation exists for type checkers only.

    Args:
        seats: Peers in the room at once; who comes when all are taken is not heard.
        forget_after: Seconds of silence after which a peer's seat is free.
        max_message: Bytes; a longer message is not passed on.
        clock: What tells the time; by default the reactor.

    Attributes:
        turned_away: Datagrams from peers who found no seat.
        too_long: Messages longer than ``max_message``.
    """

    transport: Any

    def __init__(
        self,
        seats: int = 64,
        forget_after: float = 60.0,
        max_message: int = 1200,
        *,
        clock: IReactorTime | None = None,
    ) -> None:
        if seats < 2 or not forget_after > 0:
            raise ValueError("a room needs at least two seats, and some seconds to remember who is in it")
        if clock is None:
            from twisted.internet import reactor  # noqa: PLC0415  # an import at the top would choose the reactor

            clock = cast("IReactorTime", reactor)
        self.turned_away = 0
        self.too_long = 0
        self._seats = seats
        self._forget_after = forget_after
        self._max_message = max_message
        self._clock = clock
        self._last_heard: dict[tuple[str, int], float] = {}

    @property
    def peers(self) -> list[tuple[str, int]]:
        """Who is in the room, the longest silent first."""
        self._forget_the_silent()
        return list(self._last_heard)

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Give the sender a seat, or keep it, and pass its message on."""
        self._forget_the_silent()
        if addr not in self._last_heard and len(self._last_heard) >= self._seats:
            self.turned_away += 1
            return
        self._last_heard.pop(addr, None)  # a dict keeps the order of insertion: who was just heard goes to the end
        self._last_heard[addr] = self._clock.seconds()
        if len(datagram) > self._max_message:
            self.too_long += 1
            return
        if not datagram:
            return
        message = f"{addr[0]}:{addr[1]}> ".encode() + datagram
        for peer in self._last_heard:
            if peer != addr:
                self.transport.write(message, peer)

    def _forget_the_silent(self) -> None:
        expired = self._clock.seconds() - self._forget_after
        while self._last_heard:
            peer, heard = next(iter(self._last_heard.items()))
            if heard > expired:
                return
            del self._last_heard[peer]
