"""What every effect does with a seed; prints a digest of it.

Run as ``python -m tests.impairment.scenario SEED``, in processes of its own, to see that the seed alone decides.
"""

from __future__ import annotations

import hashlib
import sys

from tests.impairment.links import ASK, ASK6, BROADCAST, REFUSAL, sized
from twistedudp.impairment import EFFECTS, Link, parse_effects

DATAGRAMS = [ASK, ASK6, BROADCAST, REFUSAL, *(sized(size) for size in (0, 1, 100, 1300))]


def outcomes(seed: int) -> dict[str, str]:
    """Return for each effect, by its name in a text, all that has left it."""
    found = {}
    for name, form in EFFECTS.items():
        for direction, effects in zip(("there", "back"), parse_effects(form.example).make_pair(), strict=True):
            link = Link(seed, f"{name} {direction}", 0.0)
            for effect in effects:
                link.add(effect)
            found[f"{name} {direction}"] = repr(
                [
                    # Not the errno: it differs between platforms.
                    (arrival.delay, *arrival.datagram[:3], arrival.datagram.error and arrival.datagram.error[2:])
                    for number in range(900)
                    for stage in link.stages
                    for arrival in stage.effect(DATAGRAMS[number % len(DATAGRAMS)], number * 0.05, stage.rng)
                ]
            )
    return found


def digest_of(seed: int) -> str:
    """Return one digest over all effects."""
    return hashlib.sha256(repr(sorted(outcomes(seed).items())).encode()).hexdigest()


if __name__ == "__main__":
    sys.stdout.write(digest_of(int(sys.argv[1])))
