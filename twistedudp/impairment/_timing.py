"""Effects on when datagrams arrive: delay, jitter, reordering, duplicates, a limited rate with its queue.

Theory of operation: none of them holds a datagram itself. What is to wait leaves at once with a delay, and waits in the
clock of whoever called; so each effect's memory is a few numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._effect import LONGEST, Effect, EffectError, checked_number, checked_probability, checked_whole, delay_until
from ._link import Arrival
from ._packets import wire_size
from ._units import bits_text, bytes_text, percent_text, seconds_text

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from ._link import Datagram

__all__ = ["DEFAULT_HOLD", "DEFAULT_QUEUE", "MAX_QUEUE", "Delay", "Duplicate", "Jitter", "Rate", "Reorder"]

DEFAULT_HOLD: Final = 0.1
"""Seconds that :class:`Reorder` holds a datagram back: long enough for others to overtake it, and below the 0.2 s after
which a request of ours is sent again at the earliest."""

DEFAULT_QUEUE: Final = 0.1
"""Seconds of a :class:`Rate`'s queue: about the round trip for which routers' buffers are made."""

MAX_QUEUE: Final = 2**30
"""Bytes of a :class:`Rate`'s queue at most: what is queued is in this process's memory."""


class Delay(Effect):
    """Everything arrives so much later; ICMP errors as well.

    Args:
        seconds: From 0 to 3,600.

    Raises:
        EffectError: It is out of its range.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = checked_number("seconds", seconds, 0.0, LONGEST, " seconds")

    def __call__(self, datagram: Datagram, _now: float, _rng: random.Random, /) -> Iterable[Arrival]:
        """Pass it later."""
        return (Arrival(datagram, self.seconds),)

    def __str__(self) -> str:
        return f"delay={seconds_text(self.seconds)}"

    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one."""
        return {"seconds": self.seconds}


class Jitter(Effect):
    """Everything arrives later by a random time, evenly from 0 up to a limit; ICMP errors as well.

    Jitter only adds, since nothing arrives before it was sent: 20 ms ± 5 ms is ``Delay(0.015)`` and ``Jitter(0.010)``,
    and the text form ``delay=20ms±5ms`` makes these two. What is sent within the limit of each other may change places,
    unless ``keep_order`` is set.

    Args:
        seconds: The limit, from 0 to 3,600.
        keep_order: Whether nothing overtakes: what would arrive before an earlier datagram arrives with it, just
            behind it. That makes later times more likely.

    Raises:
        EffectError: The limit is out of its range.
    """

    def __init__(self, seconds: float, keep_order: bool = False) -> None:
        self.seconds = checked_number("seconds", seconds, 0.0, LONGEST, " seconds")
        self.keep_order = keep_order
        self._last = 0.0

    def __call__(self, datagram: Datagram, now: float, rng: random.Random, /) -> Iterable[Arrival]:
        """Pass it later."""
        delay = rng.random() * self.seconds
        if self.keep_order:
            delay = delay_until(now, max(now + delay, self._last))
            self._last = now + delay
        return (Arrival(datagram, delay),)

    def __str__(self) -> str:
        return f"jitter={seconds_text(self.seconds)}{':ordered' if self.keep_order else ''}"

    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one."""
        return {"seconds": self.seconds, "keep_order": self.keep_order}


class Reorder(Effect):
    """Some datagrams are held back, so that those which come meanwhile overtake them.

    What comes next after a held one is never held itself: so each held one is overtaken by at least one other, if any
    comes in time. The others are held with probability p / (1 - p), which makes p of all. Where traffic is
    sparse nothing overtakes, and a held one is just late: nothing is held longer than ``hold``. ICMP errors are
    held and overtake as datagrams do.

    Args:
        probability: The share of datagrams to hold back, from 0 to 0.5: each needs one that overtakes it.
        hold: For how long, in seconds, above 0, up to 3,600. Those who send at larger intervals see no reordering.

    Raises:
        EffectError: One of them is out of its range.
    """

    def __init__(self, probability: float, hold: float = DEFAULT_HOLD) -> None:
        self.probability = checked_probability("probability", probability, most=0.5)
        self.hold = checked_number("hold", hold, 0.0, LONGEST, " seconds", above=True)
        self._chance = self.probability  # of the next one to be held

    def __call__(self, datagram: Datagram, _now: float, rng: random.Random, /) -> Iterable[Arrival]:
        """Pass it at once, or after having held it back."""
        held = rng.random() < self._chance
        self._chance = 0.0 if held else self.probability / (1 - self.probability)
        return (Arrival(datagram, self.hold if held else 0.0),)

    def __str__(self) -> str:
        return f"reorder={percent_text(self.probability)}:{seconds_text(self.hold)}"

    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one."""
        return {"probability": self.probability, "hold": self.hold}


class Duplicate(Effect):
    """Some datagrams arrive twice. ICMP errors do not.

    Args:
        probability: From 0 to 1.
        delay: Seconds by which the second one is later, from 0 (just behind the first) to 3,600.

    Raises:
        EffectError: One of them is out of its range.
    """

    def __init__(self, probability: float, delay: float = 0.0) -> None:
        self.probability = checked_probability("probability", probability)
        self.delay = checked_number("delay", delay, 0.0, LONGEST, " seconds")

    def __call__(self, datagram: Datagram, _now: float, rng: random.Random, /) -> Iterable[Arrival]:
        """Pass it at once, and perhaps a second time."""
        if datagram.error is None and rng.random() < self.probability:
            return (Arrival(datagram), Arrival(datagram, self.delay))
        return (Arrival(datagram),)

    def __str__(self) -> str:
        return f"duplicate={percent_text(self.probability)}:{seconds_text(self.delay)}"

    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one."""
        return {"probability": self.probability, "delay": self.delay}


class Rate(Effect):
    """A line that carries so many bits a second, and a queue in front of it that drops what it cannot hold.

    Datagrams are sent one after the other in the order in which they came; each arrives when its last bit has been
    sent. It counts with its IP and UDP headers: 28 bytes beside the payload, 48 with IPv6. What finds more bytes
    ahead of it, unsent, than the queue holds is lost (tail drop); an idle line takes anything. ICMP errors are
    queued and lost as datagrams are, with their own headers.

    Args:
        bits_per_second: From 1 to 100,000,000,000.
        queue_seconds: What may be ahead, as the time that it takes, from 0 to 3,600. By default 0.1, if
            ``queue_bytes`` is not given.
        queue_bytes: What may be ahead, from 0 to 1 GiB.

    Raises:
        EffectError: One of them is out of its range, both are given, or the queue would hold more than 1 GiB.

    Attributes:
        dropped: How many were lost, since the queue was full.
    """

    def __init__(
        self, bits_per_second: float, *, queue_seconds: float | None = None, queue_bytes: int | None = None
    ) -> None:
        self.bits_per_second = checked_number("bits_per_second", bits_per_second, 1.0, 1e11, " bit/s")
        if queue_bytes is None:
            if queue_seconds is None:
                queue_seconds = DEFAULT_QUEUE
            queue_seconds = checked_number("queue_seconds", queue_seconds, 0.0, LONGEST, " seconds")
            self._limit = int(queue_seconds * self.bits_per_second / 8)
        elif queue_seconds is not None:
            raise EffectError("queue_bytes", "and queue_seconds say the same thing: give one of them")
        else:
            self._limit = checked_whole("queue_bytes", queue_bytes, 0, MAX_QUEUE, " bytes")
        if self._limit > MAX_QUEUE:
            raise EffectError(
                "queue_seconds", f"must be at most {MAX_QUEUE * 8 / self.bits_per_second:.3g}: 1 GiB at this rate"
            )
        self.queue_seconds = queue_seconds
        self.queue_bytes = queue_bytes
        self.dropped = 0
        self._free_at = 0.0

    def __call__(self, datagram: Datagram, now: float, _rng: random.Random, /) -> Iterable[Arrival]:
        """Queue it, or lose it where the queue is full."""
        begin = max(now, self._free_at)
        if round((begin - now) * self.bits_per_second / 8) > self._limit:
            self.dropped += 1
            return ()
        delay = delay_until(now, begin + wire_size(datagram) * 8 / self.bits_per_second)
        self._free_at = now + delay
        return (Arrival(datagram, delay),)

    def __str__(self) -> str:
        queue = seconds_text(self.queue_seconds or 0.0) if self.queue_bytes is None else bytes_text(self.queue_bytes)
        return f"rate={bits_text(self.bits_per_second)}:{queue}"

    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one."""
        queue = "queue_seconds" if self.queue_bytes is None else "queue_bytes"
        return {"bits_per_second": self.bits_per_second, queue: getattr(self, queue)}
