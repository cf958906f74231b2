"""Who holds a UDP port, told from a proc file system that a test makes."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.properties import PROPERTY
from twistedudp.transport import port_holder
from twistedudp.transport._holder import ListedSocket, Process, listed_sockets, parse_socket_table, socket_processes

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref\n"
LINE = " 123: {local}:{port:04X} 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 {inode} 2 0 0\n"

LOOPBACK = "0100007F"
EVERYWHERE = "00000000"
LOOPBACK6 = "00000000000000000000000001000000"
EVERYWHERE6 = "0" * 32
MAPPED_LOOPBACK = "0000000000000000FFFF00000100007F"


class ProcTestCase(SynchronousTestCase):
    """A proc file system that the test makes."""

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


class HolderTests(ProcTestCase):
    """Who stands in the way of a port."""

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


RECORDED = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1234: 0100007F:2710 00000000:0000 07 00000000:00001D40 00:00000000 00000000  1000        0 5 2 0000000000000000 883
  567: 010012C6:2711 020012C6:0009 01 00000000:00000000 00:00000000 00000000     0        0 6 2 0000000000000000 0
"""
RECORDED6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1234: 00000000000000000000000000000000:2710 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 7 2 0000000000000000 0
"""  # noqa: E501  # as the kernel writes it
RECORDED_TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2710 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 8 1 00000000000000 99 0 0 0 0
"""
NOWHERE = ("0.0.0.0", 0)  # noqa: S104  # compared with, not bound to


class TableTests(ProcTestCase):
    """The sockets of a table, and their processes."""

    def test_recorded(self) -> None:
        """Tables as Linux 6.18 writes them."""
        if socket.htons(1) == 1:
            self.skipTest("the recorded addresses are those of a little-endian machine")
        ipv4, ipv6 = socket.AF_INET, socket.AF_INET6
        waiting, connected = parse_socket_table(RECORDED)
        self.assertEqual(ListedSocket("127.0.0.1", 10000, NOWHERE, 7, 7488, 1000, 5, 883, ipv4), waiting)
        self.assertEqual(ListedSocket("198.18.0.1", 10001, ("198.18.0.2", 9), 1, 0, 0, 6, 0, ipv4), connected)
        self.assertEqual((False, True), (waiting.connected, connected.connected))
        self.assertEqual([ListedSocket("::", 10000, ("::", 0), 7, 0, 0, 7, 0, ipv6)], parse_socket_table(RECORDED6))
        (listener,) = parse_socket_table(RECORDED_TCP)
        self.assertEqual((10, 10000, 8), (listener.state, listener.port, listener.inode))

    def test_one_bad_line(self) -> None:
        """A line that is not understood is left out, and the others stay."""
        lines = RECORDED.splitlines(keepends=True)
        for broken in (
            "x\n",
            " 1: -100007F:2710 00000000:0000 07 0:0 0 0 0 0 0 0 0\n",
            "\x00\n",
            lines[1].replace("7F", "ZZ"),
        ):
            self.assertEqual(2, len(parse_socket_table("".join((lines[0], broken, *lines[1:])))), broken)

    @PROPERTY
    @given(
        st.text(alphabet=st.sampled_from("0123456789ABCDEF: -\n") | st.characters(), max_size=200), st.integers(0, 100)
    )
    def test_any_table(self, text: str, at: int) -> None:
        """Any text has some sockets or none."""
        line = RECORDED.splitlines()[1]
        for table in (text, line[:at] + text + line[at:]):
            for listed in parse_socket_table(table):
                self.assertTrue(0 <= listed.port <= 65535)

    def test_tables(self) -> None:
        """Both tables make one list; a table that is not there has nothing."""
        self.table("udp", (LOOPBACK, 1, 5))
        self.table("udp6", (EVERYWHERE6, 2, 6))
        self.assertEqual([5, 6], [listed.inode for listed in listed_sockets(self.proc)])
        self.assertEqual([], listed_sockets(self.proc, ("tcp",)))
        (self.proc / "net" / "udp6").write_bytes(b"\xff" * 1000)
        self.assertEqual([5], [listed.inode for listed in listed_sockets(self.proc)])

    def test_processes(self) -> None:
        """Each socket has its processes, in the order of their ids, and no more is looked for than asked."""
        self.process(10, "worker", "socket:[5]", "socket:[6]", "socket:[5]")
        self.process(9, "other", "socket:[6]", "socket:[7]", "anon_inode:[6]")
        expected = {5: [Process(10, "worker")], 6: [Process(9, "other"), Process(10, "worker")]}
        self.assertEqual(expected, socket_processes([5, 6, 8], self.proc))
        self.assertEqual({}, socket_processes([], self.proc / "none"))
        self.assertEqual({}, socket_processes([5], self.proc / "none"))

    def test_descriptor_that_closes(self) -> None:
        """A descriptor that was closed since it was listed hides none of the others, in whatever order they come."""
        self.process(7, "server", *(f"socket:[{number}]" for number in range(20)))
        for number in range(20, 40):
            (self.proc / "7" / "fd" / str(number)).write_text("no link any more", encoding="ascii")
        self.assertEqual(set(range(20)), set(socket_processes(range(40), self.proc)))
