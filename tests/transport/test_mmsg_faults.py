"""The compiled backend while system calls fail or do only a part: nothing is lost, sent twice, or overtaken.

Theory of operation: a program in a process of its own has a library before the C library, which makes chosen calls fail
(``mmsg_child.py``, ``mmsg_shim.c``). One such process does all scenarios of a class; if it dies, the scenario's test
fails, and the next one gets a new process. Each scenario is done with a protocol that takes one datagram at a time and
with one that takes several.
"""

from __future__ import annotations

import atexit
import errno
import functools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import twistedudp
from tests.transport.mmsg_case import require_compiled
from twistedudp.transport._batching import MAX_WHOLE_ONLY
from twistedudp.transport._scalar import DATAGRAMS_PER_TURN
from twistedudp.transport._waiting import MAX_SEND_QUEUE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
PATIENCE = 30.0
"""Seconds for the compiler, and for a scenario that takes some milliseconds."""

EAGAIN = str(errno.EAGAIN)  # JSON's keys are strings

MIXED: list[tuple[int, str]] = [
    (0, "a1"), (0, "a2"), (1, "b1"), (0, "a3"), (1, "b2"), (2, "c"), (0, "a4 longer"), (1, "b3"), (0, ""), (0, "a5"),
    (2, "c longer"), (2, "short"), (1, ""), (1, "b4 longer"), (0, "a6"), (2, "c"), (1, "b5"), (0, "a7 longer"),
]  # fmt: skip
"""Answers to three clients: runs of several sizes, which end in every way, single datagrams, and empty ones."""

FULL = "sendmmsg@1+=EAGAIN,sendmsg@1+=EAGAIN,sendto@1+=EAGAIN"
"""There is no room for anything."""

SLOTS = 11
RUNS = 5
"""Buffers that MIXED takes of a sendmmsg; these many hold several: a1 to a3, b1 to b3, c longer and short, ..."""


@functools.cache
def shim() -> Path:
    """Return the library, compiled.

    Raises:
        AssertionError: It does not compile without a warning.
    """
    folder = Path(tempfile.mkdtemp(prefix="twistedudp-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = folder / "mmsg_shim.so"
    options = ["-std=gnu11", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    command = ["cc", *options, "-o", str(library), str(HERE / "mmsg_shim.c"), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise AssertionError(f"mmsg_shim.c does not compile:\n{done.stderr}")
    return library


class Child:
    """The process that does the scenarios."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(twistedudp.__file__).parent.parent)}
        # Behind a sanitizer's library, which must be the first.
        environment["LD_PRELOAD"] = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(shim())]))
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", str(HERE / "mmsg_child.py")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def play(self, plan: dict[str, Any]) -> list[dict[str, Any]]:
        """Have a scenario done, and return what happened in its steps.

        Raises:
            AssertionError: The process has died of it, or does not come to an end with it.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(plan) + "\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
                self._process.kill()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            _, faults = self._process.communicate(timeout=PATIENCE)
            raise AssertionError(f"the program ended with status {self._process.returncode}:\n{faults}")
        happened: list[dict[str, Any]] = json.loads(line)
        return happened

    def end(self) -> None:
        """End the process, which must not have complained."""
        _, faults = self._process.communicate(timeout=PATIENCE)
        if self._process.returncode or faults:
            raise AssertionError(f"the program ended with status {self._process.returncode}:\n{faults}")


class FaultCase(SynchronousTestCase):
    """Scenarios."""

    child: Child | None = None

    def setUp(self) -> None:
        """Start the process, unless it runs."""
        require_compiled()
        if not shutil.which("cc"):
            raise SkipTest("there is no C compiler (Debian: gcc and libc6-dev)")

    @classmethod
    def tearDownClass(cls) -> None:
        """End the process."""
        child, FaultCase.child = FaultCase.child, None
        if child is not None:
            child.end()

    def play(self, steps: Sequence[dict[str, Any]], **plan: Any) -> Iterator[list[dict[str, Any]]]:
        """Do a scenario with both kinds of protocols, and yield what happened in the steps of each.

        Args:
            steps: See ``mmsg_child.py``.
            plan: What else a scenario has.
        """
        for batches in (False, True):
            if FaultCase.child is None:
                FaultCase.child = Child()
            try:
                happened = FaultCase.child.play({"clients": 3, "batches": batches, "steps": steps, **plan})
            except AssertionError:
                FaultCase.child = None
                raise
            for step in happened:
                self.assertEqual(0, step["stats"]["callback_errors"], step["log"])
            yield happened

    def assert_received(self, expected: Sequence[tuple[int, str]], happened: Sequence[dict[str, Any]]) -> None:
        """Compare what each client got in some steps together with what was written to it, in order."""
        for client in range(len(happened[0]["received"])):
            due = [payload for to, payload in expected if to == client]
            got = [payload for step in happened for payload in step["received"][client]]
            self.assertEqual(due, got, f"of client {client}")

    def assert_counted(self, expected: Sequence[tuple[int, str]], stats: dict[str, Any], **others: Any) -> None:
        """Check that these datagrams and their bytes were sent, and other counters."""
        sizes = [len(payload) for _, payload in expected]
        self.assertEqual((len(sizes), sum(sizes)), (stats["datagrams_sent"], stats["bytes_sent"]))
        others = {"send_errors": {}, "send_queue_dropped": 0, **others}
        self.assertEqual(others, {name: stats[name] for name in others})


def asks(answers: Sequence[tuple[int, str]] = MIXED, script: str = "", **options: Any) -> dict[str, Any]:
    """Return a step in which all clients ask, and get these answers."""
    return {"script": script, "asks": [0, 1, 2], "answers": answers, **options}


class PartialTests(FaultCase):
    """A sendmmsg that takes only some."""

    def test_resumes(self) -> None:
        """Whatever part of them it takes each time, the next begins at the first unsent one."""
        for most in range(1, SLOTS + 2):
            for happened in self.play([asks(script=f"sendmmsg@1+=partial:{most}")]):
                self.assert_received(MIXED, happened)
                self.assert_counted(MIXED, happened[0]["stats"], sent_together=12)
                calls = happened[0]["calls"]
                self.assertEqual(-(-SLOTS // most), calls["sendmmsg"])
                self.assertEqual(calls["sendmmsg"] + calls["recvmmsg"], happened[0]["stats"]["system_calls"])

    def test_once_partial(self) -> None:
        """One that is partial only once, at every place."""
        for first in range(1, SLOTS):
            for happened in self.play([asks(script=f"sendmmsg@1=partial:{first}")]):
                self.assert_received(MIXED, happened)
                self.assertEqual(2, happened[0]["calls"]["sendmmsg"])

    def test_written_in_batches(self) -> None:
        """The same for write_batch, in a turn and outside of one."""
        for happened in self.play([asks(script="sendmmsg@1+=partial:1", in_batch=True)]):
            self.assert_received(MIXED, happened)
        steps = [asks([]), {"later": MIXED, "script": "sendmmsg@1+=partial:1", "in_batch": True}]
        for happened in self.play(steps):
            self.assert_received(MIXED, happened)
            self.assert_counted(MIXED, happened[1]["stats"])

    def test_more_than_a_queue(self) -> None:
        """A queue that leaves several times while one datagram is delivered."""
        many = [(number % 3, f"{number:04}"[: 2 + number % 7 // 2]) for number in range(700)]
        for happened in self.play([asks(many, "sendmmsg@1+=partial:5")]):
            self.assert_received(many, happened)
            self.assert_counted(many, happened[0]["stats"])


class NoRoomTests(FaultCase):
    """A full send buffer: EAGAIN."""

    def test_waits(self) -> None:
        """Wherever it is met, what was not taken waits in order, later writes behind it, until there is room."""
        later = [(number % 3, f"later {number}") for number in range(7)]
        for place in range(SLOTS):
            script = f"sendmmsg@1=partial:{place},sendmmsg@2=EAGAIN" if place else "sendmmsg@1=EAGAIN"
            for happened in self.play([asks(script=script), {"script": "", "later": later}]):
                first, second = happened
                sent = sum(len(each) for each in first["received"])
                self.assertTrue(place <= sent < len(MIXED), (place, sent))
                self.assertEqual((len(MIXED) - sent, True), (first["stats"]["send_waited"], first["watching"]))
                self.assert_received([*MIXED, *later], happened)
                self.assert_counted([*MIXED, *later], second["stats"], send_waited=len(MIXED) - sent + 7)
                self.assertFalse(second["watching"])
                self.assertEqual(0, second["calls"]["sendmmsg"])

    def test_waits_long(self) -> None:
        """While there is no room for several turns, nothing is sent, and answers join behind what waits."""
        answers = [[(client, f"{turn}-{number}") for client in range(3) for number in range(3)] for turn in range(4)]
        written = [each for turn in answers for each in turn]
        for in_batch in (False, True):
            steps = [asks(each, FULL, in_batch=in_batch) for each in answers]
            for happened in self.play([*steps, {"script": ""}]):
                self.assertEqual([[[]] * 3] * 4, [step["received"] for step in happened[:-1]])
                self.assert_received(written, happened)
                self.assert_counted(written, happened[-1]["stats"], send_waited=len(written))
                for step in happened[1:-1]:  # one try in each turn
                    self.assertEqual(1, step["calls"]["sendto"] + step["calls"]["sendmsg"] + step["calls"]["sendmmsg"])

    def test_in_a_run_sent_one_by_one(self) -> None:
        """It is met in the middle of a run that could not be sent together."""
        run = [(0, f"{number}") for number in range(6)] + [(0, "longer"), (1, "other"), (0, "0")]
        for place in range(1, 7):
            for happened in self.play([asks(run, f"segment@1=EIO,sendmsg@{place}=EAGAIN"), {"script": ""}]):
                self.assertEqual(place - 1, sum(len(each) for each in happened[0]["received"]))
                self.assert_received(run, happened)
                self.assert_counted(run, happened[1]["stats"], send_waited=len(run) - place + 1)

    def test_more_than_a_queue(self) -> None:
        """A queue that is full, and cannot leave, lets the next datagram wait behind it."""
        many = [(number % 3, f"{number:04}") for number in range(300)]
        for script in ("sendmmsg@1=EAGAIN", "sendmmsg@1=partial:1,sendmmsg@2=EAGAIN", "sendmmsg@1-2=EAGAIN"):
            for in_batch in (False, True):
                steps = [asks(many, script, in_batch=in_batch), {"script": ""}, {}, {}]
                for happened in self.play(steps):
                    self.assert_received(many, happened)
                    self.assert_counted(many, happened[3]["stats"])
                    self.assertFalse(happened[3]["watching"])

    def test_met_by_a_second_try(self) -> None:
        """A datagram that is tried again after an earlier one's error, and then finds no room, is not overtaken."""
        singles = [(0, "a"), (0, "bb"), (1, "c"), (0, "ddd")]
        run = [(0, f"{number}") for number in range(4)] + [(0, "last")]
        for answers, script in (
            (singles, "sendmmsg@1=ECONNREFUSED,sendto@1=EAGAIN"),
            (singles, "sendmmsg@1=partial:1,sendmmsg@2=ECONNREFUSED,sendto@1=EAGAIN"),
            (run, "segment@1=EIO,sendmsg@1=ECONNREFUSED,sendto@1=EAGAIN"),
            (run, "segment@1=EIO,sendmsg@3=ECONNREFUSED,sendto@1=EAGAIN"),
        ):
            for happened in self.play([asks(answers, script), {"script": ""}]):
                self.assertTrue(happened[0]["stats"]["send_waited"] > 0)
                self.assert_received(answers, happened)
                self.assert_counted(answers, happened[1]["stats"])

    def test_written_later(self) -> None:
        """Outside of a turn as well, alone and in a batch."""
        texts = [(number % 2, f"{number}" * (1 + number % 3)) for number in range(9)]
        for in_batch in (False, True):
            for place in (1, 3):
                script = f"sendmsg@{place}=EAGAIN,sendmmsg@1=partial:2,sendmmsg@2=EAGAIN"
                steps = [asks([]), {"script": script, "later": texts, "in_batch": in_batch}, {}]
                for happened in self.play(steps):
                    self.assertTrue(happened[1]["stats"]["send_waited"] > 0)
                    self.assert_received(texts, happened)
                    self.assert_counted(texts, happened[2]["stats"])

    def test_bounded(self) -> None:
        """Only so many wait; the rest is dropped and counted, and the first are those that leave."""
        many = [(0, f"{number:04}") for number in range(MAX_SEND_QUEUE + 76)]
        for happened in self.play([asks(many, FULL), {"script": ""}, *[{}] * 8]):
            self.assert_received(many[:MAX_SEND_QUEUE], happened)
            counted = {"send_queue_dropped": 76, "send_errors": {EAGAIN: 76}, "send_waited": MAX_SEND_QUEUE}
            self.assert_counted(many[:MAX_SEND_QUEUE], happened[-1]["stats"], **counted)

    def test_close(self) -> None:
        """When the port is closed, what waits is tried once, in order; what there is no room for then is counted."""
        for room in (0, 1, 5, len(MIXED)):
            script = f"sendto@{room + 1}+=EAGAIN,sendmsg@1+=EAGAIN,sendmmsg@1+=EAGAIN"
            for happened in self.play([asks(script="sendmmsg@1=EAGAIN"), {"script": script, "close": True}]):
                left = len(MIXED) - room
                self.assert_received(MIXED[:room], happened)
                counted = {"send_queue_dropped": left, "send_errors": {EAGAIN: left} if left else {}}
                self.assert_counted(MIXED[:room], happened[1]["stats"], **counted)
                self.assertEqual(min(room + 1, len(MIXED)), happened[1]["calls"]["sendto"])

    def test_mistakes_meanwhile(self) -> None:
        """What cannot be sent at all is refused at the write also while others wait, and does the port no harm."""
        answers = [(0, "first"), (-1, "to UDP port 70000"), (0, "second")]
        for in_batch in (False, True):
            steps = [asks([(0, "waits")], "sendmmsg@1=EAGAIN"), {"later": answers, "in_batch": in_batch, "script": ""}]
            for happened in self.play([*steps, asks([(1, "alive")])]):
                self.assertEqual(["OverflowError"], happened[1]["raised"])
                self.assert_received([(0, "waits"), (0, "first"), (0, "second"), (1, "alive")], happened)


class LossTests(FaultCase):
    """Errors that mean that a datagram is lost."""

    def test_counted(self) -> None:
        """A datagram that the network does not take is counted by its errno, and the others are sent."""
        for name in ("ENOBUFS", "ENOMEM", "EPERM", "ENETUNREACH", "EHOSTUNREACH", "ENETDOWN"):
            number = getattr(errno, name)
            single = [(0, "a"), (1, "b"), (0, "lost"), (2, "c"), (0, "after it")]
            left = [each for each in single if each[1] != "lost"]
            for happened in self.play([asks(single, f"sendmmsg@1=partial:2,sendmmsg@2={name}")]):
                self.assert_received(left, happened)
                self.assert_counted(left, happened[0]["stats"], send_errors={str(number): 1})
                no_route = [number] if name in ("ENETUNREACH", "EHOSTUNREACH") else []
                self.assertEqual((no_route, []), (happened[0]["unreachable"], happened[0]["raised"]), name)

    def test_runs(self) -> None:
        """Of a run that is refused for the network's sake, each datagram has its own fate."""
        run = [(0, f"{number}") for number in range(5)]
        for name in ("ENOBUFS", "ENETUNREACH"):
            for happened in self.play([asks(run, f"sendmmsg@1={name},sendmsg@2-3={name}"), asks(run)]):
                self.assert_received([run[0], *run[3:]], happened[:1])
                self.assert_counted(
                    [run[0], *run[3:]], happened[0]["stats"], send_errors={str(getattr(errno, name)): 2}
                )
                self.assertEqual(1, happened[1]["calls"]["segment"], "runs are still made")
                self.assertEqual([], happened[0]["log"])

    def test_alone(self) -> None:
        """Outside of a turn it is not raised either."""
        for name in ("ENOBUFS", "EPERM", "ENETUNREACH"):
            steps = [asks([]), {"later": [(0, "lost"), (0, "sent")], "script": f"sendmsg@1={name}"}]
            for happened in self.play(steps):
                self.assert_received([(0, "sent")], happened)
                self.assertEqual([], happened[1]["raised"])
                self.assert_counted([(0, "sent")], happened[1]["stats"], send_errors={str(getattr(errno, name)): 1})

    def test_all(self) -> None:
        """When nothing can be sent, all of it is counted, and the port lives on."""
        for happened in self.play([asks(script="sendmmsg@1+=ENOBUFS,sendmsg@1+=ENOBUFS,sendto@1+=ENOBUFS"), asks()]):
            self.assert_received(MIXED, happened[1:])
            self.assert_counted(MIXED, happened[1]["stats"], send_errors={str(errno.ENOBUFS): len(MIXED)})


class PendingTests(FaultCase):
    """Errors that are not the present datagram's."""

    def test_refused(self) -> None:
        """ECONNREFUSED, left by an earlier datagram, costs nobody's datagram, wherever it is met."""
        for place in range(SLOTS):
            script = f"sendmmsg@1=partial:{place},sendmmsg@2=ECONNREFUSED" if place else "sendmmsg@1=ECONNREFUSED"
            for happened in self.play([asks(script=script)]):
                self.assert_received(MIXED, happened)
                self.assert_counted(MIXED, happened[0]["stats"])
        for happened in self.play([asks([]), {"later": [(0, "x"), (1, "y")], "script": "sendmsg@1=ECONNREFUSED"}]):
            self.assert_received([(0, "x"), (1, "y")], happened)

    def test_refused_in_a_run(self) -> None:
        """So while the datagrams of a run are sent one by one."""
        run = [(0, f"{number}") for number in range(5)]
        for happened in self.play([asks(run, "segment@1=EIO,sendmsg@1=ECONNREFUSED,sendmsg@4=ECONNREFUSED")]):
            self.assert_received(run, happened)
            self.assert_counted(run, happened[0]["stats"])

    def test_interrupted(self) -> None:
        """A signal that interrupts a call is nothing at all."""
        script = "recvmmsg@1-2=EINTR,sendmmsg@1=EINTR,sendmmsg@2=partial:3,sendmmsg@3-5=EINTR,sendmsg@1-3=EINTR"
        for happened in self.play([asks(script=script), {"script": script, "later": [(0, "alone")]}]):
            self.assert_received([*MIXED, (0, "alone")], happened)
            self.assert_counted([*MIXED, (0, "alone")], happened[1]["stats"], receive_errors={})
        run = [(0, f"{number}") for number in range(5)]
        for happened in self.play([asks(run, "segment@1=EIO,sendmsg@1-2=EINTR,sendmsg@5=EINTR")]):
            self.assert_received(run, happened)

    def test_address_gone(self) -> None:
        """Where the address that was asked is gone from this host, the answer leaves from another."""
        singles = [(0, "a"), (1, "b"), (0, "bb")]
        runs = [(number % 2, f"{number}") for number in range(6)]
        for answers in (singles, runs):
            for in_batch in (False, True):
                step = asks(answers, "pktinfo@1+=EINVAL", in_batch=in_batch)
                for happened in self.play([step, {"later": [(0, "later")]}], interface=""):
                    self.assert_received([*answers, (0, "later")], happened)
                    self.assert_counted([*answers, (0, "later")], happened[1]["stats"])
                    self.assertEqual([], happened[0]["log"])

    def test_address_gone_and_back(self) -> None:
        """That is no reason to send to so many peers one by one for ever."""
        count = MAX_WHOLE_ONLY + 8
        groups = [list(range(first, first + 8)) for first in range(0, count, 8)]
        runs = [[(client, f"{client}-{number}") for client in group for number in range(3)] for group in groups]
        gone, back = (
            [{"script": script, "asks": each, "answers": run} for each, run in zip(groups, runs, strict=True)]
            for script in ("pktinfo@1+=EINVAL", "")
        )
        for happened in self.play([*gone, *back], interface="", clients=count):
            self.assert_received([each for run in runs for each in run] * 2, happened)
            self.assertEqual([8] * len(groups), [step["calls"]["segment"] for step in happened[len(groups) :]])
            self.assertEqual([[]] * len(happened), [step["log"] for step in happened])


class SegmentTests(FaultCase):
    """Kernels and devices that refuse UDP_SEGMENT."""

    def test_not_at_all(self) -> None:
        """Where it does not work, it is tried once in a socket's life, said once, and nothing is lost."""
        for name in ("EIO", "EOPNOTSUPP", "ENOPROTOOPT"):
            for happened in self.play([asks(script=f"segment@1+={name}"), asks(), asks()]):
                self.assert_received([*MIXED, *MIXED, *MIXED], happened)
                self.assert_counted(MIXED * 3, happened[2]["stats"], sent_together=0)
                self.assertEqual([RUNS, 0, 0], [step["calls"]["segment"] for step in happened])
                self.assertEqual([1, 0, 0], [len(step["log"]) for step in happened])
                self.assertIn("UDP_SEGMENT", happened[0]["log"][0])

    def test_not_to_a_peer(self) -> None:
        """Where the path to a peer is too narrow, it is tried no more for this peer, but for others."""
        answers = [(client, f"{client}-{number}") for number in range(3) for client in range(3)]
        for name in ("EINVAL", "EMSGSIZE"):
            for happened in self.play([asks(answers, f"segment@2={name}"), asks(answers), asks(answers)]):
                self.assert_received(answers * 3, happened)
                self.assert_counted(answers * 3, happened[2]["stats"], sent_together=18)
                self.assertEqual([3, 2, 2], [step["calls"]["segment"] for step in happened])
                self.assertEqual([[], [], []], [step["log"] for step in happened])

    def test_not_to_many_peers(self) -> None:
        """Where it is refused for one peer after the other, it counts as not working at all."""
        for happened in self.play(
            [
                {
                    "script": "segment@1+=EINVAL",
                    "asks": list(range(first, first + 8)),
                    "answers": [(client, f"{number}") for client in range(first, first + 8) for number in range(2)],
                }
                for first in range(0, 32, 8)
            ],
            clients=32,
        ):
            self.assert_received([(client, f"{number}") for client in range(32) for number in range(2)], happened)
            tried = [step["calls"]["segment"] for step in happened]
            self.assertEqual([8, 8], tried[:2])
            self.assertEqual(MAX_WHOLE_ONLY + 1, tried[0] + tried[1] + 1)
            self.assertTrue(1 <= tried[2] <= 8, "what was queued by then is still tried")
            self.assertEqual(0, tried[3])
            self.assertEqual([0, 0, 1, 0], [len(step["log"]) for step in happened])

    def test_log_that_writes(self) -> None:
        """Somebody who sends each line of the log by this very port disturbs nothing."""
        many = [(number % 3, f"{number:04}") for number in range(300)]
        for answers in (MIXED, many):
            for script in ("segment@1+=EIO", "sendmmsg@1=partial:1,segment@1+=EIO", "segment@2+=EIO"):
                for happened in self.play([asks(answers, script, log_writes="logged")]):
                    (step,) = happened
                    self.assertEqual(1, step["received"][0].count("logged"))
                    step["received"][0].remove("logged")
                    self.assert_received(answers, happened)
                    self.assert_counted([*answers, (0, "logged")], step["stats"])


class ReceiveTests(FaultCase):
    """A recvmmsg that fails or gets only some."""

    def test_errors(self) -> None:
        """An error instead of datagrams costs none of them, and is counted but for a signal."""
        for name, counted in (("ECONNREFUSED", 1), ("EINTR", 0), ("ENOMEM", 1), ("EHOSTUNREACH", 1)):
            for place in (1, 2):
                script = f"recvmmsg@{place}={name},recvmmsg@1=partial:2"
                for happened in self.play([asks(script=script), {}, asks()]):
                    self.assert_received(MIXED * 2, happened)
                    errors = {str(getattr(errno, name)): 1} if counted else {}
                    self.assertEqual(errors, happened[1]["stats"]["receive_errors"])

    def test_between(self) -> None:
        """One between datagrams."""
        for name in ("ECONNREFUSED", "ENOMEM"):
            step = {"asks": [0, 1, 2] * 4, "answers": MIXED, "script": f"recvmmsg@2={name}"}
            for happened in self.play([step]):
                self.assert_received(MIXED, happened)
                self.assertEqual({str(getattr(errno, name)): 1}, happened[0]["stats"]["receive_errors"])
                self.assertEqual(12, happened[0]["stats"]["datagrams_received"])

    def test_endless(self) -> None:
        """An error that does not go away keeps the port busy for no longer than a turn."""
        for happened in self.play([asks([], "recvmmsg@1+=ENOMEM"), {"script": ""}]):
            self.assertTrue(1 <= happened[0]["calls"]["recvmmsg"] <= DATAGRAMS_PER_TURN + 1)
            self.assertEqual(3, happened[1]["stats"]["datagrams_received"])

    def test_port_zero(self) -> None:
        """An answer to a datagram that seems to come from UDP port 0 is loss; a later write there is a mistake."""
        for in_batch in (False, True):
            steps: list[dict[str, Any]] = [
                {"script": "recvmmsg@1=port0", "asks": [0], "answers": [(0, "x"), (1, "y")], "in_batch": in_batch},
                {"later": [(0, "later")], "in_batch": in_batch},
            ]
            for happened in self.play(steps):
                self.assertEqual(([], ["OSError"]), (happened[0]["raised"], happened[1]["raised"]))
                self.assert_received([(1, "y")], happened)
                self.assert_counted([(1, "y")], happened[1]["stats"], send_errors={str(errno.EINVAL): 1})


class ConnectedTests(FaultCase):
    """The same on a connected port."""

    def play_connected(self, script: str, answers: Sequence[tuple[int, str]]) -> Iterator[list[dict[str, Any]]]:
        """Let the one client ask, and look at what it gets in two steps."""
        step = {"script": script, "asks": [0], "answers": answers}
        yield from self.play([step, {"script": "", "later": [(0, "later")]}], connected=True, clients=1)

    def test_faults(self) -> None:
        """Partial sends, no room, refusals and runs that are not taken lose nothing and keep the order."""
        answers = [(0, text) for text in ("1", "2", "3", "longer", "longer", "4", "", "5", "6")]
        for script in (
            "sendmmsg@1+=partial:1",
            "sendmmsg@1=partial:2,sendmmsg@2=EAGAIN",
            "sendmmsg@1=EAGAIN",
            "sendmmsg@1=ECONNREFUSED,sendmmsg@2=partial:1,sendmmsg@3=ECONNREFUSED",
            "sendmmsg@1=EINTR",
            "segment@1+=EIO,sendmsg@2=EAGAIN",
            "segment@1+=EINVAL",
        ):
            for happened in self.play_connected(script, answers):
                self.assert_received([*answers, (0, "later")], happened)
                self.assert_counted([*answers, (0, "later")], happened[1]["stats"])
