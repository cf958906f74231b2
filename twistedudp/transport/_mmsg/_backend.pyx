"""The backend that moves many datagrams with one system call, compiled.

Theory of operation: reading and delivering is the base class's (``_reader``), queueing and sending ``_outgoing``'s;
here is what a protocol writes. A reply is recognised by its address being the very tuple that was delivered, so nothing
is looked up or parsed for it. What is written while datagrams are being delivered leaves together; else at once.

Only the way of datagrams between a living protocol and peers that it has heard is compiled. All that is rare is done by
a :class:`~twistedudp.transport._scalar.ScalarBackend` on the same socket, which knows whose fault an error is, what to
raise, how to connect and how to wait for room: an address that was not heard, a datagram too large, any send that the
kernel refuses. That way both backends have one behaviour.
"""

from cpython.buffer cimport PyObject_CheckBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.errno cimport EINVAL
from libc.stdint cimport uint64_t

from ._linux cimport (
    IP_MTU_DISCOVER,
    IP_PMTUDISC_WANT,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPV6_MTU_DISCOVER,
    getsockopt,
    socklen_t,
)
from ._outgoing cimport QUEUE_ROOM, Outgoing
from ._peers cimport (
    ALWAYS_FITS,
    HOPS_IPV6,
    IN_PKTINFO_SIZE,
    NO_HOPS,
    Peer,
    connected_peer,
    hop_messages,
    kernel_address,
    path_bytes,
)
from ._reader cimport Reader

import os
import socket

from twisted.internet.error import MessageLengthError

from .. import _kernel
from .._arguments import CALLERS_ERRORS, check_peer
from .._capabilities import can_segment
from .._routes import Routes
from .._scalar import ScalarBackend


cdef class MmsgBackend(Reader):
    """Serves a port's socket; see ``Backend`` in ``_backend.py`` for what its methods are for.

    Args:
        port_socket: The :class:`~twistedudp.transport._backend.PortSocket`.
    """

    cdef int _descriptor
    cdef bint _ipv6
    cdef bint _discovers
    cdef uint64_t _discovers_known

    def __init__(self, port_socket):
        handle = port_socket.handle
        routes = Routes(
            handle,
            port_socket.stats,
            wildcard=port_socket.wildcard,
            to_group=port_socket.to_group,
            return_path=port_socket.return_path,
        )
        slow = ScalarBackend(
            handle,
            port_socket.protocol,
            port_socket.stats,
            routes,
            port_socket.reports,
            size_limit=port_socket.size_limit,
            watch_writable=port_socket.watch_writable,
        )
        super().__init__(port_socket, slow)
        self._descriptor = handle.fileno()
        self._ipv6 = handle.family == socket.AF_INET6
        self.outgoing = Outgoing(self._descriptor, self._send_failed)
        self.outgoing.segments = can_segment(handle)

    def send_waiting(self):
        """Send what waited for room in the send buffer. Raises nothing."""
        self.slow.send_waiting()
        self.blocked = bool(self.slow._waiting)

    def send(self, datagram, addr):
        """Send one datagram; the network's faults are counted, the caller's raised.

        Raises: as :meth:`twistedudp.transport._scalar.ScalarBackend.send`.
        """
        cdef Peer peer = self._peer_of(addr)
        if not PyBytes_CheckExact(datagram) and PyObject_CheckBuffer(datagram):
            datagram = bytes(datagram)
        if self.queues and self.outgoing.count == QUEUE_ROOM:
            self.outgoing.flush()  # before it is asked whether anything waits for room
        if (
            peer is None
            or self.blocked
            or self.outgoing.flushing
            or not PyBytes_CheckExact(datagram)
            or PyBytes_GET_SIZE(datagram) > peer.most
            or peer.port_zero
            or peer.path.hops & ~HOPS_IPV6 == NO_HOPS
            or (self.queues and PyBytes_GET_SIZE(datagram) > ALWAYS_FITS and self._discovers_mtu())
        ):
            self._send_slowly(datagram, addr, peer)
        elif self.queues:
            self.outgoing.add(<bytes>datagram, peer, &peer.path, peer.turn == self.batch)
        else:
            self._send_alone(datagram, peer)

    def send_batch(self, datagrams):
        """Send several datagrams; return those that ``send`` would have raised an error for."""
        cdef bint outside = not self.queues
        refused = []
        self.queues = self.queues or not self.blocked
        try:
            for datagram, addr in datagrams:
                try:
                    self.send(datagram, addr)
                except CALLERS_ERRORS as error:
                    refused.append((datagram, addr, error))
        finally:
            if outside:
                self.queues = False
                self.outgoing.flush()
                self.publish()
        return refused

    def connect(self, addr):
        """Let the socket have one peer, to which ``send`` then sends without an address."""
        self.slow.connect(addr)
        self.connected = connected_peer((addr[0], addr[1]))

    def stop(self):
        """Deliver nothing any more, also if a turn is just running; ``send`` goes on until the socket is closed."""
        self.delivers = False
        self.slow.stop()
        if self.wakeup is not None and self.wakeup.active():
            self.wakeup.cancel()
        self.wakeup = None
        if not self.in_turn:
            self.incoming.clear()

    def close(self):
        """Send what still waits if the kernel takes it, count the rest as dropped; the socket is about to be closed."""
        self.outgoing.flush()
        self.queues = False
        self.slow.close()
        self.publish()
        self.outgoing.forget()

    def refresh_stats(self):
        """Bring those counters up to date which the kernel keeps."""
        self.publish()
        self.slow.refresh_stats()

    cdef Peer _peer_of(self, addr):
        """Return the peer that is written to, None where the slow way has to look at the address."""
        if self.connected is not None:
            return self.connected if addr is None or addr == self.connected.addr else None
        if self.current is not None and addr is self.current.addr:
            return self.current
        return None if addr is None else self.incoming.peers.find(addr)

    cdef int _send_slowly(self, datagram, addr, Peer peer) except -1:
        """Send what is not everyday business, after what was written before it."""
        self.outgoing.flush()
        self.publish()
        if peer is None and addr is not None:
            check_peer(addr)
        if peer is None or not PyBytes_CheckExact(datagram) or PyBytes_GET_SIZE(datagram) > peer.most:
            self.slow.send(datagram, addr)
        elif peer.path.hops & ~HOPS_IPV6 == NO_HOPS:
            self.stats.hops_exhausted += 1
        elif peer.port_zero and peer.turn == self.batch:
            self.stats.count_send_error(EINVAL)  # anybody can send from port 0: no mistake of the protocol's
        elif self.slow._waiting:
            self.slow._waiting.put(datagram, self._way(peer, path_bytes(&peer.path), peer.path.hops))
        else:
            self._send_alone(datagram, peer)
        self.blocked = bool(self.slow._waiting)
        return 0

    cdef int _send_alone(self, datagram, Peer peer) except -1:
        """Send one datagram at once; raises what the caller did wrong."""
        cdef int number = self.outgoing.send_now(PyBytes_AS_STRING(datagram), PyBytes_GET_SIZE(datagram), peer)
        self.publish()
        if number:
            self._judge(datagram, peer, path_bytes(&peer.path), peer.path.hops, number)
        return 0

    def _send_failed(self, bytes datagram, Peer peer, bytes path, int hops, int number):
        """Deal with a queued datagram that the kernel did not take: nobody is left to raise an error to.

        Returns:
            Whether datagrams wait for room in the send buffer now.
        """
        try:
            self._judge(datagram, peer, path, hops, number)
        except (OSError, MessageLengthError) as error:
            self.stats.count_send_error(getattr(error, "errno", None) or number)
        return self.blocked

    cdef int _judge(self, bytes datagram, Peer peer, bytes path, int hops, int number) except -1:
        """Have the other backend decide what an error means; raises what the caller did wrong."""
        if number == EINVAL:
            peer.path.size = 0  # the address that was asked may be gone from this host
        self.slow._send_failed(OSError(number, os.strerror(number)), datagram, peer.addr, self._way(peer, path, hops))
        self.blocked = bool(self.slow._waiting)
        return 0

    cdef tuple _way(self, Peer peer, bytes path, int hops):
        """Return where a datagram goes as Python's ``sendmsg`` takes it; the peer's own path may be another by now."""
        if not peer.sockaddr_size:
            return None, []
        sockaddr = kernel_address(peer)
        limited = hop_messages(hops)
        if not path:
            return sockaddr, limited
        if len(path) == IN_PKTINFO_SIZE:
            return sockaddr, [(socket.IPPROTO_IP, _kernel.IP_PKTINFO, path), *limited]
        return sockaddr, [(socket.IPPROTO_IPV6, _kernel.IPV6_PKTINFO, path), *limited]

    cdef bint _discovers_mtu(self) except -1:
        """Tell whether the socket refuses what exceeds the path's MTU; looked up once a batch, for large datagrams."""
        cdef int mode = IP_PMTUDISC_WANT
        cdef socklen_t size = sizeof(mode)
        if self._discovers_known != self.batch:
            self._discovers_known = self.batch
            getsockopt(self._descriptor, IPPROTO_IP, IP_MTU_DISCOVER, &mode, &size)
            self._discovers = mode > IP_PMTUDISC_WANT
            if self._ipv6 and not self._discovers:
                getsockopt(self._descriptor, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &mode, &size)
                self._discovers = mode > IP_PMTUDISC_WANT
        return self._discovers
