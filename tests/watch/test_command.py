"""The command of ``--on-change`` with a reactor that only pretends to start processes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twistedudp.errors import LocalError
from twistedudp.watch import OnChangeCommand, StateChange, parse_command
from twistedudp.watch._command import COMMAND_TIMEOUT, MAX_COMMANDS
from twistedudp.watch._notify import MAX_WAITING


def change(target: str = "web", state: str = "down", **fields: Any) -> StateChange:
    """Return a change."""
    values = {"address": "192.0.2.1:7", "previous": "up", "reason": "no_answer", "says": "5 probes in a row failed"}
    figures = {"loss": 0.25, "p50": 0.001, "p99": None, "jitter": 0.0, "time": 1.5}
    return StateChange(target=target, state=state, **{**values, **figures, **fields})


class Process:
    """A process that has been started: the transport of its protocol."""

    def __init__(self, protocol: Any, program: str, arguments: list[str], env: dict[str, str]) -> None:
        self.protocol, self.program, self.arguments, self.env = protocol, program, arguments, env
        self.running = True
        self.closed = False

    def closeStdin(self) -> None:
        """It has nothing to read."""

    def loseConnection(self) -> None:
        """Its output is read no more."""
        self.closed = True

    def signalProcess(self, name: str) -> None:
        """End it."""
        assert name == "KILL"
        if not self.running:
            raise ProcessExitedAlready
        self.end(signal=9)

    def end(self, status: int | None = 0, signal: int | None = None) -> None:
        """Have it end."""
        self.running = False
        failed: Any = ProcessTerminated(None if signal else status, signal, None)  # type: ignore[no-untyped-call]  # none here
        done: Any = ProcessDone(None)  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        reason: Any = Failure(failed if status or signal else done)  # type: ignore[no-untyped-call]  # likewise
        self.protocol.processEnded(reason)


class Reactor(Clock):
    """Starts no processes but keeps them.

    Attributes:
        started: What was started.
        error: What starting raises, if anything.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Process] = []
        self.error: OSError | None = None

    def spawnProcess(
        self, protocol: Any, program: str, arguments: list[str], *, env: dict[str, str], path: None
    ) -> None:
        """Stand in for IReactorProcess."""
        if self.error is not None:
            raise self.error
        process = Process(protocol, program, arguments, env)
        self.started.append(process)
        protocol.makeConnection(process)


class CommandTests(SynchronousTestCase):
    """Running it."""

    def setUp(self) -> None:
        """Make one."""
        self.reactor = Reactor()
        self.command = OnChangeCommand(self.reactor, ["/bin/page-me", "-v"])
        self.addCleanup(lambda: self.assertEqual(self.reactor.getDelayedCalls(), []))

    def counts(self) -> list[int]:
        """Return how many were told, failed and dropped."""
        return [count() for _, count in self.command.counters.values()]

    def test_environment(self) -> None:
        """It gets its arguments as they are, and what has changed in its environment beside all else that is there."""
        self.command.tell(change(says="$(reboot); `x`"))
        (process,) = self.reactor.started
        self.assertEqual((process.program, process.arguments), ("/bin/page-me", ["/bin/page-me", "-v"]))
        own = {name: value for name, value in process.env.items() if name.startswith("UDPPROBE_")}
        self.assertEqual(
            own,
            {
                "UDPPROBE_TARGET": "web",
                "UDPPROBE_ADDRESS": "192.0.2.1:7",
                "UDPPROBE_STATE": "down",
                "UDPPROBE_PREVIOUS": "up",
                "UDPPROBE_REASON": "no_answer",
                "UDPPROBE_SAYS": "$(reboot); `x`",
                "UDPPROBE_LOSS": "0.25",
                "UDPPROBE_P50": "0.001",
                "UDPPROBE_P99": "",
                "UDPPROBE_JITTER": "0.0",
                "UDPPROBE_TIME": "1.5",
            },
        )
        self.assertEqual(process.env["PATH"], os.environ["PATH"])
        process.end()
        self.assertEqual(self.counts(), [1, 0, 0])

    def test_few_at_once(self) -> None:
        """No more than a few run at once; the others wait for their turn."""
        for number in range(10):
            self.command.tell(change(f"t{number}"))
        self.assertEqual((len(self.reactor.started), self.command.running), (MAX_COMMANDS, MAX_COMMANDS))
        while self.command.running:
            next(process for process in self.reactor.started if process.running).end()
        self.assertEqual(
            [process.env["UDPPROBE_TARGET"] for process in self.reactor.started], [f"t{n}" for n in range(10)]
        )

    def test_one_for_each_target(self) -> None:
        """For one target they run one after the other, in the order of its changes; others overtake them."""
        for target, state in (("a", "down"), ("a", "up"), ("b", "down")):
            self.command.tell(change(target, state))
        started = self.reactor.started
        self.assertEqual([process.env["UDPPROBE_TARGET"] for process in started], ["a", "b"])
        started[0].end()
        self.assertEqual([process.env["UDPPROBE_STATE"] for process in started], ["down", "down", "up"])
        for process in started[1:]:
            process.end()

    def test_timeout(self) -> None:
        """One that does not end is killed, and its target's next one runs."""
        with capturedLogs() as events:
            self.command.tell(change())
            self.command.tell(change(state="up"))
            self.reactor.advance(COMMAND_TIMEOUT - 0.1)
            self.assertEqual(self.counts(), [0, 0, 0])
            self.reactor.advance(0.2)
        self.assertEqual((self.counts(), len(self.reactor.started)), ([0, 1, 0], 2))
        self.assertTrue(self.reactor.started[0].closed)
        self.assertIn(
            "that web is down could not be told: the command had not ended after 30 s", eventAsText(events[0])
        )
        self.reactor.started[1].end()

    def test_background(self) -> None:
        """One that has exited, but whose child holds its output: when its time is up, its output is read no more."""
        self.command.tell(change())
        (process,) = self.reactor.started
        process.running = False
        self.reactor.advance(COMMAND_TIMEOUT - 0.1)
        self.assertFalse(process.closed)
        self.reactor.advance(0.2)
        self.assertTrue(process.closed)
        process.end()
        self.assertEqual((self.counts(), self.command.running), ([1, 0, 0], 0))

    def test_failures(self) -> None:
        """A failure is logged with what the command said, once a minute at most, and the next change is told."""
        with capturedLogs() as events:
            for number in range(5):
                self.command.tell(change())
                self.reactor.started[-1].protocol.errReceived(b"no\nmodem" + b"!" * 10000)
                self.reactor.started[-1].end(status=3)
                self.assertEqual(self.counts(), [0, number + 1, 0])
            self.reactor.advance(61)
            self.command.tell(change())
            self.reactor.started[-1].end(signal=9)
        texts = [eventAsText(event) for event in events]
        self.assertEqual(len(texts), 2)
        self.assertIn("could not be told: the command ended with exit status 3: no modem!!!", texts[0])
        self.assertLess(len(texts[0]), 500)
        self.assertIn("the command was ended by SIGKILL (4 warnings before this one were left out)", texts[1])

    def test_cannot_start(self) -> None:
        """A machine without room for another process is a failure like any other."""
        self.reactor.error = OSError(11, "Resource temporarily unavailable")
        with capturedLogs() as events:
            self.command.tell(change())
        self.assertEqual((self.counts(), self.command.running), ([0, 1, 0], 0))
        self.assertIn("/bin/page-me cannot be started: Resource temporarily unavailable", eventAsText(events[0]))

    def test_bounded(self) -> None:
        """When too many wait the oldest are dropped and counted."""
        with capturedLogs() as events:
            for number in range(MAX_COMMANDS + MAX_WAITING + 3):
                self.command.tell(change(f"t{number}"))
        self.assertEqual(self.counts(), [0, 0, 3])
        self.assertIn("more than 1,000 changes wait; the oldest are dropped", eventAsText(events[0]))
        self.assertEqual(self.command._outbox.waiting[0].target, f"t{MAX_COMMANDS + 3}")
        self.command.stop()

    def test_stop(self) -> None:
        """What runs is killed, what waits is dropped, and the end is when the last has ended."""
        for number in range(10):
            self.command.tell(change(f"t{number}"))
        stubborn = self.reactor.started[0]
        kill = stubborn.signalProcess
        self.patch(stubborn, "signalProcess", lambda _: None)  # it takes its time
        done = self.command.stop()
        self.assertNoResult(done)
        self.assertEqual([process.running for process in self.reactor.started], [True, False, False, False])
        kill("KILL")
        self.successResultOf(done)
        self.command.tell(change())
        self.assertEqual(len(self.reactor.started), MAX_COMMANDS)

    def test_stop_at_rest(self) -> None:
        """Where nothing runs, the end is at once."""
        self.successResultOf(self.command.stop())


class ParseTests(SynchronousTestCase):
    """The command line."""

    def test_right(self) -> None:
        """Words are split as a shell does, and the program is found on the path."""
        words = parse_command("sh -c 'echo $UDPPROBE_TARGET'")
        self.assertTrue(words[0].startswith("/"))
        self.assertEqual(words[1:], ["-c", "echo $UDPPROBE_TARGET"])

    def test_link(self) -> None:
        """A link stays one, for many programs go by the name that they are called by; its path becomes absolute."""
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / "page-me"
            link.symlink_to("/bin/sh")
            for text in (str(link), os.path.relpath(link)):
                self.assertEqual(parse_command(f"{text} -v"), [str(link), "-v"])
            self.patch(os, "environ", {**os.environ, "PATH": folder})
            self.assertEqual(parse_command("page-me"), [str(link)])

    def test_wrong(self) -> None:
        """What cannot be run is told in a line."""
        for text, expected in (
            ("", "--on-change: it is empty; write a program with its arguments"),
            ("'x", '--on-change: "\'x" is not a command line: No closing quotation'),
            (
                "/no/such/program -v",
                "--on-change: '/no/such/program' is no program that can be run; write the path of one",
            ),
            ("/etc/passwd", "is no program that can be run"),
        ):
            self.assertIn(expected, str(self.assertRaises(LocalError, parse_command, text)))
