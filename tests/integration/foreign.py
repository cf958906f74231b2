"""UDP echo servers that nobody here wrote, as processes on a loopback of their own.

Theory of operation: each is started in a network namespace, for inetd's echo service has a port of its own, 7, which a
test must not take from the machine; and there nobody else answers. A server that is ready cannot say so: it is asked
until it answers.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.integration.netns import NetworkNamespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twistedudp.address import Address

__all__ = ["FOREIGN_SERVERS", "foreign_server", "missing_program", "programs_path"]

_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_PATIENCE: Final = 30.0  # seconds after which a server that has not answered never will
_ECHO_PORT: Final = 7  # RFC 862


def programs_path(name: str) -> str | None:
    """Return where a program is, None where it is not installed."""
    return shutil.which(name, path=_PATH)


def _socat(host: str, _folder: Path) -> tuple[list[str], int]:
    ipv6 = ":" in host
    where = f"[{host}]" if ipv6 else host
    return ["socat", f"UDP{6 if ipv6 else 4}-RECVFROM:10000,bind={where},fork,reuseaddr", "SYSTEM:cat"], 10000


def _ncat(host: str, _folder: Path) -> tuple[list[str], int]:
    return ["ncat", "-6" if ":" in host else "-4", "-u", "-l", "-k", host, "10000", "--exec", "/bin/cat"], 10000


def _inetd(host: str, folder: Path) -> tuple[list[str], int]:
    configuration = folder / "inetd.conf"
    kind = "udp6" if ":" in host else "udp4"
    configuration.write_text(f"echo dgram {kind} wait root internal\n", encoding="ascii")
    return ["inetutils-inetd", "-d", "-R", "1000000", str(configuration)], _ECHO_PORT


FOREIGN_SERVERS: Final[dict[str, Callable[[str, Path], tuple[list[str], int]]]] = {
    "socat": _socat,
    "ncat": _ncat,
    "inetutils-inetd": _inetd,
}
"""Each program, with what makes its command and its port of a host and a folder to write to."""


def missing_program(name: str) -> str:
    """Return why a server cannot be started here, as the reason of a skipped test; empty if it can."""
    if programs_path(name) is None:
        return f"{name} is not installed (Debian: {name})"
    return ""


@contextmanager
def foreign_server(name: str, host: str) -> Iterator[Address]:
    """Run one of :data:`FOREIGN_SERVERS` on a loopback of its own; this thread is on that loopback meanwhile.

    Args:
        name: Which.
        host: ``127.0.0.1`` or ``::1``.
    """
    with ExitStack() as undo:
        namespace = NetworkNamespace()
        undo.callback(namespace.close)
        namespace.run("ip", "link", "set", "lo", "up")
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="twistedudp-test-")))
        undo.enter_context(namespace.entered())
        command, port = FOREIGN_SERVERS[name](host, folder)
        command[0] = programs_path(command[0]) or command[0]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": _PATH},
            start_new_session=True,
        )
        undo.callback(process.wait, _PATIENCE)
        undo.callback(_end_session, process)
        _wait_until_it_answers((host, port), process)
        yield host, port


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """End a server with what it has started for its clients, which all are in the session made for it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def _wait_until_it_answers(server: Address, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + _PATIENCE
    while time.monotonic() < ends and process.poll() is None:
        # A fresh socket each time: some of these servers keep a process for each client.
        with socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(0.05)
            try:
                asker.connect(server)
                asker.send(b"there?")
                if asker.recv(100) == b"there?":
                    return
            except (TimeoutError, ConnectionRefusedError):
                pass
    raise AssertionError(f"{process.args!r} does not answer at {server}")
