"""Network namespaces for tests: two machines that exist for one test, joined by a wire, with the kernel's own loss.

Theory of operation: a namespace belongs to a thread, to the sockets that the thread opens and the processes that it
starts while it is inside. It is never given a name, so nothing has to be deleted: it is gone with the last descriptor,
socket and process in it, also when the test is killed. Loss is nftables' ``numgen random`` where datagrams come in; a
drop where they go out would be told to the sender as EPERM. Nothing of the machine itself is touched or changed.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

__all__ = ["NetworkNamespace", "Passage", "Wire", "missing_for_namespaces"]

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET of <sched.h>; os.setns() and os.unshare() came with Python 3.12
_CURRENT: Final = "/proc/thread-self/ns/net"
_PATH: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_PATIENCE: Final = 30.0  # seconds for one command of ip or nft, which takes milliseconds


def missing_for_namespaces() -> str:
    """Return why no namespaces can be made here, as the reason of a skipped test; empty if they can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces exist on Linux only"
    for command in ("ip", "nft"):
        if shutil.which(command, path=_PATH) is None:
            return f"{command} is not installed (Debian: iproute2 and nftables)"
    try:
        NetworkNamespace().close()
    except PermissionError:
        return "making a network namespace takes root's rights"
    return ""


@final
class NetworkNamespace:
    """A network of its own: no device but a loopback that is down, no address, no rule.

    Raises:
        PermissionError: This process may not make one.
    """

    def __init__(self) -> None:
        with _coming_back():
            _system_call("unshare", _NEW_NETWORK)
            self._descriptor = os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        """What ``ip`` calls it by, while it is open."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def close(self) -> None:
        """Let go of it; it is gone when nothing else is in it."""
        os.close(self._descriptor)

    @contextmanager
    def entered(self) -> Iterator[Self]:
        """Be inside, with this thread only: the sockets it opens and the processes it starts belong there."""
        with _coming_back():
            _system_call("setns", self._descriptor, _NEW_NETWORK)
            yield self

    def run(self, *command: str, text: str = "") -> str:
        """Run a command inside and return its output.

        Args:
            command: Its name and arguments.
            text: Its standard input.

        Raises:
            AssertionError: It failed.
        """
        with self.entered():
            done = subprocess.run(
                command,
                input=text,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
                env={**os.environ, "PATH": _PATH},
            )
        if done.returncode:
            raise AssertionError(f"{' '.join(command)} failed with status {done.returncode}:\n{text}\n{done.stderr}")
        return done.stdout


class Passage(NamedTuple):
    """What nftables counted at one end of a wire."""

    arrived: int
    """Datagrams that came to the rule."""
    dropped: int
    """Of these, those that it dropped."""


@final
class Wire:
    """Two namespaces joined by a pair of virtual network cards; gone at the end of the ``with`` block.

    The addresses are of 198.18.0.0/15, which is set aside for networks under test (RFC 2544).

    Attributes:
        there: The namespace for the server.
        here: The namespace for the client.
    """

    THERE: Final = "198.18.0.1"
    """The server's address."""
    HERE: Final = "198.18.0.2"
    """The client's address."""

    def __init__(self) -> None:
        with ExitStack() as undo:
            self.there = NetworkNamespace()
            undo.callback(self.there.close)
            self.here = NetworkNamespace()
            undo.callback(self.here.close)
            self.here.run(
                *("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", self.there.path)
            )
            for namespace, address in ((self.there, self.THERE), (self.here, self.HERE)):
                namespace.run("ip", "address", "add", f"{address}/24", "dev", "veth0")
                namespace.run("ip", "link", "set", "lo", "up")
                # One packet for each datagram: several that are sent at once (UDP_SEGMENT) would be lost together.
                namespace.run("ip", "link", "set", "veth0", "gso_max_segs", "1")
                namespace.run("ip", "link", "set", "veth0", "up")
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def lose(self, namespace: NetworkNamespace, which: str, percent: int) -> None:
        """Let the kernel drop datagrams at random where they come in.

        Args:
            namespace: Where they come in: one end of the wire.
            which: Which ones, in the words of nftables, such as ``udp dport 10000``.
            percent: The share that is lost.
        """
        rules = f"""
            table ip loss {{
                counter arrived {{}}
                counter dropped {{}}
                chain input {{
                    type filter hook input priority 0; policy accept;
                    {which} counter name arrived
                    {which} numgen random mod 100 < {percent} counter name dropped drop
                }}
            }}
        """
        namespace.run("nft", "-f", "-", text=rules)

    def passage(self, namespace: NetworkNamespace) -> Passage:
        """Return what the rule of :meth:`lose` counted."""
        listed = json.loads(namespace.run("nft", "-j", "list", "counters"))["nftables"]
        counted = {entry["counter"]["name"]: entry["counter"]["packets"] for entry in listed if "counter" in entry}
        return Passage(**counted)


@contextmanager
def _coming_back() -> Iterator[None]:
    """Let this thread return to the namespace that it is in now."""
    home = os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        try:
            _system_call("setns", home, _NEW_NETWORK)
        finally:
            os.close(home)


def _system_call(name: str, *arguments: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
