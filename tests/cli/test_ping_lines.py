"""What ``udpecho ping`` prints and writes while it runs: lines for people, JSON lines, CSV."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.pings import ADDRESS, MS, NoReactor, reply, series_of
from tests.cli.test_output import Screen
from twistedudp.cli._ping_files import CSV_COLUMNS, CsvRows, JsonLines, WallClock, event_as_json
from twistedudp.cli._ping_plain import PlainLines, PlainProgress, event_line, progress_line
from twistedudp.probing import ProbeEvent, ServerSide

EPOCH = 1_800_000_000 * 10**9


def line_of(event: ProbeEvent) -> str:
    """Return the line of an event."""
    return event_line(event, address=ADDRESS, size=64, timeout=2.0)


class LineTests(SynchronousTestCase):
    """A line for each datagram."""

    def test_replies(self) -> None:
        """An answer's line is that of ping, with three digits of the time."""
        for rtt_ns, time in (
            (0, "0.000"), (85_200, "0.085"), (1_234_567, "1.23"), (12_345_678, "12.3"), (2_345_678_901, "2346"),
            (999_600, "1.00"),
        ):  # fmt: skip
            self.assertEqual(line_of(reply(7, rtt_ns)), f"64 bytes from {ADDRESS}: seq=7 time={time} ms")

    def test_odd_replies(self) -> None:
        """What is odd about an answer stands behind its time."""
        for event, mark in (
            (reply(1, reordered=True), "(reordered)"),
            (reply(1, kind="duplicate"), "(duplicate)"),
            (reply(1, kind="late"), "(late)"),
            (reply(1, detail="unknown_method"), "(error unknown_method)"),
            (reply(1, reordered=True, detail="a\x1b"), r"(reordered, error a\u001b)"),
        ):
            self.assertEqual(line_of(event), f"64 bytes from {ADDRESS}: seq=1 time=1.00 ms {mark}")

    def test_others(self) -> None:
        """What is no answer has a line of its own, and what came from the network in it cannot steer a terminal."""
        for event, line in (
            (ProbeEvent("lost", 5), f"no answer from {ADDRESS} within 2 s: seq=5"),
            (ProbeEvent("unreachable", 5, detail="No route\x1b"), r"unreachable: seq=5 No route\u001b"),
            (ProbeEvent("not_sent", 5, detail="forbidden"), f"not sent to {ADDRESS}: seq=5 forbidden"),
            (ProbeEvent("corrupted", 5), f"from {ADDRESS}: an answer that was changed on its way: seq=5"),
            (ProbeEvent("corrupted"), f"from {ADDRESS}: an answer that was changed on its way"),
            (
                ProbeEvent("foreign", detail="not_a_probe"),
                "a datagram that answers no probe: not_a_probe",
            ),
            (ProbeEvent("counts"), ""),
        ):
            self.assertEqual(line_of(event), line)


class PrintedTests(SynchronousTestCase):
    """What reaches standard output while a run lasts."""

    def setUp(self) -> None:
        """Catch what is printed."""
        self.screen = Screen(terminal=False)
        self.patch(sys, "stdout", self.screen)

    def test_lines(self) -> None:
        """Each event is a line, flushed at once; what has nothing to say is none."""
        lines = PlainLines(address=ADDRESS, size=64, timeout=2.0)
        NoReactor().start(lines)
        lines.happened(reply(0))
        buffer = self.screen.buffer
        assert isinstance(buffer, io.BytesIO)
        self.assertEqual(buffer.getvalue().decode(), f"64 bytes from {ADDRESS}: seq=0 time=1.00 ms\n")
        lines.happened(ProbeEvent("counts"))
        lines.stop()
        self.assertEqual(self.screen.written().count(b"\n"), 1)

    def test_foreign(self) -> None:
        """Of datagrams that answer nothing there is one line a second, however many come; all else is printed."""
        clock = Clock()
        clock.advance(50.0)
        lines = PlainLines(address=ADDRESS, size=64, timeout=2.0, seconds=clock.seconds)
        for number in range(25):
            lines.happened(ProbeEvent("foreign", detail="not_a_probe"))
            lines.happened(reply(number))
            clock.advance(0.125)
        printed = self.screen.written().decode().splitlines()
        self.assertEqual(printed.count("a datagram that answers no probe: not_a_probe"), 4)
        self.assertEqual(len(printed), 29)

    def test_progress(self) -> None:
        """At high rates a line each second says how it stands, and none follows the end."""
        clock, series = Clock(), series_of([MS] * 3 + [None])
        progress = PlainProgress(series)
        progress.start(clock, self.fail)
        progress.happened(reply(0))
        clock.advance(0.9)
        self.assertEqual(self.screen.written(), b"")
        clock.advance(0.1)
        clock.advance(1.0)
        progress.stop()
        clock.advance(10.0)
        stands = "4 sent, 3 received, 1 lost (25%), round trip mean 1.00 ms"
        self.assertEqual(self.screen.written().decode(), f"1 s: {stands}\n2 s: {stands}\n")
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_progress_late(self) -> None:
        """A line that comes late tells the seconds that have passed, and is not followed by those that were missed."""
        clock = Clock()
        progress = PlainProgress(series_of([MS]))
        progress.start(clock, self.fail)
        clock.advance(3.5)
        self.assertTrue(self.screen.written().startswith(b"3 s: 1 sent"), self.screen.written())
        self.assertEqual(self.screen.written().count(b"\n"), 1)
        progress.stop()

    def test_nothing_settled(self) -> None:
        """Before anything is known there is no share and no mean."""
        self.assertEqual(
            progress_line(series_of([]), elapsed=1.0), "1 s: 0 sent, 0 received, 0 lost (-), round trip mean -"
        )

    def test_output_gone(self) -> None:
        """A line that cannot be printed is told to the run, which ends."""

        class Gone(io.StringIO):
            def write(self, text: str) -> int:
                raise BrokenPipeError

        self.patch(sys, "stdout", Gone())
        clock, reactor = Clock(), NoReactor()
        progress = PlainProgress(series_of([MS]))
        progress.start(clock, reactor.failures.append)
        clock.advance(1.0)
        progress.stop()
        (error,) = reactor.failures
        self.assertIsInstance(error, BrokenPipeError)

    def test_json_lines(self) -> None:
        """Each event is one line of JSON, pure ASCII; an answer about the series as a whole is none."""
        output = JsonLines(WallClock(EPOCH, 0))
        NoReactor().start(output)
        output.happened(reply(3))
        output.happened(ProbeEvent("counts"))
        output.happened(ProbeEvent("unreachable", 4, sent_ns=5, arrived_ns=6, detail="ü\x7f\x1b\n"))
        output.stop()
        first, second = self.screen.written().decode("ascii").splitlines()
        self.assertEqual(json.loads(first)["sequence"], 3)
        self.assertEqual(json.loads(second)["detail"], "ü\x7f\x1b\n")
        self.assertTrue(second.isprintable())


class JsonTests(SynchronousTestCase):
    """The object of an event."""

    def object_of(self, event: ProbeEvent) -> dict[str, Any]:
        """Return an event as programs read it."""
        found: dict[str, Any] = json.loads(json.dumps(event_as_json(event, WallClock(EPOCH, 0)), allow_nan=False))
        return found

    def test_reply(self) -> None:
        """An answer has its times in seconds, those of day since the epoch."""
        self.assertEqual(
            self.object_of(reply(3, 1_500_000, reordered=True)),
            {
                "event": "reply", "sequence": 3, "sent": 1_800_000_000.6, "arrived": 1_800_000_000.6015,
                "rtt": 0.0015, "reordered": True, "server": None, "detail": None,
            },
        )  # fmt: skip

    def test_server(self) -> None:
        """What an rpc server told is an object in it."""
        event = reply(0, server=ServerSide(2, 1, EPOCH + 500 * MS, EPOCH + 750 * MS))
        self.assertEqual(
            self.object_of(event)["server"],
            {"received": 2, "duplicates": 1, "arrived": 1_800_000_000.5, "departed": 1_800_000_000.75},
        )

    def test_unknown(self) -> None:
        """What is not known is null and never -1, and no member is ever left out."""
        members = set(self.object_of(reply(0)))
        for event in (ProbeEvent("lost", 1, sent_ns=0), ProbeEvent("foreign", detail="x"), ProbeEvent("corrupted")):
            found = self.object_of(event)
            self.assertEqual(set(found), members)
            self.assertNotIn(-1, found.values())
            self.assertIsNone(found["rtt"])


class CsvTests(SynchronousTestCase):
    """A row for each probe."""

    def rows(self, *events: ProbeEvent) -> list[str]:
        """Return the rows that events make, below the names of the columns."""
        file = io.StringIO()
        rows = CsvRows(file, WallClock(EPOCH, 0), flush=False)
        NoReactor().start(rows)
        for event in events:
            rows.happened(event)
        rows.stop()
        head, *found = file.getvalue().split("\n")[:-1]
        self.assertEqual(head, ",".join(CSV_COLUMNS))
        return found

    def test_fates(self) -> None:
        """Received, lost and unsent probes each have one row, with all nine decimals of the times."""
        self.assertEqual(
            self.rows(
                reply(1, 1_500_001),
                reply(0, reordered=True, server=ServerSide(1, 0, EPOCH + 1, EPOCH + 2)),
                ProbeEvent("lost", 2, sent_ns=7),
                ProbeEvent("not_sent", 3, detail="a, b\x1b"),
            ),
            [
                "1,received,1800000000.200000000,0.001500001,0,,,",
                "0,received,1800000000.000000000,0.001000000,1,1800000000.000000001,1800000000.000000002,",
                "2,lost,1800000000.000000007,,,,,",
                r'3,not_sent,,,,,,"a, b\u001b"',
            ],
        )

    def test_no_rows(self) -> None:
        """What decides no probe's fate is no row: there is one for each."""
        kinds = ("duplicate", "late", "corrupted", "foreign", "unreachable", "counts")
        self.assertEqual(self.rows(*[reply(0, kind=kind) for kind in kinds]), [])

    def test_flushed(self) -> None:
        """On a pipe each row is there at once."""
        written: list[str] = []

        class Pipe(io.StringIO):
            def flush(self) -> None:
                written.append(self.getvalue())

        CsvRows(Pipe(), WallClock(EPOCH, 0), flush=True).happened(reply(0))
        self.assertEqual(written[-1].count("\n"), 2)

    def test_clock(self) -> None:
        """The time of day goes by the monotonic clock from where the two stood together; none is known for -1."""
        clock = WallClock(EPOCH, 1000)
        self.assertEqual([clock.at(1000), clock.at(3000), clock.at(-1)], [EPOCH, EPOCH + 2000, None])
        self.assertLess(abs((WallClock.of_now().at(0) or 0) - (WallClock.of_now().at(0) or 0)), 10**9)
