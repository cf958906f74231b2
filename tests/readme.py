r"""The examples in the documentation, run as a reader would run them.

Theory of operation: each fenced block of a Markdown file is run, in order, in one temporary directory, with the
programs of the Python that runs the tests. Three kinds are known:

``console``
    Commands behind ``$ ``, continued where a line ends in a backslash, each followed by the output that it must print;
    ``...`` stands for any text, alone on a line for any lines. A command may fail only where its output is given, or
    where the next command is ``echo $?``. One that ends in ``&`` is a server: it is left running once it has printed
    what is expected, among other lines of its log perhaps, and must still run when the document ends.
``python``
    With ``# file: NAME`` in its first line, a file that a later block must mention by its name; otherwise a program
    that must end with exit status 0 and without a warning.
``text``
    Not run: for what depends on the reader's machine.

Any other kind is an error, so that no example is left out by mistake. Ports 10000 to 10099 mean free ones: they are
replaced throughout the document, and commands that rely on the default port 10000 are given it.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from tests.checkout import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

__all__ = ["Block", "Document", "DocumentationError", "blocks", "matches"]

LIMIT: Final = 60.0
"""Seconds after which a command that has not ended, or a server that has not started, never will."""

_FENCE: Final = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)``` *$", re.MULTILINE | re.DOTALL
)
_PORT: Final = re.compile(r"\b100\d\d\b")
_FILE: Final = re.compile(r"\A# file: (\S+)\n")
# "twistd -n udpecho" and "udpecho send HOST" without a port: what they mean is said, so that it can be replaced.
_SERVER: Final = re.compile(r"\b(twistd\b.*? udpecho)\b(?!.* (?:--port|-p|--help|--version|--list-protocols)\b)")
_CLIENT: Final = re.compile(
    r"\b(udpecho (?:send|call|methods)(?: -\S+(?<!--timeout)| --timeout \S+)*) ([^\s:-][^\s:]*)(?=\s|$)"
)


class DocumentationError(AssertionError):
    """An example does not do what the documentation says."""


class Block(NamedTuple):
    """A fenced block."""

    kind: str
    """The first word of its info string, such as ``console``."""
    text: str
    place: str
    """The file and the line where it begins."""


class Command(NamedTuple):
    """One command of a ``console`` block and the output that it shall print."""

    line: str
    expected: str


def blocks(text: str, name: str) -> list[Block]:
    """Return the fenced blocks of a Markdown text.

    Args:
        text: The text.
        name: What to call it in errors.
    """
    found = []
    for match in _FENCE.finditer(text):
        place = f"{name}:{text.count(chr(10), 0, match.start()) + 1}"
        words = match["info"].split()
        body = re.sub(f"(?m)^{match['indent']}", "", match["body"])
        found.append(Block(words[0] if words else "", body, place))
    return found


def matches(output: str, expected: str) -> bool:
    """Tell whether an output is what was expected; white space at the ends of lines and of the whole counts nothing."""
    pattern = ""
    for line in expected.strip("\n").splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part) for part in line.rstrip().split("...")) + "\n"
    printed = "".join(line.rstrip() + "\n" for line in output.strip("\n").splitlines())
    return re.fullmatch(pattern, printed) is not None


class Document:
    """A document being run; use it in a ``with`` block, at whose end its servers have ended.

    Args:
        text: The Markdown text.
        name: What to call it in errors.
    """

    def __init__(self, text: str, name: str) -> None:
        self._ports: dict[str, str] = {}
        self._blocks = blocks(text, name)
        self._servers: list[_Server] = []
        self._folder = tempfile.TemporaryDirectory(prefix="twistedudp-test-")
        self._path = Path(self._folder.name)
        (self._path / "scripts").symlink_to(SCRIPTS)  # for commands that begin with ./scripts/

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.end()
        self._folder.cleanup()

    def run(self) -> int:
        """Run all blocks and return how many were run.

        Raises:
            DocumentationError: One does not do what it says; the text names the file and the line.
        """
        count = 0
        for number, block in enumerate(self._blocks):
            if block.kind == "console":
                self._run_console(block)
            elif block.kind == "python":
                self._run_python(block, self._blocks[number + 1 :])
            elif block.kind == "text":
                continue
            else:
                raise DocumentationError(f"{block.place}: a block is 'console', 'python' or 'text', not {block.kind!r}")
            count += 1
        for server in self._servers:
            server.check()
        return count

    def _run_python(self, block: Block, later: list[Block]) -> None:
        named = _FILE.match(block.text)
        path = self._path / (named[1] if named else "example.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._with_ports(block.text), encoding="utf-8")
        if named:
            # A plugin file is named by nobody: twistd finds it.
            wanted = "twistd" if named[1].startswith("twisted/plugins/") else path.stem
            mention = re.compile(rf"\b{re.escape(wanted)}\b")
            if not any(mention.search(other.text) for other in later if other.kind in ("console", "python")):
                raise DocumentationError(f"{block.place}: no block below runs {named[1]}")
            return
        _, status = self._shell("python example.py 2>example.err", 0, block.place)
        complaints = path.with_suffix(".err").read_text(encoding="utf-8")
        if status or complaints:
            raise DocumentationError(f"{block.place}: the program ended with exit status {status}\n{complaints}")

    def _run_console(self, block: Block) -> None:
        commands = list(_commands(block, self._with_ports(_with_default_ports(block.text))))
        status = 0
        for number, command in enumerate(commands):
            if command.line.endswith("&"):
                server = _Server(command, block.place, self._path)
                self._servers.append(server)
                server.wait()
                continue
            output, status = self._shell(command.line, status, block.place)
            if not matches(output, command.expected):
                raise DocumentationError(_difference(block.place, command, output))
            shown = command.expected.strip(" .\n") or (
                commands[number + 1 :] and commands[number + 1].line == "echo $?"
            )
            if status and not shown:
                raise DocumentationError(f"{block.place}: $ {command.line}\nended with exit status {status}:\n{output}")

    def _shell(self, line: str, status: int, place: str) -> tuple[str, int]:
        """Run a command line to its end, with ``$?`` as it was, and return its whole output and its exit status."""
        process = _start(f"(exit {status})\n{line}", self._path)
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)
            output, _ = process.communicate()
            raise DocumentationError(
                f"{place}: $ {line}\ndid not end within {LIMIT:.0f} s; a server wants a '&' at its end\n{output}"
            ) from None
        return output, process.returncode

    def _with_ports(self, text: str) -> str:
        return _PORT.sub(lambda match: self._port(match[0]), text)

    def _port(self, number: str) -> str:
        if number not in self._ports:
            self._ports[number] = str(_free_port(set(self._ports.values())))
        return self._ports[number]


class _Server:
    """A command that is left running."""

    def __init__(self, command: Command, place: str, folder: Path) -> None:
        self._command = command
        self._place = place
        self._output = ""
        self._changed = threading.Condition()
        self._closed = False
        self._process = _start(command.line.rstrip("& "), folder)
        self._reader = threading.Thread(target=self._collect, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def wait(self) -> None:
        """Wait until it has printed what is expected."""
        expected = f"...\n{self._command.expected.strip()}\n..."
        with self._changed:
            self._changed.wait_for(lambda: matches(self._output, expected) or self._closed, LIMIT)
            if self._closed or not matches(self._output, expected):
                raise DocumentationError(_difference(self._place, self._command, self._output))

    def check(self) -> None:
        """Make sure that it is still running."""
        if self._process.poll() is not None:
            raise DocumentationError(f"{self._place}: $ {self._command.line}\nhas ended:\n{self._output}")

    def end(self) -> None:
        """End it and whatever it started."""
        _signal_group(self._process, signal.SIGTERM)
        try:
            self._process.wait(LIMIT)
        finally:
            _signal_group(self._process, signal.SIGKILL)
            self._reader.join(LIMIT)
            if self._process.stdout is not None:
                self._process.stdout.close()

    def _collect(self, stream: IO[str]) -> None:
        for line in stream:
            with self._changed:
                self._output += line
                self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _commands(block: Block, text: str) -> Iterator[Command]:
    first, *rest = re.split(r"(?m)^\$ ", text)
    if first.strip() or not rest:
        raise DocumentationError(f"{block.place}: a console block begins with a command behind '$ '")
    for part in rest:
        line, _, expected = part.partition("\n")
        yield Command(line.strip(), expected)


def _with_default_ports(text: str) -> str:
    """Give the commands among the lines that rely on the default port that port."""
    return "\n".join(
        _CLIENT.sub(r"\1 \2:10000", _SERVER.sub(r"\1 --port 10000", line)) if line.startswith("$ ") else line
        for line in text.replace("\\\n", "").split("\n")
    )


def _difference(place: str, command: Command, output: str) -> str:
    return f"{place}: $ {command.line}\nshould print\n{command.expected.rstrip()}\nbut printed\n{output.rstrip()}"


def _start(line: str, folder: Path) -> subprocess.Popen[str]:
    programs = str(Path(sys.executable).parent)
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")}
    return subprocess.Popen(
        ["/bin/bash", "-c", line],
        cwd=folder,
        env={**variables, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A group of its own, so that what the command starts can be ended with it.
        start_new_session=True,
    )


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _free_port(taken: set[int] | set[str]) -> int:
    """Return a UDP port that is free on loopback, over IPv4 and IPv6, just now."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if str(port) not in taken:
            return port
