"""Following a datagram through chains of rules."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.properties import PROPERTY
from twistedudp.doctor._local_filter import Chain, Does, Hit, Match, Ruleset, Step, passage, told_once

if TYPE_CHECKING:
    from collections.abc import Iterator

YES, PERHAPS, NO = Match.YES, Match.PERHAPS, Match.NO
ACCEPT, DROP, REJECT, JUMP, GOTO, RETURN = (
    Does.ACCEPT, Does.DROP, Does.REJECT, Does.JUMP, Does.GOTO, Does.RETURN,
)  # fmt: skip


def base(*steps: Step, drops: bool = False, hook: str = "input", priority: int = 0, reached: Match = YES) -> Chain:
    """Return a base chain."""
    return Chain("base", list(steps), hook, priority, drops, reached)


def met(*chains: Chain, **others: list[Step]) -> list[tuple[str, bool]]:
    """Return what a datagram meets: texts, and whether it is certain."""
    ruleset = Ruleset(list(chains), {name: Chain(name, steps) for name, steps in others.items()})
    return [(hit.text, hit.certain) for hit in passage(ruleset)]


def step(does: Does, match: Match = YES, target: str = "", *, limited: bool = False) -> Step:
    """Return a step whose text is what it does."""
    return Step(f"{match.name} {does.name}", match, does, target, limited)


class PassageTests(SynchronousTestCase):
    """Verdicts, certain and not."""

    def test_nothing(self) -> None:
        """No rules stop nothing."""
        self.assertEqual([], met(base()))

    def test_first_verdict(self) -> None:
        """The first verdict counts."""
        self.assertEqual([("YES DROP", True)], met(base(step(DROP, NO), step(DROP), step(ACCEPT))))
        self.assertEqual([("YES ACCEPT", True)], met(base(step(ACCEPT), step(DROP), drops=True)))

    def test_policy(self) -> None:
        """What no rule decided falls to the policy."""
        self.assertEqual([("policy drop", True)], met(base(step(ACCEPT, NO), drops=True)))
        self.assertEqual([("policy drop", False)], met(base(step(ACCEPT, PERHAPS), drops=True)))

    def test_perhaps_dropped_before(self) -> None:
        """What is perhaps dropped before is dropped after it for sure."""
        self.assertEqual([("PERHAPS DROP", False), ("YES DROP", True)], met(base(step(DROP, PERHAPS), step(DROP))))

    def test_jump(self) -> None:
        """A chain that is jumped to decides, or returns."""
        self.assertEqual([("YES DROP", True)], met(base(step(JUMP, YES, "a"), step(ACCEPT)), a=[step(DROP)]))
        there_and_back = base(step(JUMP, YES, "a"), step(REJECT))
        self.assertEqual([("YES REJECT", True)], met(there_and_back, a=[step(RETURN), step(DROP)]))
        self.assertEqual([("YES REJECT", True)], met(there_and_back, a=[step(DROP, NO)]))
        self.assertEqual([("YES ACCEPT", True)], met(there_and_back, a=[step(ACCEPT)]))
        self.assertEqual(
            [("YES DROP", False), ("YES REJECT", True)], met(there_and_back, a=[step(RETURN, PERHAPS), step(DROP)])
        )

    def test_perhaps_jump(self) -> None:
        """What is perhaps accepted in a chain is perhaps stopped after it."""
        chain = base(step(JUMP, PERHAPS, "a"), step(DROP))
        self.assertEqual([("YES DROP", False)], met(chain, a=[step(ACCEPT)]))
        self.assertEqual([("YES REJECT", False), ("YES DROP", True)], met(chain, a=[step(REJECT)]))
        to_policy = base(step(JUMP, YES, "a"), drops=True)
        self.assertEqual([("policy drop", False)], met(to_policy, a=[step(ACCEPT, PERHAPS)]))

    def test_goto(self) -> None:
        """A chain that is gone to returns to the policy, not to the next rule."""
        self.assertEqual([("policy drop", True)], met(base(step(GOTO, YES, "a"), step(ACCEPT), drops=True), a=[]))

    def test_perhaps_goto(self) -> None:
        """What perhaps went elsewhere does not meet the next rule for sure."""
        self.assertEqual([("YES DROP", False)], met(base(step(GOTO, PERHAPS, "a"), step(DROP)), a=[]))

    def test_unknown_chain(self) -> None:
        """A chain that is not there is no obstacle."""
        self.assertEqual([("YES DROP", True)], met(base(step(JUMP, YES, "none"), step(DROP))))

    def test_circle(self) -> None:
        """Chains that jump in a circle come to an end, and soon."""
        self.assertEqual([], met(base(step(JUMP, YES, "a")), a=[step(JUMP, YES, "a")] * 3))

    def test_limit(self) -> None:
        """A rule that acts at a rate only is told as such, and so is what stops the rest."""
        (hit,) = passage(Ruleset([base(step(DROP, limited=True))], {}))
        self.assertEqual((False, True, ""), (hit.certain, hit.limited, hit.spared))
        (hit,) = passage(Ruleset([base(step(ACCEPT, limited=True), drops=True)], {}))
        self.assertEqual((False, False, "base: YES ACCEPT"), (hit.certain, hit.limited, hit.spared))
        (hit,) = passage(Ruleset([base(step(ACCEPT, PERHAPS), step(ACCEPT, limited=True), drops=True)], {}))
        self.assertEqual((False, False, ""), (hit.certain, hit.limited, hit.spared))

    def test_order_of_chains(self) -> None:
        """Base chains come by hook, then by priority; what one drops the next does not see."""
        late, early, first = base(step(REJECT), priority=10), base(step(DROP)), base(hook="prerouting", priority=99)
        self.assertEqual([("YES DROP", True)], met(late, early, first))
        first.steps.append(step(ACCEPT))
        self.assertEqual([("YES ACCEPT", True), ("YES DROP", True)], met(late, early, first))

    def test_interface(self) -> None:
        """A chain of one network interface is reached perhaps."""
        self.assertEqual([("YES DROP", False)], met(base(step(DROP), hook="ingress", reached=PERHAPS)))

    def test_told_once(self) -> None:
        """What is met twice is told once."""
        hit = Hit("where", "what", DROP, certain=True)
        self.assertEqual([hit], told_once([hit, hit]))


STEPS = st.lists(
    st.builds(
        Step,
        st.just("rule"),
        st.sampled_from(Match),
        st.sampled_from([ACCEPT, DROP, REJECT, JUMP, GOTO, RETURN]),
        st.sampled_from(["a", "b"]),
        st.booleans(),
    ),
    max_size=4,
)


def worlds(main: Chain, chains: dict[str, Chain]) -> Iterator[bool]:
    """Yield for each way in which doubts may turn out whether a datagram is stopped, without any cleverness."""
    open_steps = [
        id(step)
        for chain in (main, *chains.values())
        for step in chain.steps
        if step.match is PERHAPS or (step.match is YES and step.limited)
    ]
    for outcome in itertools.product((False, True), repeat=len(open_steps)):
        holds = dict(zip(open_steps, outcome, strict=True))

        def run(chain: Chain, holds: dict[int, bool] = holds) -> Does | None:
            for step in chain.steps:
                if step.match is NO or not holds.get(id(step), True):
                    continue
                if step.does in {JUMP, GOTO}:
                    verdict = run(chains[step.target], holds) if step.target in chains else None
                    if verdict is not None:
                        return verdict
                    if step.does is GOTO and step.target in chains:
                        return None
                elif step.does is RETURN:
                    return None
                else:
                    return step.does
            return None

        verdict = run(main)
        yield verdict in {DROP, REJECT} or (verdict is None and main.drops)


class WorldsTests(SynchronousTestCase):
    """The one walk against all the ways in which it may turn out."""

    @PROPERTY
    @given(STEPS, STEPS, STEPS, st.booleans())
    def test_certainty(self, steps: list[Step], first: list[Step], second: list[Step], drops: bool) -> None:
        """What is certain stops it in every case; and where nothing is told, it is stopped in none."""
        # Each step is an object of its own, and chains do not jump in a circle.
        copies = [[Step(*one) for one in chain] for chain in (steps, first, second)]
        copies[1] = [one._replace(target="b") for one in copies[1]]
        copies[2] = [one._replace(target="none") for one in copies[2] if one.does is not GOTO]
        main, chains = base(*copies[0], drops=drops), {"a": Chain("a", copies[1]), "b": Chain("b", copies[2])}
        hits = [hit for hit in passage(Ruleset([main], chains)) if hit.does is not ACCEPT]
        outcomes = set(worlds(main, chains))
        if any(hit.certain for hit in hits):
            self.assertEqual({True}, outcomes)
        if not hits:
            self.assertEqual({False}, outcomes)
