"""The links between hosts, and what a test says about their faults, made into effects for both directions.

Theory of operation: a link is made when it is first asked for, together with the one back, for some effects of the two
belong together. Effects have memories, so no two directions of no two links may share one, and whoever describes a
network's faults must give a recipe instead of effects: a callable, or the text that ``parse_effects()`` and ``twistd
udpimpair`` understand. The recipe is checked when a test gives it, since its first use is inside of ``write()``.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, TypeAlias

from ..impairment import NATRebinding, parse_effects
from ..impairment._link import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..impairment._link import LinkEffect
    from ._host import Host

__all__ = ["Effects", "Links", "effect_pairs"]

Effects: TypeAlias = "str | Callable[[], Iterable[LinkEffect]]"
"""A text for :func:`twistedudp.impairment.parse_effects`, or what returns new effects for one direction of a link."""

Pairs: TypeAlias = "Callable[[], tuple[Iterable[LinkEffect], Iterable[LinkEffect]]]"
"""What returns new effects for one direction between two hosts, and for the other."""


def effect_pairs(effects: Effects | None, seed: int | None) -> tuple[Pairs, int]:
    """Return what makes the effects of both directions between two hosts, and the seed.

    Args:
        effects: What the test says; ``None`` for no effects.
        seed: The seed that was given; ``None`` if there was none.

    Raises:
        twistedudp.impairment.EffectError: The text is wrong.
        ValueError: The text has a seed, and another one was given.
        TypeError: It is neither a text nor callable without arguments.
    """
    if effects is None:
        return lambda: ((), ()), seed or 0
    if not isinstance(effects, str):
        make = _checked(effects)
        return lambda: (make(), make()), seed or 0
    parsed = parse_effects(effects)
    if None not in (seed, parsed.seed) and seed != parsed.seed:
        raise ValueError(f"there are two seeds, {seed} and the effects' {parsed.seed}; leave one of them out")
    return parsed.make_pair, seed or parsed.seed or 0


class Links:
    """The links of a network, one for each direction between two hosts, and one from each host to itself.

    Args:
        seed: What the effects' generators are derived from.
        delay: Seconds that a new link takes.
        pairs: What makes the effects of new links.
    """

    def __init__(self, seed: int, delay: float, pairs: Pairs) -> None:
        self._seed = seed
        self._delay = delay
        self._pairs = pairs
        self._links: dict[tuple[str, str], Link] = {}

    def between(self, source: Host, destination: Host) -> Link:
        """Return the link from one host to another."""
        link = self._links.get((source.name, destination.name))
        if link is None:
            for one, other in ((source.name, destination.name), (destination.name, source.name)):
                self._links[one, other] = Link(self._seed, f"{one} > {other}", self._delay)
            self.impair(source, destination, self._pairs)
            link = self._links[source.name, destination.name]
        return link

    def impair(self, one: Host, other: Host, pairs: Pairs) -> None:
        """Add effects to both directions between two hosts; those of ``one``, there, are on the inside of a NAT."""
        there, back = pairs()
        if one is other:
            # A host's own link has one direction, and nothing on it is inside or outside.
            there, back = [effect for effect in there if not isinstance(effect, NATRebinding)], ()
        for effect in there:
            self.between(one, other).add(effect)
        for effect in back:
            self.between(other, one).add(effect)


def _checked(effects: Callable[[], Iterable[LinkEffect]]) -> Callable[[], Iterable[LinkEffect]]:
    try:
        inspect.signature(effects).bind()
    except TypeError:
        raise TypeError(
            f"effects must be a text, or a callable without arguments that returns new effects for each link, such as "
            f"lambda: [Loss(0.3)]; not {effects!r}"
        ) from None
    except ValueError:  # something built in, whose arguments nobody knows
        pass
    return effects
