"""What a packet filter does with the datagrams for a port, whatever language its rules were written in.

Theory of operation: nftables and iptables both have base chains, which the kernel passes a datagram through in the
order of their hooks and priorities, and chains that rules jump to. Each rule becomes :class:`Step` objects: whether it
matches a datagram from a stranger to the port (for sure, perhaps, or not), and what it does then. :func:`passage`
follows that datagram and notes each step that stops it or sends it elsewhere. A rule may depend on what cannot be known
here: the sender's address, the network interface, a mark. Then it matches *perhaps*; and after a rule that perhaps
accepts, whatever would drop drops perhaps. That is an approximation, and it is told as such.

The walk is bounded: chains that jump in a circle, which no kernel has but a text may, come to an end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["HOOKS", "Chain", "Datagram", "Does", "Hit", "Match", "Ruleset", "Step", "passage", "told_once"]

DEEPEST: Final = 16
"""Jumps inside of jumps that are followed: the kernel follows as many (``NFT_JUMP_STACK_SIZE``)."""

MOST_STEPS: Final = 200_000
"""Steps that are looked at for one datagram: a second's work, and more than a sane set of rules has."""

HOOKS: Final = ("ingress", "prerouting", "input")
"""Where the kernel asks rules about a datagram for this machine, in the order of its way (nft(8))."""


class Datagram(NamedTuple):
    """The datagram that is followed: the first from some stranger to the port."""

    ipv6: bool
    port: int
    """Its destination port."""
    host: str
    """Its destination, a numeric address; empty if it may be any of this machine's."""
    looped: bool
    """Whether it comes from this machine itself, through the loopback interface."""


class Match(IntEnum):
    """Whether a rule's conditions hold; ``min`` is "and", ``max`` is "or"."""

    NO = 0
    PERHAPS = 1
    YES = 2

    def inverted(self) -> Match:
        """Return whether the opposite holds."""
        return Match(Match.YES - self)


class Does(Enum):
    """What a rule does with what it matches."""

    ACCEPT = "accepts"
    DROP = "drops"
    REJECT = "rejects"
    ELSEWHERE = "sends elsewhere"
    UNKNOWN = "does something unknown with"
    JUMP = "jumps"
    GOTO = "goes to"
    RETURN = "returns"


_STOPS: Final = frozenset({Does.DROP, Does.REJECT, Does.ELSEWHERE, Does.UNKNOWN})


class Step(NamedTuple):
    """One rule, or one branch of a rule that has several, as far as one datagram is concerned."""

    text: str
    """The rule as its own tool writes it."""
    match: Match
    does: Does
    target: str = ""
    """The chain, for a jump."""
    limited: bool = False
    """Whether it acts at a certain rate only, or above it only."""


@dataclass(frozen=True)
class Chain:
    """A chain of rules.

    Attributes:
        where: What to call it, such as ``table inet filter, chain input``.
        steps: Its rules.
        hook: One of :data:`HOOKS` for a base chain, empty for one that rules jump to.
        priority: Among the base chains of a hook, the lowest comes first.
        drops: Whether what comes to its end is dropped (the policy of a base chain).
        reached: Whether the datagram comes to it at all; perhaps where it is one network interface's.
    """

    where: str
    steps: list[Step] = field(default_factory=list)
    hook: str = ""
    priority: int = 0
    drops: bool = False
    reached: Match = Match.YES


class Ruleset(NamedTuple):
    """Chains that may jump to each other by their names."""

    bases: list[Chain]
    chains: Mapping[str, Chain]


class Hit(NamedTuple):
    """A rule that the datagram meets and that does not simply let it pass."""

    where: str
    text: str
    does: Does
    certain: bool
    """Whether it acts on every such datagram, as far as can be told."""
    limited: bool = False
    """Whether it acts on those above a certain rate, or up to it."""
    spared: str = ""
    """The rule before it that lets datagrams pass up to a certain rate, if it acts on the rest."""


class _Came(NamedTuple):
    """How a datagram may have left a chain, other than by being stopped."""

    back: bool
    """It came back to whoever jumped there, or to the chain's end."""
    accepted: bool


class _Walk:
    """One datagram's way through one base chain.

    Attributes:
        hits: What it has met.
    """

    def __init__(self, chains: Mapping[str, Chain]) -> None:
        self.hits: list[Hit] = []
        self._chains = chains
        self._left = MOST_STEPS
        self._spared: str | None = None  # empty: what comes after is in doubt for another reason than a limit

    def through(self, chain: Chain, reach: Match, depth: int = 0) -> _Came:
        """Follow it through a chain.

        Args:
            chain: The chain.
            reach: Whether it gets there: YES means that nothing has accepted it before. That it was perhaps dropped
                before is no doubt, for then it is dropped in any case.
            depth: Jumps so far.
        """
        back = accepted = False
        for step in chain.steps:
            self._left -= 1
            if self._left < 0:
                break
            match = min(step.match, reach, Match.PERHAPS if step.limited else Match.YES)
            if match is Match.NO:
                continue
            whole = step.match is Match.YES and not step.limited
            ends, doubt = whole, not whole
            if step.does in _STOPS:
                self._hit(chain, step, match, whole=whole)
                doubt = False
            elif step.does is Does.ACCEPT:
                accepted = True
                self._accepted(chain, step, match)
            elif step.does is Does.RETURN:
                back = True
            else:
                came = self._jumped(step, match, depth, whole=whole)
                accepted |= came.accepted
                gone = step.does is Does.GOTO
                back |= gone and came.back
                ends = whole and (gone or not came.back)
                doubt = came.accepted or (gone and not whole)
            if ends:
                return _Came(back, accepted)
            if doubt:
                self._doubt(chain, step, reach)
                reach = Match.PERHAPS
        return _Came(True, accepted)

    def end(self, chain: Chain, came: _Came) -> None:
        """Apply the policy of a base chain to what came to its end."""
        if chain.drops and came.back:
            reach = Match.PERHAPS if came.accepted else chain.reached
            self._hit(chain, Step("policy drop", Match.YES, Does.DROP), reach, whole=True)

    def _hit(self, chain: Chain, step: Step, match: Match, *, whole: bool) -> None:
        spared = (self._spared or "") if whole and match is Match.PERHAPS else ""
        limited = step.limited and step.match is Match.YES
        self.hits.append(Hit(chain.where, step.text, step.does, match is Match.YES, limited, spared))

    def _accepted(self, chain: Chain, step: Step, match: Match) -> None:
        if match is Match.YES:
            self.hits.append(Hit(chain.where, step.text, Does.ACCEPT, certain=True))

    def _doubt(self, chain: Chain, step: Step, reach: Match) -> None:
        """Note why it is in doubt whether the datagram gets any further: for a limit alone, or for more."""
        if step.does is Does.JUMP and step.match is Match.YES:
            return  # noted where it was accepted
        at_a_rate = step.does is Does.ACCEPT and step.limited and step.match is Match.YES
        self._spared = f"{chain.where}: {step.text}" if at_a_rate and reach is Match.YES else ""

    def _jumped(self, step: Step, match: Match, depth: int, *, whole: bool) -> _Came:
        target = self._chains.get(step.target)
        if target is None or depth >= DEEPEST:
            return _Came(True, False)
        if whole:
            return self.through(target, match, depth + 1)
        before, self._spared = self._spared, ""
        came = self.through(target, match, depth + 1)
        self._spared = before
        return came


def passage(ruleset: Ruleset) -> list[Hit]:
    """Return what a datagram meets on its way in, in order; the rules were read with that datagram in mind.

    A rule that accepts it for sure is told as well, for it ends the way through its chain.
    """
    hits: list[Hit] = []
    for chain in sorted(ruleset.bases, key=lambda chain: (HOOKS.index(chain.hook), chain.priority)):
        walk = _Walk(ruleset.chains)
        walk.end(chain, walk.through(chain, chain.reached))
        hits += walk.hits
        if any(hit.certain and hit.does in _STOPS for hit in walk.hits):
            break
    return hits


def told_once(hits: Iterable[Hit]) -> list[Hit]:
    """Return hits without repetitions: a chain may be jumped to twice, and a table may serve IPv4 and IPv6."""
    return list(dict.fromkeys(hits))
