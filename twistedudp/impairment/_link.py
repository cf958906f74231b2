"""The way between two hosts, and what may happen to a datagram on it.

Theory of operation: each direction between two hosts is a :class:`Link` of its own, with a constant delay and a list of
effects that apply one after the other, the one added first nearest to the sender. An effect is a callable that gets a
datagram, the time at which the datagram has come to it, and a generator of its own, and returns what leaves it, each
with a delay: nothing (lost), one, or several. The network calls an effect at the very time at which the datagram is
there, so an effect with a memory, such as a queue, is called in order of time. Each effect's generator is derived from
the network's seed and from the link's and the effect's names, so that adding one effect does not change what another
one draws.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..address import Address
    from ..interfaces import Unreachable

__all__ = ["Arrival", "Datagram", "Link", "LinkEffect", "derived_rng"]


class Datagram(NamedTuple):
    """A datagram on its way; an effect makes a changed one with ``datagram._replace(payload=...)``."""

    source: Address
    """The address that the receiver will see; an effect that plays a NAT replaces it."""
    destination: Address
    """Where it goes; the network looks at it again when the datagram arrives."""
    payload: bytes
    error: Unreachable | None = None
    """Set on an ICMP error: ``destination`` then is who sent what is quoted in ``payload``, and ``source`` the
    address that was not reached."""


class Arrival(NamedTuple):
    """What leaves an effect, and when."""

    datagram: Datagram
    delay: float = 0.0
    """Seconds from the time at which the effect was called."""


class LinkEffect(Protocol):
    """What the network does to datagrams on a link: loss, delay, duplication and so on.

    An effect may keep a memory (burst loss, a queue); then each link needs one of its own. The only randomness it may
    use is the generator that it is given.
    """

    def __call__(self, datagram: Datagram, now: float, rng: random.Random, /) -> Iterable[Arrival]:
        """Say what leaves the effect and when, for a datagram that has come to it.

        Args:
            datagram: What came; an ICMP error where its ``error`` is set.
            now: Seconds from the start, of the simulation or of the relay; never less than at the call before.
            rng: The effect's own generator.

        Returns:
            Nothing if the datagram is lost; otherwise what goes on, the datagram itself or others. An ICMP error that
            the effect makes of a datagram goes back to the sender, along the link of the opposite direction.
        """
        ...


class Stage(NamedTuple):
    """An effect in its place on a link."""

    effect: LinkEffect
    rng: random.Random
    label: str


class Link:
    """One direction between two hosts.

    Attributes:
        delay: Seconds that every datagram takes, after what the effects add.
    """

    def __init__(self, seed: int, name: str, delay: float) -> None:
        self.delay = delay
        self.name = name
        self._seed = seed
        self._stages: tuple[Stage, ...] = ()

    @property
    def effects(self) -> list[LinkEffect]:
        """The effects, the sender's end first."""
        return [stage.effect for stage in self._stages]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The effects with their generators and labels; a new tuple whenever one is added."""
        return self._stages

    def add(self, effect: LinkEffect, label: str = "") -> None:
        """Put an effect at the receiver's end of those that are there; it applies to what is sent from now on.

        Args:
            effect: The effect.
            label: What the trace calls it, and what its generator is derived from; by default the effect's class or
                function name. The second of one label on a link is numbered ``label-2``, and so on.
        """
        base = label or getattr(effect, "__name__", type(effect).__name__)
        taken = {stage.label for stage in self._stages}
        label = next(name for name in _numbered(base) if name not in taken)
        self._stages = (*self._stages, Stage(effect, derived_rng(self._seed, self.name, label), label))

    def clear(self) -> None:
        """Take all effects away; what is under way still meets those that it has not yet passed."""
        self._stages = ()


def _numbered(base: str) -> Iterator[str]:
    yield base
    yield from (f"{base}-{number}" for number in itertools.count(2))


def derived_rng(seed: int, *names: str) -> random.Random:
    """Return a generator that depends on the seed and the names only, on every machine and in every process."""
    # Not hash(): it differs from process to process.
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
    return random.Random(int.from_bytes(digest, "big"))  # noqa: S311  # reproducible on purpose; guards nothing
