"""A real ``twistd`` for tests: start it, learn its address, talk to it, end it.

Theory of operation: the ``twistd`` beside the running Python is started in a directory of its own, with nothing of the
checkout on its import path, so what is tested is the installed package. Its output is collected by threads, and a test
waits for text that it expects, never for time. Each process is ended by its own id, and an end that does not come is
an error, not a reason to wait longer.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from twistedudp.address import Address

__all__ = [
    "TWISTD",
    "Directory",
    "RunningTwistd",
    "daemon_ended",
    "environment",
    "pid_in",
    "run_twistd",
    "started_address",
]

TWISTD = str(Path(sys.executable).parent / "twistd")

PATIENCE = 60.0
"""Seconds after which something that has not happened never will, also on a machine that is busy with other tests."""

_STARTED = re.compile(r"is listening on (?:\[(?P<ipv6>[^\]]+)\]|(?P<ipv4>[^\s:]+)):(?P<port>\d+) \(UDP\)")


@final
class Directory:
    """A temporary directory, gone at the end of the ``with`` block; readable by all, so that a server may change user.

    Attributes:
        path: Where it is.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="twistedudp-test-"))
        self.path.chmod(0o755)

    def write(self, name: str, text: str) -> Path:
        """Write a file, with its directories, and return its path."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def plugin_file(self, name: str, text: str) -> Path:
        """Write a file into ``twisted/plugins``; effective with this directory on the server's import path."""
        return self.write(f"twisted/plugins/{name}.py", text)

    def __enter__(self) -> Directory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path)


def environment(python_path: Iterable[Path | str] = (), extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a server: this process's own, with no other import path than the one given."""
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")}
    if python_path:
        variables["PYTHONPATH"] = os.pathsep.join(map(str, python_path))
    return {**variables, **(extra or {})}


def run_twistd(
    *arguments: str,
    directory: Path,
    python_path: Iterable[Path | str] = (),
    prefix: Iterable[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run ``twistd`` with these arguments to its end (as a daemon's parent: until the daemon has started or failed).

    Args:
        arguments: The command line after ``twistd``.
        directory: The working directory: the pid file and the log of a daemon land there.
        python_path: The server's import path besides its own.
        prefix: A command that runs ``twistd``, such as ``setpriv ...``.
    """
    return subprocess.run(
        [*prefix, TWISTD, *arguments],
        cwd=directory,
        env=environment(python_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def started_address(text: str) -> Address:
    """Return the address in a log that tells that a server listens.

    Raises:
        AssertionError: It does not.
    """
    found = _STARTED.search(text)
    if found is None:
        raise AssertionError(f"no server says that it listens:\n{text}")
    return found["ipv6"] or found["ipv4"], int(found["port"])


@final
class RunningTwistd:
    """A ``twistd -n udpecho`` that has started; ended with SIGTERM at the end of the ``with`` block.

    Args:
        options: The options of ``udpecho``; ``--port 0`` stands before them.
        python_path: The server's import path besides its own, such as a directory with plugins.
        twistd_options: The options of ``twistd`` itself, beside ``-n`` and an empty pid file.
        command: Another command than ``udpecho`` with its options; then ``started`` must be given.
        started: What a line of the log says when the server is ready.
        apart: Whether it shall lead a session of its own, which the scheduler can be told to favour.
        prefix: A command that runs ``twistd``, such as ``setpriv ...``.
        pass_fds: Descriptors that it inherits, by the same numbers.

    Attributes:
        address: The numeric host and the port that it says it listens on.
        process: The process.
    """

    address: Address

    def __init__(
        self,
        *options: str,
        python_path: Iterable[Path | str] = (),
        twistd_options: Iterable[str] = (),
        command: Iterable[str] = ("udpecho", "--port", "0"),
        started: re.Pattern[str] = _STARTED,
        apart: bool = False,
        prefix: Iterable[str] = (),
        pass_fds: Iterable[int] = (),
    ) -> None:
        self._directory = Directory()
        self._lines = threading.Condition()
        self._output: list[str] = []
        self._errors: list[str] = []
        self._open_streams = 2
        self.process = subprocess.Popen(
            [*prefix, TWISTD, "-n", "--pidfile=", *twistd_options, *command, *options],
            cwd=self._directory.path,
            env=environment(python_path),
            pass_fds=tuple(pass_fds),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=apart,
        )
        self._readers = [
            threading.Thread(target=self._collect, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self._output), (self.process.stderr, self._errors))
        ]
        for reader in self._readers:
            reader.start()
        try:
            line = self.wait_for(started)
            if started is _STARTED:
                self.address = started_address(line)
        except BaseException:
            self._end(signal.SIGKILL)
            raise

    @property
    def output(self) -> str:
        """What it has written to standard output so far: its log."""
        with self._lines:
            return "".join(self._output)

    @property
    def errors(self) -> str:
        """What it has written to standard error so far."""
        with self._lines:
            return "".join(self._errors)

    def wait_for(self, pattern: re.Pattern[str] | str, times: int = 1) -> str:
        """Wait until the log has a line in which a pattern is found, and return that line.

        Args:
            pattern: A regular expression.
            times: The line wanted is the ``times``-th of them.

        Raises:
            AssertionError: The log ended, or a minute passed, without.
        """

        def found() -> list[str]:
            return [line for line in self._output if re.search(pattern, line)][times - 1 : times]

        with self._lines:
            self._lines.wait_for(lambda: found() or not self._open_streams, PATIENCE)
            lines = found()
            if not lines:
                output, errors = "".join(self._output), "".join(self._errors)
                raise AssertionError(f"twistd did not log {pattern!r}\n{output}\nand on standard error:\n{errors}")
            return lines[0]

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """End the server by a signal, and return its exit status as ``subprocess`` has it: ``-15`` for SIGTERM."""
        return self._end(by)

    def __enter__(self) -> RunningTwistd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self._end(signal.SIGTERM)

    def _end(self, by: signal.Signals) -> int:
        if self.process.poll() is None:
            self.process.send_signal(by)
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"twistd did not end on {by.name}:\n{self.output}") from None
        finally:
            for reader in self._readers:
                reader.join(PATIENCE)
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()
            if self._directory.path.exists():
                self._directory.__exit__(None, None, None)
        return status

    def _collect(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            with self._lines:
                lines.append(line)
                self._lines.notify_all()
        with self._lines:
            self._open_streams -= 1
            self._lines.notify_all()


def pid_in(directory: Path) -> int:
    """Return the process id in the pid file of a daemon that was started in a directory."""
    return int((directory / "twistd.pid").read_text(encoding="ascii"))


def failed_daemon_ended(directory: Path) -> bool:
    """Wait until a daemon whose start has failed is gone.

    twistd tells its waiting parent of the failure first and removes the pid file after that, so whoever sees the
    parent's exit status may still find the file.

    Returns:
        Whether it has ended within a minute; otherwise it was killed.
    """
    try:
        return _ended(pid_in(directory))
    except (FileNotFoundError, ProcessLookupError):
        return True


def daemon_ended(pid: int, by: signal.Signals = signal.SIGTERM) -> bool:
    """End a daemon, which is no child of this process, by a signal.

    Returns:
        Whether it has ended within a minute; otherwise it was killed.
    """
    return _ended(pid, by)


def _ended(pid: int, by: signal.Signals | None = None) -> bool:
    descriptor: Any = os.pidfd_open(pid)
    try:
        if by is not None:
            os.kill(pid, by)
        ready, _, _ = select.select([descriptor], [], [], PATIENCE)
        if not ready:
            os.kill(pid, signal.SIGKILL)
        return bool(ready)
    finally:
        os.close(descriptor)
