"""The demonstration itself, run inside the environment: each step shows something and checks what it shows.

Theory of operation: one coroutine goes through the steps; what it starts (servers, a socket, a temporary directory) is
entered into an exit stack at once, so that it is gone whether the steps end, fail, or are cancelled by SIGINT or
SIGTERM. The servers are real ``twistd`` processes, and tell in their log which free port they got.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.padding import Padding
from rich.text import Text
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall, deferLater, react

from twistedudp import UDPClientService
from twistedudp.errors import ErrorReplyReceived, PeerUnreachable, RequestTimedOut, TwistedUDPError

if TYPE_CHECKING:
    from twisted.python.failure import Failure
    from typing_extensions import Self

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
START_LIMIT = 30.0
"""Seconds that a server may take to start, on a machine that is busy with other things as well."""
STOP_LIMIT = 10.0
"""Seconds that a server may take to stop before it is killed."""


class DemoFailed(Exception):
    """A step did not show what it says it shows."""


def expect(holds: bool, what: str) -> None:
    """Fail the demonstration if something does not hold."""
    if not holds:
        raise DemoFailed(what)


class Twistd(ProcessProtocol):
    """A ``twistd -n udpecho`` process on a free loopback port, for an ``async with``.

    Attributes:
        port: The port that it got.
    """

    port: int

    def __init__(self, reactor: Any, folder: Path, *options: str, python_path: Path | None = None) -> None:
        self._reactor = reactor
        self._folder = folder
        self._options = options
        self._python_path = python_path
        self._log = ""
        self._started: Deferred[None] = Deferred()
        self._ended: Deferred[None] = Deferred()

    async def __aenter__(self) -> Self:
        twistd = str(Path(sys.executable).parent / "twistd")
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        if self._python_path is not None:
            environment["PYTHONPATH"] = str(self._python_path)
        command = [twistd, "-n", "--pidfile=", "udpecho", "--port", "0", *self._options]
        self._process = self._reactor.spawnProcess(self, twistd, command, environment, str(self._folder))
        self._started.addTimeout(START_LIMIT, self._reactor)
        try:
            await self._started
        except DeferredTimeoutError:
            await self.stop()
            raise DemoFailed(f"the server did not start within {START_LIMIT:.0f} s:\n{self._log}") from None
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End the process as an operator would, and wait until it is gone."""
        # Again and again: one that comes between fork and exec, as after a quick Ctrl-C, is lost.
        terminate = LoopingCall(self._terminate)
        terminate.start(0.5)
        kill = self._reactor.callLater(STOP_LIMIT, self._kill)
        # Whoever waits may be cancelled, and another may wait as well: each gets a Deferred of its own.
        gone: Deferred[None] = Deferred()
        self._ended.addCallback(lambda _: gone.callback(None))
        try:
            await gone
        finally:
            terminate.stop()
            if kill.active():
                kill.cancel()

    def _terminate(self) -> None:
        with suppress(ProcessExitedAlready):
            self._process.signalProcess("TERM")

    def _kill(self) -> None:
        with suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    def outReceived(self, data: bytes) -> None:
        """Look for the line that tells the address."""
        self._log += data.decode("utf-8", "replace")
        found = re.search(r"is listening on 127\.0\.0\.1:(\d+)", self._log)
        if found and not self._started.called:
            self.port = int(found[1])
            self._started.callback(None)

    def errReceived(self, data: bytes) -> None:
        """Keep what it complains of, for the case that it does not start."""
        self._log += data.decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        """The process is gone."""
        if not self._started.called:
            self._started.errback(DemoFailed(f"the server did not start ({reason.getErrorMessage()}):\n{self._log}"))
        self._ended.callback(None)


class Demo:
    """The steps, and what they print."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._console = Console(highlight=False)
        self._steps = 0

    async def run(self) -> None:
        """Go through all steps; fails with ``DemoFailed`` or an error of twistedudp."""
        # From here on the reactor is running, and its signal handlers are in place.
        await deferLater(self._reactor, 0)
        async with AsyncExitStack() as cleanup:
            folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="twistedudp-demo-")))
            self._step("Start a server: twistd -n udpecho --port 0")
            started = time.perf_counter()
            server = await cleanup.enter_async_context(Twistd(self._reactor, folder))
            self._show(f"listening on 127.0.0.1:{server.port}, {self._since(started)} after its start")
            await self._text(server.port)
            await self._structured(server.port)
            await self._twenty(server.port)
            await self._plugin(cleanup, folder)
            await self._stopped(server)
            await self._silent(cleanup)
        self._console.print(f"\n[bold green]All {self._steps} steps did what they say.[/]")

    async def _text(self, port: int) -> None:
        self._step("Send a text: the server echoes it, byte for byte")
        async with UDPClientService(self._reactor, "127.0.0.1", port) as client:
            sent = "Hello, UDP server! Grüße, 你好"
            back = (await client.echo_bytes(sent.encode())).decode()
        self._show(f"sent {sent!r}", f"got  {back!r}")
        expect(back == sent, "the text came back changed")

    async def _structured(self, port: int) -> None:
        self._step("Send structured data: a list of numbers, and a nested map")
        nested = {
            "name": "sensor 7",
            "position": {"x": 1.5, "y": -2},
            "tags": ["indoor", None, True],
            "raw": b"\x00\xff",
        }
        async with UDPClientService(self._reactor, "127.0.0.1", port) as client:
            for sent in ([3.14159, 2.71828, 1.41421], nested):
                back = await client.echo(sent)
                self._show(f"sent {sent!r}", f"got  {back!r}")
                expect(back == sent, "the value came back changed")

    async def _twenty(self, port: int) -> None:
        self._step("Twenty clients at once, each with a socket of its own")
        async with AsyncExitStack() as running:
            clients = [
                await running.enter_async_context(UDPClientService(self._reactor, "127.0.0.1", port)) for _ in range(20)
            ]
            started = time.perf_counter()
            waiting = [client.echo(f"client {number}") for number, client in enumerate(clients, 1)]
            in_flight = sum(not request.called for request in waiting)
            back = await gatherResults(waiting, consumeErrors=True)
            self._show(f"{in_flight} requests in flight, {len(back)} answers, all within {self._since(started)}")
        expect(in_flight == 20, "the requests were not in flight at once")
        expect(back == [f"client {number}" for number in range(1, 21)], "an answer went to the wrong client")

    async def _plugin(self, cleanup: AsyncExitStack, folder: Path) -> None:
        self._step("Call a method of a plugin: twistd -n udpecho --protocol calculator, from examples/calculator")
        # A copy, for twistd writes a cache of its plugins beside them.
        calculator = folder / "calculator"
        shutil.copytree(EXAMPLES / "calculator", calculator, ignore=shutil.ignore_patterns("__pycache__", "*.cache"))
        server = Twistd(self._reactor, folder, "--protocol", "calculator", python_path=calculator)
        await cleanup.enter_async_context(server)
        async with UDPClientService(self._reactor, "127.0.0.1", server.port) as client:
            numbers = [3.14159, 2.71828, 1.41421]
            mean = await client.call("mean", numbers)
            self._show(f"mean({numbers}) -> {mean:.5f}")
            expect(abs(mean - sum(numbers) / 3) < 1e-12, "the mean is wrong")
            try:
                await client.call("divide", 1, 0)
            except ErrorReplyReceived as error:
                self._show(f"divide(1, 0) -> the server's own error: {error}")
                expect(error.code == "division_by_zero", "the error has another code")
            else:
                raise DemoFailed("1 / 0 gave a result")

    async def _stopped(self, server: Twistd) -> None:
        self._step("Stop the first server: the next request is told so at once, and waits for no timeout")
        await server.stop()
        async with UDPClientService(self._reactor, "127.0.0.1", server.port) as client:
            started = time.perf_counter()
            try:
                await client.echo_bytes(b"Is anybody there?")
            except PeerUnreachable as error:
                seconds = time.perf_counter() - started
                self._show(f"PeerUnreachable after {self._milliseconds(seconds)}: {error}")
                expect(seconds < 0.1, "it took longer than a tenth of a second")
            else:
                raise DemoFailed("a stopped server answered")

    async def _silent(self, cleanup: AsyncExitStack) -> None:
        self._step("Ask a server that never answers: the request ends by its timeout of 0.5 s instead of hanging")
        silent = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        silent.bind(("127.0.0.1", 0))
        async with UDPClientService(self._reactor, *silent.getsockname(), timeout=0.5) as client:
            started = time.perf_counter()
            try:
                await client.echo_bytes(b"Is anybody there?")
            except RequestTimedOut as error:
                seconds = time.perf_counter() - started
                self._show(f"RequestTimedOut after {seconds:.2f} s: {error}")
                expect(0.5 <= seconds < 1.0, "the timeout was not kept")
                expect(error.attempts > 1, "the request was not sent again")
            else:
                raise DemoFailed("a silent server answered")

    def _step(self, title: str) -> None:
        self._steps += 1
        self._console.print()
        self._print(Text(f"{self._steps}. {title}", style="bold"), indent=0)

    def _show(self, *lines: str) -> None:
        for line in lines:
            # As Text, for in a str Rich would take the square brackets of a list as markup.
            self._print(Text(line), indent=3)

    def _print(self, text: Text, indent: int) -> None:
        if self._console.is_terminal:
            self._console.print(Padding(text, (0, 0, 0, indent)))
        else:
            self._console.print(Text(" " * indent) + text, soft_wrap=True)

    def _since(self, started: float) -> str:
        return self._milliseconds(time.perf_counter() - started)

    @staticmethod
    def _milliseconds(seconds: float) -> str:
        return f"{seconds * 1000:.1f} ms"


async def _main(reactor: Any) -> None:
    """Run the demonstration until it ends or a signal ends it; either way, everything it started is gone then."""
    running = Deferred.fromCoroutine(Demo(reactor).run())
    finished: Deferred[None] = Deferred()
    stopping = False

    def stop() -> Deferred[None]:
        """Clean up because the reactor has been told to stop; it waits for what this returns."""
        nonlocal stopping
        stopping = True
        # Another Ctrl-C would not make it faster, but leave something behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        running.cancel()
        return finished

    trigger = reactor.addSystemEventTrigger("before", "shutdown", stop)
    try:
        await running
    except Exception as error:
        if stopping:
            # Being cancelled reaches a step in many forms.
            raise SystemExit(128 + signal.SIGINT) from None
        if isinstance(error, (DemoFailed, TwistedUDPError)):
            raise SystemExit(f"scripts/demo: this step failed: {error}") from None
        raise
    finally:
        if not stopping:
            reactor.removeSystemEventTrigger(trigger)
        finished.callback(None)


def demonstrate() -> NoReturn:
    """Run the demonstration on the reactor; ends with SystemExit, whose status is 0 only if all went well."""
    react(_main)
    raise AssertionError("react() always ends with SystemExit")
