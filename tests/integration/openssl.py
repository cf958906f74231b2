"""DTLS programs that nobody here wrote: OpenSSL's and GnuTLS's test clients and servers, as processes.

Theory of operation: each is a process whose standard input stays open and whose output is collected by a thread; a test
waits for text that it expects, never for time. OpenSSL's server cannot echo over DTLS ("Can't use -rev with DTLS"), so
the thread that reads what it received writes that to its standard input, which it sends.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from typing import IO, TYPE_CHECKING, Any, Final

from tests.integration.foreign import programs_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from twistedudp.address import Address

__all__ = ["GnuTLSClient", "GnuTLSServer", "OpenSSLClient", "OpenSSLServer", "Program"]

PATIENCE: Final = 60.0
"""Seconds after which something that has not happened never will, also on a machine that is busy with other tests."""

_PIPE: Final = subprocess.PIPE


class Program:
    """A running program; ended by its own id at the end of the ``with`` block.

    Args:
        command: Its name and arguments.
        reflects: With what lines begin that are given back to it when it prints them; empty for none.

    Attributes:
        process: The process.
    """

    def __init__(self, command: Sequence[str], *, reflects: str = "") -> None:
        self._changed = threading.Condition()
        self._output = ""
        self._open_streams = 2
        unbuffered, path = programs_path("stdbuf") or "stdbuf", programs_path(command[0]) or command[0]
        # No buffering between it and the test: what it prints it shall print at once.
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [unbuffered, "-o0", path, *command[1:]], stdin=_PIPE, stdout=_PIPE, stderr=_PIPE, text=True, bufsize=1
        )
        self._readers = [
            threading.Thread(target=self._collect, args=(stream, reflects))
            for stream in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        with self._changed:
            return self._output

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until it has printed a text so many times.

        Raises:
            AssertionError: It ended, or a minute passed, without.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._output.count(text) >= times or not self._open_streams, PATIENCE)
            if self._output.count(text) < times:
                raise AssertionError(f"{self.process.args!r} did not print {text!r}:\n{self._output}")

    def send(self, line: str) -> None:
        """Give it a line to send."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def echo(self, line: str) -> str:
        """Give it a line to send, and return what came back when it did."""
        times = self.output.count(line)
        self.send(line)
        self.wait_for(line, times + 1)
        return line

    def ended(self) -> str:
        """Wait for its end, and return all that it has printed."""
        self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return self._output

    def end(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            for reader in self._readers:
                reader.join(PATIENCE)
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                if stream is not None and not stream.closed:
                    _close(stream)

    def _collect(self, stream: IO[str], reflects: str) -> None:
        for line in stream:
            with self._changed:
                self._output += line
                self._changed.notify_all()
            if reflects and line.startswith(reflects):
                self.send(line.rstrip("\n"))
        with self._changed:
            self._open_streams -= 1
            self._changed.notify_all()


def _close(stream: IO[Any]) -> None:
    try:
        stream.close()
    except BrokenPipeError:  # what was still to be written to a program that has ended
        return


def _text(address: Address) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


class OpenSSLClient(Program):
    """``openssl s_client``, which refuses a certificate that does not hold.

    Args:
        address: The server.
        ca: The path of the authorities that it trusts.
        options: Further options.
        version: The DTLS version to offer.
    """

    def __init__(self, address: Address, ca: str, *options: str, version: str = "-dtls1_2") -> None:
        trust = ("-CAfile", ca, "-verify_return_error", "-quiet")
        super().__init__(["openssl", "s_client", version, "-connect", _text(address), *trust, *options])


class OpenSSLServer(Program):
    """``openssl s_server``, which is made to send back what begins with ``line``.

    Args:
        certificate: The path of its certificate.
        key: That of its key.
        options: Further options.
        version: The DTLS version to accept.

    Attributes:
        address: Where it listens.
    """

    def __init__(self, certificate: str, key: str, *options: str, version: str = "-dtls1_2") -> None:
        own = ("-cert", certificate, "-key", key)
        super().__init__(["openssl", "s_server", version, "-accept", "127.0.0.1:0", *own, *options], reflects="line ")
        self.wait_for("ACCEPT 127.0.0.1:")
        port = self.output.partition("ACCEPT 127.0.0.1:")[2].split()[0]
        self.address: Address = ("127.0.0.1", int(port))


class GnuTLSClient(Program):
    """``gnutls-cli``.

    Args:
        address: The server.
        ca: The path of the authorities that it trusts.
        options: Further options.
    """

    def __init__(self, address: Address, ca: str, *options: str) -> None:
        where = ("--port", str(address[1]), address[0])
        super().__init__(["gnutls-cli", "--udp", *where, "--x509cafile", ca, *options])


class GnuTLSServer(Program):
    """``gnutls-serv``, which echoes.

    Args:
        certificate: The path of its certificate.
        key: That of its key.
        options: Further options.

    Attributes:
        address: Where it listens.
    """

    def __init__(self, certificate: str, key: str, *options: str) -> None:
        # It cannot be told to choose a free port, and says nothing of one that is taken until it is too late.
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::", 0))
            port = probe.getsockname()[1]
        own = ("--x509certfile", certificate, "--x509keyfile", key)
        super().__init__(["gnutls-serv", "--udp", "--echo", "--port", str(port), *own, *options])
        self.wait_for("listening on IPv4")
        self.address: Address = ("127.0.0.1", port)
