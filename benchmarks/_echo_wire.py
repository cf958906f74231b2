"""A wire between two network namespaces, on which each datagram is a packet of its own.

Theory of operation: on loopback a datagram that UDP_SEGMENT has put together travels in one piece, which flatters it.
Here a veth pair joins two namespaces, with segmentation offload off at both ends, so that the kernel cuts before it
sends: ethtool switches the device's features off; without it, ``gso_max_segs 1`` has the same effect. Namespaces have
no names and are gone with the last process in them. It takes root's rights.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _echo_build import NotUsable
from _echo_measure import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["wire"]

SERVER: Final = "198.18.0.1"
CLIENT: Final = "198.18.0.2"
"""Of the block for benchmarks, RFC 2544."""

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET of <sched.h>; os.unshare() and os.setns() came with Python 3.12
_CURRENT: Final = "/proc/thread-self/ns/net"
_PATH: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_LIMIT: Final = 30.0
"""Seconds for one command, which takes milliseconds."""


@contextmanager
def wire() -> Iterator[Place]:
    """Make a wire; it is gone when the block is left and what was started there has ended.

    Raises:
        NotUsable: It cannot be made here; the text says why.
    """
    if not sys.platform.startswith("linux") or shutil.which("ip", path=_PATH) is None:
        raise NotUsable("the command ip is not installed (Debian: apt install iproute2)")
    with ExitStack() as stack:
        try:
            there, here = (stack.enter_context(_namespace()) for _ in range(2))
        except PermissionError:
            raise NotUsable("making a network namespace takes root's rights") from None
        path = f"/proc/{os.getpid()}/fd/{there}"
        with _entered(here):
            _run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", path)
        for namespace, address in ((there, SERVER), (here, CLIENT)):
            with _entered(namespace):
                _run("ip", "address", "add", f"{address}/24", "dev", "veth0")
                _switch_offload_off()
                for device in ("lo", "veth0"):  # what a host sends to itself goes over lo
                    _run("ip", "link", "set", device, "up")
        yield Place("wire", SERVER, lambda: _entered(there), lambda: _entered(here), lambda: _packets(here))


def _packets(namespace: int) -> int:
    """Return how many packets have come to a namespace; one that the kernel was to cut but did not counts as one."""
    with _entered(namespace):
        lines = Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines()
    (counters,) = (line.partition(":")[2].split() for line in lines if line.strip().startswith("veth0:"))
    return int(counters[1])


def _switch_offload_off() -> None:
    if shutil.which("ethtool", path=_PATH):
        _run("ethtool", "-K", "veth0", "tso", "off", "gso", "off", "tx-udp-segmentation", "off")
    _run("ip", "link", "set", "veth0", "gso_max_segs", "1")


@contextmanager
def _namespace() -> Iterator[int]:
    with _coming_back():
        _system_call("unshare", _NEW_NETWORK)
        descriptor = os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _entered(namespace: int) -> Iterator[None]:
    with _coming_back():
        _system_call("setns", namespace, _NEW_NETWORK)
        yield


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


def _run(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_LIMIT, check=False, env={**os.environ, "PATH": _PATH}
    )
    if done.returncode:
        raise NotUsable(f"{' '.join(command)}: {done.stderr.strip()}")
