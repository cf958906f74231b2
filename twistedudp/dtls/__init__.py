"""DTLS 1.2 under any ``DatagramProtocol``: a port, or a client, whose datagrams nobody else can read or forge.

Theory of operation: :class:`DTLSEndpoint` is a ``DatagramProtocol`` that is given to :func:`twistedudp.listen`; to the
protocol that it wraps it is the transport. :class:`DTLSClient` is the other side, a transport with one peer. Both take
a :class:`DTLSContext`, which holds the certificates. OpenSSL does the cryptography, the handshake and its
retransmissions, through pyOpenSSL's public names alone; what is ours is the way between datagrams and sessions, and the
bounds.

It needs the extra ``dtls`` (``pip install 'twistedudp[dtls]'``); importing it without raises
:class:`~twistedudp.errors.DTLSUnavailable`. No other part of twistedudp imports OpenSSL.

What a protocol may have beside its own methods, looked for by name as with
:class:`~twistedudp.interfaces.IUnreachableReceiver`:

* ``peer_verified(addr, certificate_name)``: a session with this address is open. It is told before any data of it. A
  peer that begins anew on the same address is told of again; it may be somebody else, who must not get what belongs to
  the former, such as kept responses.
* ``peer_lost(addr, reason)``: the session is no more: ``"closed"``, ``"idle"``, ``"replaced"``, ``"broken"``.
"""

from __future__ import annotations

from ..errors import DTLSUnavailable

try:
    from ._client import DTLSClient
    from ._context import DTLSContext
    from ._endpoint import DTLSEndpoint
    from ._limits import DTLSLimits, DTLSStats
except ImportError as error:
    raise DTLSUnavailable(
        f"DTLS needs more than what is installed ({error}): pip install 'twistedudp[dtls]' brings it"
    ) from error

__all__ = ["DTLSClient", "DTLSContext", "DTLSEndpoint", "DTLSLimits", "DTLSStats"]
