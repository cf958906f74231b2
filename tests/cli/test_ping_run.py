"""Runs of ``udpecho ping`` on a simulated network: what is printed where, and the exit status."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.pings import reply, temporary_folder
from tests.cli.test_output import Screen
from tests.simulation import PORT, SERVER, SERVER6, Echo, SimulatedTestCase
from twistedudp.cli import _ping_run
from twistedudp.cli._arguments import Misuse
from twistedudp.cli._failures import Interrupted
from twistedudp.cli._ping_options import Outputs, PingPlan
from twistedudp.cli._ping_outputs import RunOutputs
from twistedudp.cli._ping_report import Limits
from twistedudp.cli._ping_run import run_ping
from twistedudp.errors import HostNotFound
from twistedudp.methods import RPCMethods

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.internet.defer import Deferred

    from twistedudp.probing import ProbeEvent


class RunCase(SimulatedTestCase):
    """A test that runs a ping on the simulated network instead of the reactor.

    Attributes:
        interrupt_after: Virtual seconds after which Ctrl-C is pressed; None for never.
    """

    names = {"server.example": (SERVER,), "six.example": (SERVER6,)}  # noqa: RUF012  # never changed

    def setUp(self) -> None:
        """Catch what is printed, and run coroutines on the network."""
        super().setUp()
        self.interrupt_after: float | None = None
        self.screen = Screen(terminal=False)
        self.errors = io.StringIO()
        self.patch(sys, "stdout", self.screen)
        self.patch(sys, "stderr", self.errors)

        def run_until_done(
            asking: Callable[[Any], Coroutine[Deferred[Any], Any, Any]], *, on_interrupt: Callable[[], object]
        ) -> Any:
            if self.interrupt_after is not None:
                self.here.callLater(self.interrupt_after, on_interrupt)
            return self.network.run_until(asking(self.here), timeout=1000.0)

        self.patch(_ping_run, "run_until_done", run_until_done)

    def ping(self, host: str = SERVER, *, outputs: Outputs | None = None, **changes: Any) -> int:
        """Run a ping of ten probes, with some of its plan changed, and return the exit status."""
        plan: dict[str, Any] = {
            "interval": 0.1, "count": 10, "duration": None, "timeout": 0.5, "size": 64, "limits": Limits()
        }  # fmt: skip
        return run_ping(PingPlan(host=host, port=PORT, outputs=outputs or Outputs(), **{**plan, **changes}), None)

    @property
    def printed(self) -> str:
        """What standard output got."""
        return self.screen.written().decode()


class TextTests(RunCase):
    """What people read."""

    def test_lines_and_summary(self) -> None:
        """First it says whom it asks, then a line for each datagram, then the summary."""
        self.serve(Echo())
        self.assertEqual(self.ping("server.example"), 0)
        lines = self.printed.splitlines()
        self.assertEqual(lines[0], f"udpecho ping server.example:{PORT} ({SERVER}:{PORT}): 64 bytes every 100 ms")
        self.assertEqual(lines[10], f"64 bytes from {SERVER}:{PORT}: seq=9 time=2.00 ms")
        self.assertEqual(lines[11:13], ["", f"--- server.example:{PORT} ({SERVER}:{PORT}) ---"])
        self.assertIn("probes       10 sent, 10 received, 0 lost (0%)", lines)
        self.assertEqual(self.errors.getvalue(), "")

    def test_quiet(self) -> None:
        """With --quiet there is the summary alone."""
        self.serve(Echo())
        self.assertEqual(self.ping(outputs=Outputs(quiet=True)), 0)
        self.assertTrue(self.printed.startswith(f"--- {SERVER}:{PORT} ---\n"), self.printed)

    def test_rpc(self) -> None:
        """An rpc server's run has the loss split by direction."""
        self.serve_methods(RPCMethods())
        self.assertEqual(self.ping(), 0)
        self.assertIn("answered by rpc\n", self.printed)
        self.assertIn("lost there   0 on the way to the server, 0 on the way back\n", self.printed)

    def test_refused(self) -> None:
        """Where nobody listens, the summary is followed by the reason, and the status is 1."""
        self.assertEqual(self.ping(), 1)
        self.assertIn(f"unreachable: seq=0 Connection refused (says {SERVER})\n", self.printed)
        self.assertIn("10 sent, 0 received, 10 lost (100%)", self.printed)
        self.assertRegex(self.errors.getvalue(), rf"\Audpecho: nobody listens at {SERVER}:{PORT}: [^\n]*\n\Z")

    def test_another_address(self) -> None:
        """A server that answers from another address is named as that, with the address."""
        elsewhere = self.network.reactor("192.0.2.9")
        socket = elsewhere.listenUDP(PORT, Echo(), "192.0.2.9", 65535)
        self.addCleanup(socket.stopListening)
        answering = socket

        class Misconfigured(Echo):
            """Sends its answers through another host's port, as a server with two addresses may."""

            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                answering.write(datagram, addr)

        self.serve(Misconfigured())
        self.assertEqual(self.ping(outputs=Outputs(quiet=True)), 1)
        self.assertIn("10 answers came from ANOTHER address: 192.0.2.9:10000; 'udpecho doctor", self.errors.getvalue())

    def test_remarks(self) -> None:
        """What else is worth knowing stands below the summary of a run with answers."""
        self.serve(Echo())
        self.network.impair(self.here, self.there, "delay=240ms±100ms")
        self.assertEqual(self.ping(count=100, outputs=Outputs(quiet=True)), 0)
        self.network.advance(1.0)
        self.assertRegex(
            self.printed, r"\n\nnote: \d+ answers? came after the timeout; a longer --timeout counts them\n\Z"
        )

    def test_interrupted(self) -> None:
        """Ctrl-C ends the sending and prints the summary of what there is, with the status of a good run."""
        self.serve(Echo())
        self.interrupt_after = 0.55
        self.assertEqual(self.ping(count=None), 0)
        self.assertIn("probes       6 sent, 6 received, 0 lost (0%)", self.printed)

    def test_interrupted_look_up(self) -> None:
        """Ctrl-C while the name is being looked up ends it at once, with nothing printed."""
        self.network.lookup_delay = 5.0
        self.interrupt_after = 0.5
        with self.assertRaises(Interrupted):
            self.ping("server.example")
        self.assertEqual(self.printed, "")
        self.network.advance(5.0)

    def test_unknown_name(self) -> None:
        """A name that does not resolve leaves as the error that it is."""
        with self.assertRaises(HostNotFound):
            self.ping("no.example")

    def test_size_for_the_family(self) -> None:
        """A size that IPv6 carries and IPv4 does not depends on what the name resolves to."""
        with self.assertRaisesRegex(Misuse, "IPv4 carries at most 65,507 bytes"):
            self.ping("server.example", size=65_508)
        self.serve(Echo())
        self.assertEqual(self.ping("six.example", size=65_508, count=1), 0)


class LimitTests(RunCase):
    """``--max-loss`` and the others decide of the exit status."""

    def test_statuses(self) -> None:
        """Within the limits it is 0; where one is exceeded it is 1, with one line on standard error."""
        self.serve(Echo())
        self.assertEqual(self.ping(limits=Limits(loss=0.0, p50=0.003, p99=0.003, jitter=0.001)), 0)
        self.assertEqual(self.errors.getvalue(), "")
        self.assertEqual(self.ping(limits=Limits(p99=0.001)), 1)
        self.assertEqual(self.errors.getvalue(), "udpecho: p99 is 2.00 ms, more than --max-p99 1 ms\n")

    def test_without_answers(self) -> None:
        """Where nothing came, no limit is needed for the status to be 1, and none makes it 0."""
        self.assertEqual(self.ping(), 1)
        self.assertEqual(self.ping(limits=Limits(loss=1.0)), 1)


class ProgramTests(RunCase):
    """What programs read."""

    def test_json(self) -> None:
        """With --json standard output has one object and nothing else."""
        self.serve(Echo())
        self.assertEqual(self.ping(outputs=Outputs(json=True)), 0)
        self.assertEqual(self.printed.count("\n"), 1)
        found = json.loads(self.printed, parse_constant=self.fail)
        self.assertEqual((found["sent"], found["received"], found["lost"], found["loss"]), (10, 10, 0, 0.0))
        self.assertAlmostEqual(found["p50"], 0.002, 5)
        self.assertAlmostEqual(found["p99.9"], 0.002, 5)

    def test_json_without_answers(self) -> None:
        """Without an answer the object has null for what there is not; the reason is on standard error."""
        self.assertEqual(self.ping(outputs=Outputs(json=True)), 1)
        found = json.loads(self.printed, parse_constant=self.fail)
        self.assertEqual((found["received"], found["loss"], found["p50"], found["jitter"]), (0, 1.0, None, None))
        self.assertIn("nobody listens", self.errors.getvalue())

    def test_json_lines(self) -> None:
        """With --json-lines each event is an object, and the last one is the summary."""
        self.serve(Echo())
        self.assertEqual(self.ping(outputs=Outputs(json_lines=True)), 0)
        *events, summary = [json.loads(line) for line in self.printed.splitlines()]
        self.assertEqual([(event["event"], event["sequence"]) for event in events], [("reply", n) for n in range(10)])
        self.assertEqual((summary["event"], summary["received"]), ("summary", 10))

    def test_csv(self) -> None:
        """With --csv FILE the rows are in the file and the summary is printed; with - the rows are all there is."""
        self.serve(Echo())
        path = temporary_folder(self) / "rows.csv"
        self.assertEqual(self.ping(outputs=Outputs(csv=str(path), quiet=True)), 0)
        self.assertEqual(len(path.read_text(encoding="utf-8").splitlines()), 11)
        self.assertIn("10 received", self.printed)
        self.screen = Screen(terminal=False)
        self.patch(sys, "stdout", self.screen)
        self.assertEqual(self.ping(outputs=Outputs(csv="-")), 0)
        self.assertEqual(len(self.printed.splitlines()), 11)
        self.assertFalse(self.screen.closed)

    def test_csv_refused(self) -> None:
        """A file that cannot be written is wrong usage, and nothing is sent."""
        for name, reason in (
            (str(temporary_folder(self) / "no" / "x.csv"), "No such file"),
            ("-", "standard output is closed"),
        ):
            if name == "-":
                self.patch(sys, "stdout", None)
            with self.assertRaisesRegex(Misuse, reason):
                self.ping(outputs=Outputs(csv=name))
        self.assertEqual(self.sent(), [])

    def test_disk_full(self) -> None:
        """A row that cannot be written ends the run at once, with an error that names the file."""
        self.serve(Echo())

        self.patch(_ping_run, "open_csv", lambda _: _AfterTheFirstRow())
        with self.assertRaisesRegex(OSError, "rows.csv: No space left on device"):
            self.ping(outputs=Outputs(csv="rows.csv", quiet=True))
        self.assertEqual(len(self.sent()), 2)


class OutputsTests(SynchronousTestCase):
    """The outputs of a run as one."""

    def test_failing(self) -> None:
        """The first error ends the run, once; no output is told of anything after it, and all are stopped."""
        told: list[str] = []
        ended: list[int] = []

        class Failing:
            """An output that fails at all it does."""

            def start(self, reactor: object, failed: Callable[[Exception], None]) -> None:
                """Begin."""

            def happened(self, event: ProbeEvent) -> None:
                """Take an event."""
                told.append(event.kind)
                raise OSError(event.sequence, "no")

            def stop(self) -> None:
                """End."""
                told.append("stop")
                raise OSError(99, "no")

        outputs = RunOutputs([Failing(), Failing()], lambda: ended.append(1))
        outputs.start(None)
        outputs.happened(reply(1))
        outputs.happened(reply(2))
        outputs.failed(OSError(3, "no"))
        outputs.stop()
        self.assertEqual((told, ended), (["reply", "stop", "stop"], [1]))
        assert isinstance(outputs.error, OSError)
        self.assertEqual(outputs.error.errno, 1)


class _AfterTheFirstRow(io.StringIO):
    """A file on a disk that has room for two lines."""

    def __init__(self) -> None:
        super().__init__()
        self._rows = 0

    def write(self, text: str) -> int:
        """Write a row."""
        self._rows += 1
        if self._rows > 2:
            raise OSError(28, "No space left on device")
        return super().write(text)
