"""The sweep over sizes as findings."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twistedudp._sweeps import SizeStep, SizeSweep
from twistedudp.doctor._sizes import judge_sizes, size_lines

PEER = ("192.0.2.1", 7)


def sweep(limit: str, **members: Any) -> SizeSweep:
    """Return what a sweep found: 1,472 bytes pass, and fragments do, unless told otherwise."""
    found: dict[str, Any] = {
        "address": "192.0.2.1:7", "largest": 1472, "path_mtu": 1500, "limit": limit, "interface_mtu": 1500,
        "fragments_pass": True, "cut_to": None, "both_ways": True, "verified": True, "detail": "", "duration": 0.1,
        "probes": 20, "steps": (),
    }  # fmt: skip
    return SizeSweep(**{**found, **members})


def step(stage: str, size: int, outcome: str, detail: str = "") -> SizeStep:
    """Return a step of three tries."""
    return SizeStep(stage, size, outcome, 3, None, detail, None, 4001)


class SizesTests(SynchronousTestCase):
    """What ends the size of a datagram."""

    def codes(self, found: SizeSweep) -> list[tuple[str, bool]]:
        """Return the codes of what is found, and whether each is a fault."""
        return [(finding.code, finding.fault) for finding in judge_sizes(PEER, found)]

    def test_whole(self) -> None:
        """What the own interface ends, or nothing, is as it should be."""
        self.assertEqual(self.codes(sweep("interface")), [])
        self.assertEqual(self.codes(sweep("none", largest=4000, fragments_pass=None)), [])

    def test_router(self) -> None:
        """A router that tells of a smaller MTU is no fault; that fragments are lost is."""
        narrow = sweep("router", largest=1272, path_mtu=1300)
        self.assertEqual(self.codes(narrow), [("UDP-MTU", False)])
        self.assertIn("an MTU of 1,300 bytes", judge_sizes(PEER, narrow)[0].says)
        lost = sweep("router", largest=1272, path_mtu=1300, fragments_pass=False)
        self.assertEqual(self.codes(lost), [("UDP-MTU", False), ("UDP-FRAGMENTS-DROPPED", True)])

    def test_silence(self) -> None:
        """Where large packets vanish, lost fragments are no second finding."""
        vanish = sweep("silence", largest=1272, path_mtu=1300, fragments_pass=None)
        self.assertEqual(self.codes(vanish), [("UDP-MTU-SILENT", True)])

    def test_fragments(self) -> None:
        """Fragments that are dropped where whole packets pass are a fault; where that is not known they are none."""
        self.assertEqual(self.codes(sweep("interface", fragments_pass=False)), [("UDP-FRAGMENTS-DROPPED", True)])
        self.assertEqual(self.codes(sweep("interface", fragments_pass=None)), [])

    def test_server(self) -> None:
        """A server that cuts, or takes nothing larger than a buffer, is told as such, and not the path."""
        self.assertEqual(self.codes(sweep("server", largest=1024, cut_to=1024)), [("UDP-CUT", True)])
        self.assertEqual(self.codes(sweep("server", largest=1024, fragments_pass=None)), [("UDP-CUT", True)])

    def test_own_machine(self) -> None:
        """Where this machine does not send large datagrams, that is told with its reason."""
        detail = "this machine does not send it: Operation not permitted"
        own = sweep("this machine", largest=972, path_mtu=None, fragments_pass=None, detail=detail)
        self.assertEqual(self.codes(own), [("UDP-CANNOT-SEND", True)])
        self.assertIn(detail, judge_sizes(PEER, own)[0].says)

    def test_no_answer(self) -> None:
        """A server that has gone silent meanwhile says nothing about sizes."""
        self.assertEqual(self.codes(sweep("no answer", largest=None, path_mtu=None)), [])

    def test_evidence(self) -> None:
        """The sizes that did not pass are the evidence, each once, with how often it was tried."""
        steps = (
            step("search", 4000, "silent"),
            step("search", 1473, "too large there", "a router has an MTU of 1,500 bytes"),
            step("check", 1473, "too large there", "a router has an MTU of 1,500 bytes"),
            step("fragments", 1536, "passed"),
        )
        self.assertEqual(
            size_lines(sweep("router", steps=steps)),
            (
                "1,472 bytes pass in one packet, there and back",
                "1,473 bytes in one packet: too large there, 3 tries (a router has an MTU of 1,500 bytes)",
                "4,000 bytes in one packet: not answered, 3 tries",
                "1,536 bytes in fragments: answered, 3 tries",
            ),
        )
