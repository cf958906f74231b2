"""What any datagram of up to 8,192 bytes may cost, and that both implementations of msgpack give the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import twistedudp
from tests.properties import decoder
from tests.properties.bombs import BAD, BOMBS, LARGEST, MESSAGE, message

PEAK_BYTES = 1_200_000
MILLISECONDS = 2.0

GOOD = {
    "1,000 numbers": message((b"\xcb" + b"\x3f\xf0" + bytes(6), 1000), size=65507),
    "numbers that fill 8,192 bytes": message((b"\xcb" + b"\x3f\xf0" + bytes(6), 100_000), size=8192),
    "numbers that fill 65,507 bytes": message((b"\xcb" + b"\x3f\xf0" + bytes(6), 100_000), size=65507),
    "16 deep": MESSAGE + b"\x91" * 14 + b"\x90",
    "1,024 lists": MESSAGE + b"\xdc\x03\xfe" + b"\x90" * 1022,
    "every width": MESSAGE
    + b"\x9f\xd9\x01a\xda\x00\x01a\xdb\x00\x00\x00\x01a\xc4\x01a\xc5\x00\x01a\xc6\x00\x00\x00\x01a\xdc\x00\x01\x00"
    + b"\xdd\x00\x00\x00\x01\x00\xde\x00\x01\xa1a\x00\xdf\x00\x00\x00\x01\xa1a\x00\xd6\xff\x00\x00\x00\x01"
    + b"\xc7\x0c\xff\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xc8\x00\x04\xff\x00\x00\x00\x01\x90\x80",
}


def run_decoder(payloads: list[bytes], *arguments: str, pure: bool = False) -> list[Any]:
    """Run the decoder's program, untraced, with the package that this process has."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "COV_"))}
    environment["PYTHONPATH"] = str(Path(twistedudp.__file__).parent.parent)
    environment.pop("MSGPACK_PUREPYTHON", None)
    if pure:
        environment["MSGPACK_PUREPYTHON"] = "1"
    done = subprocess.run(
        [sys.executable, str(Path(decoder.__file__)), *arguments],
        input="\n".join(payload.hex() for payload in payloads),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    answer = json.loads(done.stdout)
    assert answer["pure"] is pure, "the msgpack that was asked for did not run"
    results: list[Any] = answer["results"]
    return results


class CostTests(SynchronousTestCase):
    """The promise of 1.2 MB and 2 ms."""

    def test_table_is_in_the_promise(self) -> None:
        """None of the datagrams is larger than those that the promise is for, and some are as large."""
        self.assertEqual(max(map(len, BOMBS.values())), LARGEST)

    def test_cost(self) -> None:
        """No datagram of the table costs more."""
        results = run_decoder(list(BOMBS.values()), "--measure")
        costs = {name: (result["milliseconds"], result["bytes"]) for name, result in zip(BOMBS, results, strict=True)}
        slow = {name: cost for name, cost in costs.items() if cost[0] > MILLISECONDS}
        large = {name: cost for name, cost in costs.items() if cost[1] > PEAK_BYTES}
        self.assertEqual((slow, large), ({}, {}))

    def test_measures(self) -> None:
        """The measuring can tell: it sees the memory of a datagram that holds much, and the time that it takes."""
        [cheap, dear] = run_decoder([MESSAGE + b"\x90", BOMBS["1,020 maps of one, then texts"]], "--measure")
        self.assertTrue(dear["bytes"] > 200_000, (cheap, dear))
        self.assertTrue(cheap["bytes"] < 5_000, (cheap, dear))
        self.assertTrue(dear["milliseconds"] > 20 * cheap["milliseconds"], (cheap, dear))


class ImplementationTests(SynchronousTestCase):
    """msgpack in C and msgpack in Python."""

    def test_alike(self) -> None:
        """Both give the same for each datagram of the tables, good and bad."""
        table = {**GOOD, **BOMBS, **{name: payload for name, (payload, _) in BAD.items()}}
        compiled = run_decoder(list(table.values()))
        pure = run_decoder(list(table.values()), pure=True)
        different = [name for name, one, other in zip(table, compiled, pure, strict=True) if one != other]
        self.assertEqual(different, [])
        outcomes = dict(zip(table, compiled, strict=True))
        self.assertEqual([name for name in GOOD if outcomes[name] == "DecodeError"], [])
        self.assertEqual([name for name in BAD if outcomes[name] != "DecodeError"], [])
