"""What all link effects have in common: how they are checked, shown and written.

Theory of operation: an effect is an object that is called with a datagram. Its arguments are checked when it is made,
so that a mistake shows where it was made and not in the middle of a run. ``repr()`` shows it as Python, ``str()`` in
the text form that :func:`parse_effects` reads; both name every argument's value exactly.
"""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, Final

from ..errors import LocalError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from ._link import Arrival, Datagram

__all__ = [
    "LONGEST",
    "Effect",
    "EffectError",
    "checked_number",
    "checked_probability",
    "checked_whole",
    "delay_until",
    "quoted",
]

LONGEST: Final = 3600.0
"""Seconds that an effect may hold a datagram back: far beyond any request's deadline, and a bound on what is held."""

_QUOTED: Final = 60
"""Characters of what was given, in an error."""


class EffectError(LocalError, ValueError):
    """An effect that cannot be: an argument out of its range, or a text that names none.

    Attributes:
        parameter: The name of the argument at fault; of a text, the part of it.
    """

    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(f"{parameter} {problem}")
        self.parameter = parameter


class Effect(abc.ABC):
    """The base of the effects here. Write your own as any callable that fits :class:`LinkEffect`."""

    @abc.abstractmethod
    def __call__(self, datagram: Datagram, now: float, rng: random.Random, /) -> Iterable[Arrival]:
        """Say what leaves the effect and when; see :class:`LinkEffect`."""
        ...

    @abc.abstractmethod
    def __str__(self) -> str:
        """Return the text form, from which :func:`parse_effects` makes an equal effect."""
        ...

    @abc.abstractmethod
    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one: name to value."""
        ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.arguments().items())})"


def checked_number(
    parameter: str, value: object, least: float, most: float, unit: str, *, above: bool = False
) -> float:
    """Return a number if it is in its range.

    Args:
        parameter: What the error calls it.
        value: What was given.
        least: The least that is allowed; with ``above`` the greatest that is too small.
        most: The greatest that is allowed.
        unit: What the error calls its unit, with a space before it; may be empty.
        above: Whether ``least`` itself is too small.

    Raises:
        EffectError: It is not in the range, or no number.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and (least < value if above else least <= value) and value <= most:  # type: ignore[operator]  # a number
        return float(value)  # type: ignore[arg-type]  # a number, see above
    lower = f"above {least:,g} and at most" if above else f"a number from {least:,g} to"
    raise EffectError(parameter, f"must be {lower} {most:,.12g}{unit}, not {quoted(value)}")


def checked_probability(parameter: str, value: object, *, most: float = 1.0, above: bool = False) -> float:
    """Return a probability if it is one; see :func:`checked_number`."""
    return checked_number(parameter, value, 0.0, most, f" ({most:.0%})", above=above)


def checked_whole(parameter: str, value: object, least: int, most: int, unit: str) -> int:
    """Return a whole number if it is in its range; see :func:`checked_number`."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise EffectError(parameter, f"must be a whole number from {least:,} to {most:,}{unit}, not {quoted(value)}")


def quoted(value: object) -> str:
    """Return what was given as an error shows it: in one line, and not a page."""
    text = repr(value)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."


def delay_until(now: float, moment: float) -> float:
    """Return the delay after which it is ``moment`` and no earlier, whatever the rounding.

    Args:
        now: Seconds, not negative.
        moment: Seconds, not before ``now``.
    """
    delay = moment - now
    while now + delay < moment:
        delay += math.ulp(moment)
    return delay
