"""``udpecho ping --plot``: the points that are kept, and the picture."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.cli.pings import MS, reply, series_of, temporary_folder
from twistedudp.cli import _ping_plot
from twistedudp.cli._arguments import Misuse
from twistedudp.cli._ping_plot import PlotPoints, checked_plot_file, draw, load_matplotlib
from twistedudp.probing import ProbeEvent

if TYPE_CHECKING:
    from collections.abc import Sequence


class FileTests(SynchronousTestCase):
    """The name of the file, looked at before the run."""

    def refused(self, name: str) -> str:
        """Return why a name is refused."""
        with self.assertRaises(Misuse) as caught:
            checked_plot_file(name)
        message: str = caught.exception.message
        return message

    def test_names(self) -> None:
        """A file that cannot be, or is no picture by its name, is refused; one that can be is taken, and not made."""
        folder = temporary_folder(self)
        self.assertIn("must end in .png, .svg or .pdf", self.refused("rtt.jpg"))
        self.assertIn("there is no directory", self.refused(str(folder / "no" / "rtt.png")))
        (folder / "dir.png").mkdir()
        self.assertIn("that is a directory", self.refused(str(folder / "dir.png")))
        self.assertEqual(checked_plot_file(str(folder / "rtt.PNG")), folder / "rtt.PNG")
        self.assertFalse((folder / "rtt.PNG").exists())

    def test_not_writable(self) -> None:
        """A file that cannot be written is refused, with what to look at."""
        self.patch(os, "access", lambda *_: False)
        self.assertIn("it cannot be written; check the permissions of .", self.refused("rtt.png"))

    def test_matplotlib_missing(self) -> None:
        """Without matplotlib the line tells how to install it."""
        self.patch(sys, "modules", {**sys.modules, "matplotlib.figure": None})
        with self.assertRaisesRegex(Misuse, r"--plot needs matplotlib, .*: pip install 'twistedudp\[plot\]'"):
            load_matplotlib()


class PointsTests(SynchronousTestCase):
    """The points."""

    def test_points(self) -> None:
        """Answers are kept with the time of their probe and their round trip, losses with their time, nothing else."""
        series = series_of([MS])
        series.started_ns = 100 * MS
        points = PlotPoints(series)
        for event in (
            reply(1, 5 * MS),
            ProbeEvent("lost", 0, sent_ns=100 * MS),
            reply(2, kind="late"),
            ProbeEvent("lost", 9),
        ):
            points.happened(event)
        self.assertEqual((list(points.seconds), list(points.rtts), list(points.lost)), ([0.1], [0.005], [0.0]))

    def test_thinned(self) -> None:
        """When they become too many, every second one is kept, evenly over the whole run."""
        self.patch(_ping_plot, "MOST_POINTS", 8)
        points = PlotPoints(series_of([MS]))
        for sequence in range(20):
            points.happened(reply(sequence))
            points.happened(ProbeEvent("lost", sequence, sent_ns=sequence * 200 * MS))
        self.assertEqual((points.stride, points.lost_stride), (4, 4))
        self.assertEqual([round(second / 0.2) for second in points.seconds], [0, 4, 8, 12, 16])
        self.assertEqual(points.lost, points.seconds)
        self.assertEqual(len(points.rtts), len(points.seconds))


class PictureTests(SynchronousTestCase):
    """The picture, where matplotlib is installed."""

    def setUp(self) -> None:
        """Make a place for it."""
        try:
            load_matplotlib()
        except Misuse as error:
            raise SkipTest(error.message) from None
        self.folder = temporary_folder(self)

    def text_of(self, rtts: Sequence[int | None], target: str = "server:7") -> str:
        """Draw a run as SVG, and return its source."""
        import matplotlib as mpl  # noqa: PLC0415  # only where it is installed

        series = series_of(rtts, target=target)
        points = PlotPoints(series)
        for sequence, rtt in enumerate(rtts):
            sent_ns = sequence * 200 * MS
            points.happened(ProbeEvent("lost", sequence, sent_ns=sent_ns) if rtt is None else reply(sequence, rtt))
        path = self.folder / "rtt.svg"
        with mpl.rc_context({"svg.fonttype": "none"}):
            draw(path, series.summary(), points, series.rtt.buckets())
        return path.read_text(encoding="utf-8")

    def test_contents(self) -> None:
        """It names the run, its losses, the percentiles and the units."""
        text = self.text_of([MS] * 8 + [None, 3 * MS])
        for words in (
            "udpecho ping server:7: 10 probes of 64 bytes, 10% lost", "lost (1)", "p50 1.00 ms", "p99 3.00 ms",
            "round trip (ms)", "seconds since the first probe", "answers, 9 in all",
        ):  # fmt: skip
            self.assertIn(words, text)

    def test_units(self) -> None:
        """The axis is in the unit that suits the longest round trip."""
        for rtt, unit in ((5000, "us"), (5 * MS, "ms"), (1500 * MS, "s")):
            self.assertIn(f"round trip ({unit})", self.text_of([rtt]))

    def test_no_answer(self) -> None:
        """A run without an answer is drawn as well, with its losses."""
        text = self.text_of([None] * 3)
        self.assertIn("lost (3)", text)
        self.assertIn("no answers", text)

    def test_hostile_name(self) -> None:
        """A name is no formula and no markup."""
        self.assertRegex(self.text_of([MS], target="a$x$b:7"), r"<text [^>]*>udpecho ping a\$x\$b:7: 1 probe")

    def test_png(self) -> None:
        """A name that ends in .png is a PNG file."""
        series = series_of([MS, 100 * MS])
        draw(self.folder / "rtt.png", series.summary(), PlotPoints(series), series.rtt.buckets())
        self.assertTrue((self.folder / "rtt.png").read_bytes().startswith(b"\x89PNG\r\n"))
