"""Effects as text, for command lines and configuration files.

Theory of operation: a text is a list of terms with commas between them, ``name=value``, and each term makes one effect
(``delay=20ms±5ms`` makes two) in the order in which it stands, the sender's end first. A value has its parts between
colons; those in brackets in :data:`EFFECTS` may be left out. ``seed=NUMBER`` may stand anywhere, once. Spaces around
terms and the case of letters do not matter.

- A probability is ``5%`` or ``0.05``.
- A time has its unit: ``us``, ``ms``, ``s``, ``min``.
- A rate has its unit: ``bit``, ``kbit``, ``mbit``, ``gbit`` (1,000 of each other), ``/s`` may follow.
- A size is in bytes, or has its unit: ``B``, ``kB`` (1,000), ``KiB`` (1,024), ``MB``, ``MiB``.
- ``±`` may be written ``+-``.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ._effect import Effect, EffectError, quoted
from ._loss import BurstLoss, Loss, Partition, PortUnreachable
from ._nat import NATRebinding
from ._payload import MTU, Corrupt, Truncate
from ._timing import Delay, Duplicate, Jitter, Rate, Reorder
from ._units import (
    is_time,
    parse_bits,
    parse_bytes,
    parse_number,
    parse_percent,
    parse_seconds,
    parse_whole,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._link import LinkEffect

__all__ = ["EFFECTS", "MAX_SEED", "EffectForm", "ParsedEffects", "format_effects", "parse_effects"]

MAX_SEED: Final = 2**64 - 1
"""The largest seed in a text."""

_Make = Callable[[], Effect]


class EffectForm(NamedTuple):
    """How an effect is written."""

    form: str
    """The form, with what may be left out in brackets."""
    meaning: str
    """What it does, in one line."""
    example: str
    """A term that can be used as it stands."""


EFFECTS: Final[Mapping[str, EffectForm]] = MappingProxyType(
    {
        "loss": EffectForm("loss=PROBABILITY", "lose datagrams, each by itself", "loss=5%"),
        "burst": EffectForm("burst=LOSS:LENGTH", "lose this share, in bursts of this mean length", "burst=5%:4"),
        "gilbert": EffectForm(
            "gilbert=ENTER:LEAVE[:LOSS_IN_GOOD[:LOSS_IN_BAD]]",
            "lose in bursts: probabilities to enter and leave the bad state, and of loss in each",
            "gilbert=1%:25%",
        ),
        "delay": EffectForm(
            "delay=TIME[±TIME[:ordered]]",
            "delay by a time, evenly spread around it with ±; ordered: nothing overtakes",
            "delay=20ms±5ms",
        ),
        "jitter": EffectForm("jitter=TIME[:ordered]", "delay by a random time up to this", "jitter=10ms"),
        "duplicate": EffectForm(
            "duplicate=PROBABILITY[:TIME]", "send twice, the second later by a time", "duplicate=1%:10ms"
        ),
        "reorder": EffectForm(
            "reorder=PROBABILITY[:TIME]", "hold back for a time (100ms), so that others overtake", "reorder=2%:50ms"
        ),
        "corrupt": EffectForm("corrupt=PROBABILITY[:BITS]", "flip bits (1) of the payload", "corrupt=0.1%:2"),
        "truncate": EffectForm(
            "truncate=PROBABILITY[:SIZE]", "cut the payload to a size, or at random", "truncate=1%:100B"
        ),
        "mtu": EffectForm(
            "mtu=SIZE[:icmp]", "lose packets larger than this; icmp: and tell the sender", "mtu=1280:icmp"
        ),
        "rate": EffectForm(
            "rate=RATE[:TIME or SIZE]", "send at this rate, with a queue (100ms) that drops", "rate=1mbit:64kB"
        ),
        "partition": EffectForm(
            "partition=FROM-[TO] or DARK/LIGHT[@START] or on or off, several with colons",
            "lose everything at these times, or in the first part of each period",
            "partition=5s/2s@10s",
        ),
        "unreachable": EffectForm(
            "unreachable=PROBABILITY", "refuse with an ICMP port-unreachable for the sender", "unreachable=1%"
        ),
        "nat": EffectForm(
            "nat=TIME or never[:HOST]", "change the client's port as a NAT that forgets after a time", "nat=30s"
        ),
        "seed": EffectForm("seed=NUMBER", "repeat the same run: what all chance is derived from", "seed=7"),
    }
)
"""All that a text may contain: name to form, meaning and example. ``seed`` is no effect, but stands among them."""


@dataclass(frozen=True)
class ParsedEffects:
    """What a text says.

    Effects have memory, so each direction of each pair of hosts needs effects of its own: :meth:`make_pair` for each
    pair, or :meth:`make` for each direction. ``str()`` gives the text, tidied up.
    """

    terms: tuple[str, ...]
    """The terms of the effects, in order."""
    seed: int | None
    """The seed, or ``None`` if the text has none."""
    factories: tuple[_Make, ...]
    """What makes the effects, in order."""

    def make(self) -> list[LinkEffect]:
        """Return new effects for one direction.

        Raises:
            EffectError: The text has ``nat``, which needs both directions.
        """
        effects = [make() for make in self.factories]
        if any(isinstance(effect, NATRebinding) for effect in effects):
            raise EffectError("nat", "works on both directions of a link at once: make_pair() makes them together")
        return list(effects)

    def make_pair(self) -> tuple[list[LinkEffect], list[LinkEffect]]:
        """Return new effects for both directions: from the client to the server, and back.

        The same row stands in both, each direction with its own memory, so that ``loss=5%`` is 5 % each way. A NAT is
        one for both: its inbound part has its place on the way back.
        """
        there: list[LinkEffect] = []
        back: list[LinkEffect] = []
        for make in self.factories:
            effect = make()
            there.append(effect)
            back.append(effect.inbound if isinstance(effect, NATRebinding) else make())
        return there, back

    def __str__(self) -> str:
        return ",".join((*self.terms, *(() if self.seed is None else (f"seed={self.seed}",))))


def parse_effects(text: str) -> ParsedEffects:
    """Read effects, such as ``loss=5%,delay=20ms±5ms,duplicate=1%,seed=7``; see :data:`EFFECTS` for all of them.

    Args:
        text: The effects; an empty text has none.

    Raises:
        EffectError: One of the terms is wrong; the message says which, why, and how it would be right, in one line.
    """
    terms: list[str] = []
    factories: list[_Make] = []
    seed: int | None = None
    for raw in text.split(",") if text.strip() else ():
        term = raw.strip().replace("+-", "±")
        name, _, value = (part.strip() for part in term.partition("="))
        name = name.lower()
        form = _form(name, term)
        try:
            if name == "seed":
                seed = _seed(value, seed)
            else:
                made = _READERS[name](value)
                for make in made:
                    make()  # so that what is out of range is told now
                factories += made
                terms.append(f"{name}={''.join(value.split())}")
        except EffectError as error:
            raise EffectError(_shown(term), f"cannot be: {error} (for example {form.example})") from None
    return ParsedEffects(tuple(terms), seed, tuple(factories))


def format_effects(effects: Iterable[LinkEffect], seed: int | None = None) -> str:
    """Write effects as a text from which :func:`parse_effects` makes equal ones.

    Args:
        effects: Effects of this package; :attr:`NATRebinding.inbound` has no form of its own.
        seed: The seed to add.

    Raises:
        EffectError: One of them is another callable, which has no text form.
    """
    terms = []
    for effect in effects:
        if not isinstance(effect, Effect):
            raise EffectError(quoted(effect), "has no text form: only the effects that parse_effects() knows have one")
        terms.append(str(effect))
    return ",".join((*terms, *(() if seed is None else (f"seed={seed}",))))


def _form(name: str, term: str) -> EffectForm:
    if not term:
        raise EffectError("effects", f"have nothing between two commas, or at an end (for example {_EXAMPLE})")
    try:
        return EFFECTS[name]
    except KeyError:
        near = difflib.get_close_matches(name[:20], EFFECTS, 1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(EFFECTS)}"
        raise EffectError(_shown(term), f"names no effect: {advice} (for example {_EXAMPLE})") from None


def _shown(term: str) -> str:
    return term if term.isprintable() and len(term) <= 60 else quoted(term)


def _seed(value: str, before: int | None) -> int:
    if before is not None:
        raise EffectError("seed", "can be given once only")
    # Not through Decimal alone: int() would take signs, underscores and other digits.
    seed = parse_whole(value)
    if seed > MAX_SEED:
        raise EffectError("seed", f"must be a whole number from 0 to {MAX_SEED:,}")
    return seed


def _parts(value: str, least: int, most: int) -> list[str]:
    parts = [part.strip() for part in value.split(":")]
    if not value or len(parts) < least:
        raise EffectError("it", "lacks a value" if least == 1 else f"needs {least} values with a colon between them")
    if len(parts) > most:
        raise EffectError("it", f"has {len(parts)} values, at most {most} can be")
    return parts


def _plain(make: Callable[..., Effect], *readers: Callable[[str], Any], needs: int = 1) -> Callable[[str], list[_Make]]:
    """Return the reader of an effect whose values are its arguments, in order."""

    def read(value: str) -> list[_Make]:
        parts = _parts(value, needs, len(readers))
        return [functools.partial(make, *(reader(part) for reader, part in zip(readers, parts, strict=False)))]

    return read


def _word(word: str) -> Callable[[str], bool]:
    def read(value: str) -> bool:
        if value.lower() != word:
            raise EffectError(quoted(value), f"is not the word {word}")
        return True

    return read


def _seconds(value: str) -> float:
    return float(parse_seconds(value))


def _delay(value: str) -> list[_Make]:
    middle, spread, half = value.partition("±")
    if not spread:
        return [functools.partial(Delay, *map(_seconds, _parts(value, 1, 1)))]
    center = parse_seconds(middle)
    half, *ordered = _parts(half, 1, 2)
    around = parse_seconds(half)
    if around > center:
        raise EffectError(f"±{_shown(half)}", f"is more than {_shown(middle)}, and nothing arrives before it was sent")
    keep_order = bool(list(map(_word("ordered"), ordered)))
    return [
        functools.partial(Delay, float(center - around)),
        functools.partial(Jitter, float(2 * around), keep_order),
    ]


def _rate(value: str) -> list[_Make]:
    rate, *queue = _parts(value, 1, 2)
    bits = parse_bits(rate)
    if not queue:
        return [functools.partial(Rate, bits)]
    if is_time(queue[0]):
        return [functools.partial(Rate, bits, queue_seconds=_seconds(queue[0]))]
    return [functools.partial(Rate, bits, queue_bytes=parse_bytes(queue[0]))]


def _partition(value: str) -> list[_Make]:
    windows: list[tuple[float, float]] = []
    arguments: dict[str, float] = {}
    cut = False
    for part in _parts(value, 1, 10_000):
        first, window, last = part.partition("-")
        dark, period, rest = part.partition("/")
        if part.lower() in ("on", "off"):
            cut = part.lower() == "on"
        elif window:
            windows.append((_seconds(first), _seconds(last) if last.strip() else float("inf")))
        elif period and not arguments:
            light, _, start = rest.partition("@")
            arguments = {"dark": _seconds(dark), "light": _seconds(light), "start": _seconds(start or "0s")}
        elif period:
            raise EffectError(quoted(part), "is a second DARK/LIGHT, there can be one only")
        else:
            raise EffectError(quoted(part), "is none of FROM-TO, FROM-, DARK/LIGHT, on and off")
    return [functools.partial(Partition, windows, cut=cut, **arguments)]


def _nat(value: str) -> list[_Make]:
    time, _, host = value.partition(":")  # an IPv6 address has colons of its own
    (time,) = _parts(time, 1, 1)
    return [functools.partial(NATRebinding, None if time.lower() == "never" else _seconds(time), host.strip())]


_EXAMPLE: Final = "loss=5%,delay=20ms±5ms,duplicate=1%,seed=7"

_READERS: Final[Mapping[str, Callable[[str], list[_Make]]]] = {
    "loss": _plain(Loss, parse_percent),
    "burst": _plain(BurstLoss.from_means, parse_percent, parse_number, needs=2),
    "gilbert": _plain(BurstLoss, *[parse_percent] * 4, needs=2),
    "delay": _delay,
    "jitter": _plain(Jitter, _seconds, _word("ordered")),
    "duplicate": _plain(Duplicate, parse_percent, _seconds),
    "reorder": _plain(Reorder, parse_percent, _seconds),
    "corrupt": _plain(Corrupt, parse_percent, parse_whole),
    "truncate": _plain(Truncate, parse_percent, parse_bytes),
    "mtu": _plain(MTU, parse_bytes, _word("icmp")),
    "rate": _rate,
    "partition": _partition,
    "unreachable": _plain(PortUnreachable, parse_percent),
    "nat": _nat,
}
