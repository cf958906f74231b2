"""Faults for all links of a network, and for pairs of hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.testing.protocols import Echo, Recorder
from twistedudp.impairment import Delay, Duplicate, EffectError, Loss, NATRebinding, Partition
from twistedudp.testing import SimulatedNetwork

if TYPE_CHECKING:
    from twistedudp.testing import LinkEffect

A = "192.0.2.1"
B = "192.0.2.2"
C = "192.0.2.3"


def network(effects: object, seed: int | None = None) -> SimulatedNetwork:
    """Return a network of three hosts with effects."""
    made = SimulatedNetwork(seed, effects=effects)  # type: ignore[arg-type]  # wrong ones as well
    for address in (A, B, C):
        made.reactor(address)
    return made


class NetworkEffectsTests(SynchronousTestCase):
    """Effects on every link that is made."""

    def test_fresh_for_every_link(self) -> None:
        """A callable is called once for each direction of each link, also a host's own."""
        made: list[LinkEffect] = []

        def effects() -> list[LinkEffect]:
            made.append(Loss(0.5))
            return made[-1:]

        hosts = network(effects)
        links = [hosts.link(A, B), hosts.link(B, A), hosts.link(A, C), hosts.link(A, B), hosts.link(A, A)]
        self.assertEqual(len(made) - 2, len({id(effect) for link in links for effect in link.effects}))
        self.assertEqual([len(link.effects) for link in links], [1] * 5)

    def test_text(self) -> None:
        """A text makes the effects that it names, in order, in both directions."""
        hosts = network("loss=5%,delay=20ms")
        for link in hosts.links(A, B):
            self.assertEqual([str(effect) for effect in link.effects], ["loss=5%", "delay=20ms"])
        self.assertIsNot(hosts.link(A, B).effects[0], hosts.link(B, A).effects[0])

    def test_bad_text(self) -> None:
        """A text that is wrong is refused when the network is made."""
        self.assertRaises(EffectError, network, "loss=200%")

    def test_seed_in_text(self) -> None:
        """The seed in a text is the network's, if no other one is given."""
        self.assertEqual(network("loss=5%,seed=7").seed, 7)
        self.assertEqual(network("loss=5%,seed=7", 7).seed, 7)
        self.assertEqual(network("loss=5%", 3).seed, 3)
        self.assertEqual((network("loss=5%").seed, SimulatedNetwork().seed), (0, 0))
        error = self.assertRaises(ValueError, network, "loss=5%,seed=7", 0)
        self.assertIn("two seeds, 0 and the effects' 7", str(error))

    def test_effects_instead_of_a_recipe(self) -> None:
        """A list of effects, or one effect, which links would share, is refused with an example of what is right."""
        for wrong in ([Loss(0.5)], Loss(0.5), 5):
            error = self.assertRaises(TypeError, network, wrong)
            self.assertIn("lambda: [Loss(0.3)]", str(error))

    def test_built_in(self) -> None:
        """A callable whose arguments nobody can tell is taken as it is."""
        self.assertEqual(network(dict).link(A, B).effects, [])

    def test_they_work(self) -> None:
        """What is sent meets them, there and back."""
        hosts = SimulatedNetwork(delay=0.25, effects=lambda: [Delay(0.5)])
        here, there = hosts.reactor(A), hosts.reactor(B)
        there.listenUDP(7, Echo())
        recorder = Recorder(here)
        here.listenUDP(9, recorder).write(b"x", (B, 7))
        hosts.run_until_idle()
        self.assertEqual([time for time, *_ in recorder.received], [1.5])

    def test_nat(self) -> None:
        """With a NAT in the text, the host that sends first is inside; its peer's answers come back to it."""
        hosts = SimulatedNetwork(effects="nat=1s")
        here, there = hosts.reactor(A), hosts.reactor(B)
        there.listenUDP(7, Echo())
        recorder = Recorder(here)
        port = here.listenUDP(9, recorder)
        for _ in range(2):
            port.write(b"x", (B, 7))
            hosts.advance(2)
        self.assertEqual(len(recorder.received), 2)
        sources = [record.source for record in hosts.trace if record.sender == A]
        self.assertEqual(len({*sources, (A, 9)}), 3)

    def test_nat_to_itself(self) -> None:
        """On a host's own link there is no NAT."""
        hosts = network("nat=1s,loss=5%")
        self.assertEqual([type(effect) for effect in hosts.link(A, A).effects], [Loss])
        self.assertIsInstance(hosts.link(B, C).effects[0], NATRebinding)


class PairTests(SynchronousTestCase):
    """Links of two hosts."""

    def test_links(self) -> None:
        """Both directions at once, there and back."""
        hosts = network(None)
        self.assertEqual(hosts.links(A, B), (hosts.link(A, B), hosts.link(B, A)))

    def test_impair(self) -> None:
        """A pair's effects come behind the network's, new ones in each direction, on no other link."""
        hosts = network(lambda: [Duplicate(0.1)], 5)
        hosts.impair(A, B, lambda: [Partition(cut=True)])
        hosts.impair(A, B, "loss=5%,seed=5")
        for link in hosts.links(A, B):
            self.assertEqual([type(effect) for effect in link.effects], [Duplicate, Partition, Loss])
        self.assertEqual([type(effect) for effect in hosts.link(A, C).effects], [Duplicate])
        there, back = hosts.links(A, B)
        self.assertIsNot(there.effects[1], back.effects[1])

    def test_impair_refuses(self) -> None:
        """Another seed, a host that is none, and a text that is wrong are errors."""
        hosts = network(None, 5)
        self.assertRaises(ValueError, hosts.impair, A, B, "loss=5%,seed=6")
        self.assertRaises(ValueError, hosts.impair, A, "192.0.2.99", "loss=5%")
        self.assertRaises(EffectError, hosts.impair, A, B, "lass=5%")
        self.assertEqual(hosts.link(A, B).effects, [])

    def test_nat_inside(self) -> None:
        """The first of a pair is inside of its NAT."""
        hosts = network(None)
        hosts.impair(B, A, "nat=never")
        self.assertIsInstance(hosts.link(B, A).effects[0], NATRebinding)
        self.assertNotIsInstance(hosts.link(A, B).effects[0], NATRebinding)
