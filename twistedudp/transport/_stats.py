"""What a port has counted.

Theory of operation: a plain object with integers, one per port for its whole life. The port adds to it, anybody may
read it at any time, nobody needs to be told. Each bound and each loss of the transport has its number here: what is not
delivered or not sent is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["DatagramStats"]


@dataclass(slots=True)
class DatagramStats:
    """The counters of one port, since it was made.

    ``datagrams_received`` and ``bytes_received`` are brought up to date at the end of each read turn; while a datagram
    is being delivered they do not yet hold that turn. ``system_calls`` and ``dropped_by_kernel`` are brought up to date
    whenever ``port.stats`` is read.
    """

    datagrams_received: int = 0
    """Datagrams delivered to the protocol."""
    bytes_received: int = 0
    """Their payloads, in bytes."""
    datagrams_sent: int = 0
    """Datagrams that the kernel took; whether they arrive is another matter."""
    bytes_sent: int = 0
    """Their payloads, in bytes."""
    received_together: int = 0
    """Of the datagrams received, those that shared a buffer with others (UDP_GRO)."""
    sent_together: int = 0
    """Of the datagrams sent, those that shared a system call with others (UDP_SEGMENT)."""
    turns: int = 0
    """Read turns: how often the reactor found the port readable."""
    turns_cut_short: int = 0
    """Read turns that ended because of a bound (datagrams or time) while more may have been waiting."""
    truncated: int = 0
    """Datagrams larger than ``max_datagram_size``: dropped, never delivered cut."""
    dropped_by_kernel: int = 0
    """Datagrams lost to a full receive buffer, as the kernel counts them (SO_RXQ_OVFL, SO_MEMINFO; Linux only):
    datagrams that it had put together (UDP_GRO) count as one."""
    system_calls: int = 0
    """Calls that received or sent, successful or not."""
    batches: int = 0
    """Groups of datagrams received by one system call, or put together for the protocol; a single one is a group."""
    send_waited: int = 0
    """Datagrams that had to wait for room in the send buffer."""
    send_queue_dropped: int = 0
    """Datagrams dropped because too many waited so already, or still waited when the port was closed."""
    unreachable: int = 0
    """ICMP errors, and those of the own kernel, about datagrams that this port had sent."""
    reports_dropped: int = 0
    """Of these, the ones not told to the protocol because too many came at once."""
    path_mtu_reports: int = 0
    """ICMP messages about a smaller path MTU; the kernel fragments accordingly from then on."""
    callback_errors: int = 0
    """Exceptions that the protocol's callbacks let out; ten in a second are in the log."""
    written_after_stop: int = 0
    """Datagrams written to the port when it was closed already; they went nowhere."""
    hops_exhausted: int = 0
    """Answers not sent because what they answer had no hop left to give (``listen(answer_hops=True)``)."""
    routes_forgotten: int = 0
    """Peers whose return path was dropped to keep the table within its bound."""
    receive_buffer: int = 0
    """The receive buffer that the kernel granted, in bytes of its own accounting (SO_RCVBUF, undoubled)."""
    send_errors: dict[int, int] = field(default_factory=dict)
    """Datagrams lost at sending, by ``errno``: full buffers, no route, a firewall."""
    receive_errors: dict[int, int] = field(default_factory=dict)
    """Errors met instead of a datagram at receiving, by ``errno``; no datagram is lost to them."""

    def count_send_error(self, number: int) -> None:
        """Count a datagram that the network did not take.

        Args:
            number: The ``errno``.
        """
        self.send_errors[number] = self.send_errors.get(number, 0) + 1

    def count_receive_error(self, number: int) -> None:
        """Count an error that came instead of a datagram.

        Args:
            number: The ``errno``.
        """
        self.receive_errors[number] = self.receive_errors.get(number, 0) + 1
