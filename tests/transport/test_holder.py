"""Who holds a UDP port, told from a proc file system that a test makes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.transport import port_holder

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref\n"
LINE = " 123: {local}:{port:04X} 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 {inode} 2 0 0\n"

LOOPBACK = "0100007F"
EVERYWHERE = "00000000"
LOOPBACK6 = "00000000000000000000000001000000"
EVERYWHERE6 = "0" * 32
MAPPED_LOOPBACK = "0000000000000000FFFF00000100007F"


class HolderTests(SynchronousTestCase):
    """Tables and processes."""

    def setUp(self) -> None:
        """Make an empty proc."""
        folder = tempfile.TemporaryDirectory()  # mktemp() leaves its files behind under pytest
        self.addCleanup(folder.cleanup)
        self.proc = Path(folder.name, "proc")
        (self.proc / "net").mkdir(parents=True)
        self.table("udp")

    def table(self, name: str, *sockets: tuple[str, int, int]) -> None:
        """Write a table of sockets: packed host, port, inode."""
        lines = [LINE.format(local=local, port=port, inode=inode) for local, port, inode in sockets]
        (self.proc / "net" / name).write_text(HEADER + "".join(lines), encoding="ascii")

    def process(self, pid: int, name: str, *links: str) -> None:
        """Make a process that has something open."""
        directory = self.proc / str(pid)
        (directory / "fd").mkdir(parents=True)
        (directory / "comm").write_text(name + "\n", encoding="utf-8")
        for number, link in enumerate(links):
            (directory / "fd" / str(number)).symlink_to(link)

    def holder(self, host: str = "", port: int = 10000) -> str | None:
        """Ask."""
        return port_holder(port, host, proc=self.proc)

    def test_free(self) -> None:
        """A port that nobody has has no holder, whoever has others."""
        self.table("udp", (LOOPBACK, 10001, 5))
        self.process(7, "other", "socket:[5]")
        self.assertIdentical(None, self.holder())

    def test_held(self) -> None:
        """The holder is told by name and pid."""
        self.table("udp", (LOOPBACK, 10000, 5))
        self.process(6, "bystander", "/dev/null", "socket:[4]", "pipe:[5]")
        self.process(7, "twistd", "/dev/null", "socket:[5]")
        (self.proc / "self").mkdir()
        self.assertEqual("twistd (pid 7)", self.holder("127.0.0.1"))

    def test_several(self) -> None:
        """Workers that share a socket are all told."""
        self.table("udp", (EVERYWHERE, 10000, 5))
        self.process(8, "worker", "socket:[5]")
        self.process(7, "worker", "socket:[5]")
        self.assertEqual("worker (pid 7), worker (pid 8)", self.holder())

    def test_foreign_process(self) -> None:
        """A holder whose descriptors cannot be read is not known."""
        self.table("udp", (LOOPBACK, 10000, 5))
        (self.proc / "7").mkdir()
        self.assertIdentical(None, self.holder())

    def test_collisions(self) -> None:
        """Only who stands in the way is named."""
        self.process(7, "x", "socket:[5]")
        any4 = "0.0.0.0"  # noqa: S104  # looked up, not bound to
        for local, wanted, collides in (
            (LOOPBACK, "127.0.0.1", True),
            (LOOPBACK, "127.0.0.2", False),
            (LOOPBACK, "", True),
            (LOOPBACK, any4, True),
            (LOOPBACK, "::", True),
            (LOOPBACK, "::1", False),
            (EVERYWHERE, "127.0.0.1", True),
            (EVERYWHERE, "::1", False),
            (LOOPBACK6, "::1", True),
            (LOOPBACK6, "127.0.0.1", False),
            (LOOPBACK6, "", False),
            (LOOPBACK6, "fe80::1%lo", False),
            (EVERYWHERE6, "127.0.0.1", True),
            (EVERYWHERE6, "fe80::1%lo", True),
            (MAPPED_LOOPBACK, "127.0.0.1", True),
        ):
            self.table("udp" if len(local) == 8 else "udp6", (local, 10000, 5))
            self.assertEqual("x (pid 7)" if collides else None, self.holder(wanted), (local, wanted))
            self.table("udp")
            self.table("udp6")

    def test_no_proc(self) -> None:
        """Without a proc file system nothing is known."""
        self.assertIdentical(None, port_holder(10000, proc=self.proc / "none"))

    def test_garbage(self) -> None:
        """A table that cannot be understood is no reason to fail."""
        for text in ("header\nx\n", "header\n 1: nothex:zzzz a b c d e f g h i\n", "header\n1: 00:2710\n"):
            (self.proc / "net" / "udp").write_text(text, encoding="ascii")
            self.assertIdentical(None, self.holder(), text)

    def test_process_that_ends(self) -> None:
        """A process that has lost its name between two looks is no reason to fail."""
        self.table("udp", (LOOPBACK, 10000, 5))
        self.process(7, "twistd", "socket:[5]")
        (self.proc / "7" / "comm").unlink()
        self.assertIdentical(None, self.holder())
