"""Effects that lose datagrams: by chance, in bursts, for a time, or with an ICMP error for the sender.

Theory of operation: each looks at nothing but its own state, the time and its generator. All of them but
:class:`PortUnreachable` lose ICMP errors as they lose datagrams.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ._effect import Effect, EffectError, checked_number, checked_probability, quoted
from ._link import Arrival
from ._packets import may_be_refused, port_unreachable
from ._units import percent_text, seconds_text

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

    from ._link import Datagram

__all__ = ["LATEST", "MAX_WINDOWS", "BurstLoss", "Loss", "Partition", "PortUnreachable"]

LATEST: Final = 1e9
"""Seconds from the start: the times of a :class:`Partition` are within 30 years, so that arithmetic stays exact."""

MAX_WINDOWS: Final = 1000
"""Windows of a :class:`Partition`: all are looked at for each datagram."""


class Loss(Effect):
    """Each datagram is lost with the same probability, whatever became of the others.

    ICMP errors are lost as datagrams are.

    Args:
        probability: From 0 to 1.

    Raises:
        EffectError: It is out of its range.
    """

    def __init__(self, probability: float) -> None:
        self.probability = checked_probability("probability", probability)

    def __call__(self, datagram: Datagram, _now: float, rng: random.Random, /) -> Iterable[Arrival]:
        """Lose it, or pass it at once."""
        return () if rng.random() < self.probability else (Arrival(datagram),)

    def __str__(self) -> str:
        return f"loss={percent_text(self.probability)}"

    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one."""
        return {"probability": self.probability}


class BurstLoss(Effect):
    """Datagrams are lost in bursts, as on radio links and full routers (Gilbert 1960, Elliott 1963).

    The link is good or bad. A datagram is lost with the probability of the state that it meets; after each datagram
    the state may change. The first one meets a bad link with the probability that it has in the long run, so each
    datagram, also the first, is lost with the probability :attr:`mean_loss`. Time plays no part.
    ICMP errors are lost, and move the state, as datagrams do.

    Say ``BurstLoss.from_means(loss=0.05, burst=4)`` for 5 % loss in bursts of 4.

    Args:
        enter: The probability that a good link is bad for the next datagram (p in the literature), from 0 to 1.
        leave: The probability that a bad link is good for the next datagram (r), above 0, up to 1.
        loss_in_good: The probability of loss while the link is good (1 - k).
        loss_in_bad: The probability of loss while it is bad (1 - h).

    Raises:
        EffectError: One of them is out of its range.
    """

    def __init__(self, enter: float, leave: float, loss_in_good: float = 0.0, loss_in_bad: float = 1.0) -> None:
        self.enter = checked_probability("enter", enter)
        self.leave = checked_probability("leave", leave, above=True)
        self.loss_in_good = checked_probability("loss_in_good", loss_in_good)
        self.loss_in_bad = checked_probability("loss_in_bad", loss_in_bad)
        self._bad: bool | None = None  # drawn for the first datagram

    @classmethod
    def from_means(cls, loss: float, burst: float) -> BurstLoss:
        """Return the simple case: a good link loses nothing, a bad one everything.

        Args:
            loss: The share of datagrams lost in the long run, from 0; below 1.
            burst: The mean number of datagrams lost in a row, at least 1. Losses that are frequent must come in long
                bursts: the share can be at most burst / (burst + 1), where just one datagram passes between two bursts.

        Raises:
            EffectError: One of them is out of its range.
        """
        burst = checked_number("burst", burst, 1.0, 1e6, " datagrams")
        loss = checked_probability("loss", loss)
        if loss > burst / (burst + 1):
            raise EffectError(
                "loss",
                f"can be at most {burst / (burst + 1):.4g} in bursts of {burst:g}, since at least one datagram passes "
                f"between two bursts; not {loss!r}",
            )
        # min(): loss / (1 - loss) / burst may be a rounding above 1 where it is just allowed.
        return cls(min(loss / (1 - loss) / burst, 1.0), 1 / burst)

    @property
    def mean_loss(self) -> float:
        """The share of datagrams that is lost in the long run."""
        bad = self._share_bad
        return bad * self.loss_in_bad + (1 - bad) * self.loss_in_good

    @property
    def mean_burst(self) -> float:
        """The mean number of datagrams in a row that meet a bad link; all are lost if ``loss_in_bad`` is 1."""
        return 1 / self.leave

    @property
    def _share_bad(self) -> float:
        return self.enter / (self.enter + self.leave)

    def __call__(self, datagram: Datagram, _now: float, rng: random.Random, /) -> Iterable[Arrival]:
        """Lose it, or pass it at once, and let the state change."""
        if self._bad is None:
            self._bad = rng.random() < self._share_bad
        lost = rng.random() < (self.loss_in_bad if self._bad else self.loss_in_good)
        if rng.random() < (self.leave if self._bad else self.enter):
            self._bad = not self._bad
        return () if lost else (Arrival(datagram),)

    def __str__(self) -> str:
        return "gilbert=" + ":".join(map(percent_text, (self.enter, self.leave, self.loss_in_good, self.loss_in_bad)))

    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one."""
        return {
            "enter": self.enter,
            "leave": self.leave,
            "loss_in_good": self.loss_in_good,
            "loss_in_bad": self.loss_in_bad,
        }


class Partition(Effect):
    """Everything is lost at certain times, or from :meth:`cut` to :meth:`heal`; the sender is not told.

    The three ways add up: a datagram is lost if any of them says so. Times count from the start, of the simulation or
    of the relay. A window or a dark time includes its first moment and not its last. What has passed the effect when a
    window begins arrives. ICMP errors are lost as datagrams are. An object may stand on several links, to cut all
    of them at once.

    Args:
        windows: Pairs ``(begin, end)`` in seconds; ``end`` may be ``math.inf``. At most 1,000.
        dark: Seconds of each period in which everything is lost, first; 0 for no periods.
        light: Seconds of each period in which everything passes, then; above 0 if ``dark`` is.
        start: Seconds until the first period.
        cut: Whether it is cut by hand at first.

    Raises:
        EffectError: One of them is out of its range.
    """

    def __init__(
        self,
        windows: Sequence[tuple[float, float]] = (),
        *,
        dark: float = 0.0,
        light: float = 0.0,
        start: float = 0.0,
        cut: bool = False,
    ) -> None:
        if len(windows) > MAX_WINDOWS:
            raise EffectError("windows", f"must be at most {MAX_WINDOWS:,}, not {len(windows):,}")
        self.windows = tuple(map(_checked_window, windows))
        self.dark = checked_number("dark", dark, 0.0, LATEST, " seconds")
        self.light = checked_number("light", light, 0.0, LATEST, " seconds", above=self.dark > 0)
        if self.light and not self.dark:
            raise EffectError("light", "needs dark as well, the seconds of each period in which everything is lost")
        self.start = checked_number("start", start, 0.0, LATEST, " seconds")
        if self.start and not self.dark:
            raise EffectError("start", "needs dark as well, the seconds of each period in which everything is lost")
        self.is_cut = cut

    def cut(self) -> None:
        """Lose everything from now on."""
        self.is_cut = True

    def heal(self) -> None:
        """Take back :meth:`cut`; windows and periods go on."""
        self.is_cut = False

    def blocks(self, now: float) -> bool:
        """Tell whether what comes at a time is lost.

        Args:
            now: Seconds from the start.
        """
        if self.is_cut or any(begin <= now < end for begin, end in self.windows):
            return True
        return bool(self.dark) and now >= self.start and (now - self.start) % (self.dark + self.light) < self.dark

    def __call__(self, datagram: Datagram, now: float, _rng: random.Random, /) -> Iterable[Arrival]:
        """Lose it, or pass it at once."""
        return () if self.blocks(now) else (Arrival(datagram),)

    def __str__(self) -> str:
        parts = [f"{seconds_text(begin)}-{'' if math.isinf(end) else seconds_text(end)}" for begin, end in self.windows]
        if self.dark:
            start = f"@{seconds_text(self.start)}" if self.start else ""
            parts.append(f"{seconds_text(self.dark)}/{seconds_text(self.light)}{start}")
        if self.is_cut or not parts:
            parts.append("on" if self.is_cut else "off")
        return "partition=" + ":".join(parts)

    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one."""
        return {
            "windows": self.windows,
            "dark": self.dark,
            "light": self.light,
            "start": self.start,
            "cut": self.is_cut,
        }


class PortUnreachable(Effect):
    """Datagrams are refused as if nobody listened: lost, and the sender gets an ICMP port-unreachable.

    The error goes back along the opposite link, quotes the first 520 bytes of payload (1,184 with IPv6) and names the
    destination as its reporter. ICMP errors and datagrams to groups pass, since nothing may be refused about them.

    Args:
        probability: From 0 to 1.

    Raises:
        EffectError: It is out of its range.
    """

    def __init__(self, probability: float) -> None:
        self.probability = checked_probability("probability", probability)

    def __call__(self, datagram: Datagram, _now: float, rng: random.Random, /) -> Iterable[Arrival]:
        """Refuse it, or pass it at once."""
        if rng.random() < self.probability and may_be_refused(datagram):
            return (Arrival(port_unreachable(datagram)),)
        return (Arrival(datagram),)

    def __str__(self) -> str:
        return f"unreachable={percent_text(self.probability)}"

    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one."""
        return {"probability": self.probability}


def _checked_window(window: tuple[float, float]) -> tuple[float, float]:
    try:
        begin, end = window
    except (TypeError, ValueError):
        raise EffectError("windows", f"must be pairs (begin, end) in seconds, not {quoted(window)}") from None
    begin = checked_number("windows: begin", begin, 0.0, LATEST, " seconds")
    return begin, checked_number("windows: end", end, begin, math.inf, " seconds", above=True)
