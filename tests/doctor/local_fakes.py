"""A machine for the doctor's ``--local`` that a test makes: its proc file system and its packet filter's programs."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from twistedudp.doctor._local import System

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

    from twistedudp.doctor._local_diag import SocketDetails

__all__ = ["FakeMachine", "socket_line"]

HEADER = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer "
    "drops\n"
)
LOOPBACK = "0100007F"
EVERYWHERE = "00000000"
SNMP = "Ip: Forwarding DefaultTTL\nIp: 1 64\nUdp: {names}\nUdp: {numbers}\nUdpLite: InDatagrams\nUdpLite: 0\n"


def socket_line(
    *,
    local: str = EVERYWHERE,
    port: int = 10000,
    remote: str = "00000000:0000",
    state: int = 7,
    queued: int = 0,
    uid: int = 0,
    inode: int = 5,
    drops: int = 0,
) -> str:
    """Return a line of ``/proc/net/udp`` as the kernel writes it."""
    return (
        f" 1234: {local}:{port:04X} {remote} {state:02X} 00000000:{queued:08X} 00:00000000 00000000 {uid:5d}        0 "
        f"{inode} 2 0000000000000000 {drops}\n"
    )


class FakeMachine:
    """A proc file system and a directory of programs, gone at the end of the ``with`` block.

    Attributes:
        proc: The former.
        programs: The latter.
        details: What the kernel tells beyond the tables.
        pauses: How often somebody has waited.
        while_waiting: What happens meanwhile.
    """

    def __init__(self) -> None:
        self._undo = ExitStack()
        folder = Path(self._undo.enter_context(tempfile.TemporaryDirectory(prefix="twistedudp-test-")))
        self.proc, self.programs = folder / "proc", folder / "bin"
        (self.proc / "net").mkdir(parents=True)
        self.programs.mkdir()
        self.details: dict[int, SocketDetails] = {}
        self.pauses: list[float] = []
        self.while_waiting: Callable[[], object] = lambda: None
        self.table("udp")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    @property
    def system(self) -> System:
        """What to examine."""
        return System(
            linux=True, proc=self.proc, programs=str(self.programs), ask=lambda _: self.details, sleep=self._sleep
        )

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.while_waiting()

    def write(self, name: str, text: str | bytes) -> None:
        """Write a file of proc."""
        path = self.proc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    def table(self, name: str, *lines: str) -> None:
        """Write a table of sockets; see :func:`socket_line`."""
        self.write(f"net/{name}", HEADER + "".join(lines))

    def counters(self, counters: Mapping[str, int]) -> None:
        """Write ``/proc/net/snmp``."""
        self.write("net/snmp", SNMP.format(names=" ".join(counters), numbers=" ".join(map(str, counters.values()))))

    def process(self, pid: int, name: str, *inodes: int, status: str = "", words: tuple[str, ...] = ()) -> None:
        """Make a process that has sockets open."""
        self.write(f"{pid}/comm", name + "\n")
        self.write(f"{pid}/status", status)
        self.write(f"{pid}/cmdline", "\0".join(words))
        (self.proc / str(pid) / "fd").mkdir()
        for number, inode in enumerate(inodes):
            (self.proc / str(pid) / "fd" / str(number)).symlink_to(f"socket:[{inode}]")

    def program(self, name: str, script: str) -> None:
        """Install a program for the shell."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def prints(self, name: str, text: str) -> None:
        """Install a program that prints a text."""
        (self.programs / f"{name}.txt").write_text(text, encoding="utf-8")
        self.program(name, f"exec cat '{self.programs / name}.txt'")
