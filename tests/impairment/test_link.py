"""A row of effects, and the generators that they draw from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.impairment.links import ASK
from twistedudp.impairment import Arrival, Delay, Link, Loss
from twistedudp.impairment._link import derived_rng

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from twistedudp.impairment import Datagram, LinkEffect


def straight(datagram: Datagram, _now: float, _rng: random.Random) -> Iterable[Arrival]:
    """Pass everything."""
    return [Arrival(datagram)]


class LinkTests(SynchronousTestCase):
    """One direction between two hosts."""

    def draws(self, link: Link) -> dict[str, float]:
        """Return what each effect's generator draws first, by label."""
        return {stage.label: stage.rng.random() for stage in link.stages}

    def test_order(self) -> None:
        """Effects stand in the order in which they were added, and clear() takes all away."""
        link = Link(1, "a > b", 0.0)
        effects: list[LinkEffect] = [Loss(0.1), straight, Delay(1)]
        for effect in effects:
            link.add(effect)
        before = link.stages
        self.assertEqual(link.effects, effects)
        link.clear()
        self.assertEqual(link.effects, [])
        self.assertEqual([stage.effect for stage in before], effects)
        self.assertEqual(list(before[1].effect(ASK, 0.0, before[1].rng)), [Arrival(ASK)])

    def test_labels(self) -> None:
        """An effect is called by its class or function, or as told; the second of a name is numbered."""
        link = Link(1, "a > b", 0.0)
        effects: list[LinkEffect] = [Loss(0.1), Loss(0.1), straight, Loss(0.1)]
        for effect in effects:
            link.add(effect)
        link.add(Delay(1), "Loss")
        self.assertEqual([stage.label for stage in link.stages], ["Loss", "Loss-2", "straight", "Loss-3", "Loss-4"])

    def test_generators(self) -> None:
        """Each effect draws from its own generator, which another effect on the link does not change."""
        alone, beside = Link(1, "a > b", 0.0), Link(1, "a > b", 0.0)
        alone.add(Loss(0.1))
        beside.add(Delay(1))
        beside.add(Loss(0.1))
        draws = self.draws(beside)
        self.assertEqual(self.draws(alone)["Loss"], draws["Loss"])
        self.assertNotEqual(draws["Loss"], draws["Delay"])

    def test_seed_and_name(self) -> None:
        """The seed and all names count, and where one ends."""
        firsts = [
            derived_rng(*names).random() for names in ((1, "a"), (2, "a"), (1, "b"), (1, "a", "b"), (1, "ab"), (1, "a"))
        ]
        self.assertEqual(len(set(firsts)), 5)
        self.assertEqual(firsts[0], firsts[-1])
