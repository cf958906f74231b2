"""Everything that twistedudp raises on purpose, and what to do about each.

Theory of operation: one root, :class:`TwistedUDPError`, so that ``except TwistedUDPError`` catches all of it, and
below it a split by *whose fault it was*. A :class:`LocalError` means that you asked for something which cannot be
done: repeating it will not help. A :class:`RemoteError` means that the peer or the network said no.
:class:`RequestTimedOut` is nobody's fault that can be proven: nothing came. Attributes are for programs, the text is
for people.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .address import format_address, max_payload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .address import Address

__all__ = [
    "BroadcastNotSupported",
    "CannotSend",
    "CircuitOpen",
    "DTLSConfigurationError",
    "DTLSHandshakeFailed",
    "DTLSSessionLost",
    "DTLSUnavailable",
    "DatagramTooLarge",
    "DecodeError",
    "EncodeError",
    "ErrorReplyReceived",
    "HostNotFound",
    "InvalidAddress",
    "LimitExceeded",
    "LocalError",
    "MethodError",
    "PeerReflects",
    "PeerUnreachable",
    "PluginError",
    "RemoteError",
    "RequestAborted",
    "RequestTimedOut",
    "ServiceNotRunning",
    "TooManyRequests",
    "TwistedUDPError",
]


class TwistedUDPError(Exception):
    """The root: catching it catches everything that twistedudp raises on purpose."""


class LocalError(TwistedUDPError):
    """You asked for something that cannot be done; nothing was sent."""


class InvalidAddress(LocalError, ValueError):
    """A host, port or ``HOST:PORT`` text that cannot be one."""


class EncodeError(LocalError, ValueError):
    """A value that cannot be sent, or that a peer of ours would refuse to decode.

    Attributes:
        path: Where in the value the fault is, as text: ``params[0]['name']``.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path


class LimitExceeded(EncodeError):
    """A value of the right kinds that nests too deeply or has too many lists and maps for a peer's decoder."""


class DatagramTooLarge(LocalError):
    """The encoded datagram is larger than the limit; split it, or raise the limit at both ends.

    Attributes:
        size: Bytes that the datagram would have.
        limit: Bytes that it may have.
    """

    def __init__(self, size: int, limit: int, *, can_be_raised: bool = True) -> None:
        is_final = not can_be_raised or limit >= max_payload("")
        advice = "" if is_final else ", or raise max_datagram_size here and the server's max_request_size"
        super().__init__(
            f"the datagram would have {size:,} bytes, {size - limit:,} more than the limit of {limit:,}; "
            f"send less at once{advice}"
        )
        self.size = size
        self.limit = limit


class BroadcastNotSupported(LocalError):
    """The address is a broadcast address, and a request has one peer; :func:`twistedudp.discover` asks many."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} is a broadcast or multicast address: a request goes to one server, name that server's own address "
            "(twistedudp.discover asks many at once)"
        )
        self.host = host


class CannotSend(LocalError):
    """The local address to send from is none of this machine.

    Attributes:
        interface: The address that was asked for.
    """

    def __init__(self, interface: str) -> None:
        super().__init__(f"interface={interface!r} is no address of this machine; name one that is, or leave it empty")
        self.interface = interface


class ServiceNotRunning(LocalError):
    """The client service has not been started, or has been stopped.

    The difference to :class:`RequestAborted`: here nothing was sent.
    """


class TooManyRequests(LocalError):
    """More requests are waiting for their responses than the client's bound allows; send fewer at once."""


class PluginError(LocalError):
    """A protocol plugin that is unknown, broken, named twice, or given options it does not take.

    Attributes:
        name: The plugin's name as asked for.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class DTLSUnavailable(LocalError):
    """DTLS cannot be had: the extra ``dtls`` is not installed, or its OpenSSL has a fault that would be dangerous."""


class DTLSConfigurationError(LocalError, ValueError):
    """A certificate, a key or another setting for DTLS that cannot be used; the text says which, and why."""


class RemoteError(TwistedUDPError):
    """The peer or the network said no."""


class DecodeError(RemoteError, ValueError):
    """Bytes from the network that are not what they should be: the only error that decoding raises."""


class HostNotFound(RemoteError):
    """The server's name does not resolve.

    Attributes:
        host: The name that was looked up.
    """

    def __init__(self, host: str, reason: str = "") -> None:
        detail = f" ({reason})" if reason else ""
        super().__init__(f"the host name {host!r} does not resolve{detail}; check the spelling and the name server")
        self.host = host


class ErrorReplyReceived(RemoteError):
    """The server answered the call with an error.

    The difference to :class:`RequestTimedOut`: the server is there and has understood the request.

    Attributes:
        code: The error's code, such as ``"unknown_method"``; empty where a foreign server sent none.
        message: The error's text.
        data: What else the server sent with it, or ``None``; a foreign server's error object, whole.
    """

    def __init__(self, code: str, message: str, data: object = None) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code
        self.message = message
        self.data = data

    @classmethod
    def from_untrusted(cls, error: object) -> ErrorReplyReceived:
        """Make the caller's error of what a server sent: our servers send a map, foreign ones any object but nil."""
        if isinstance(error, dict):
            code, message = error.get("code"), error.get("message")
            if isinstance(code, str) and isinstance(message, str):
                return cls(code, message, error.get("data"))
        return cls("", error if isinstance(error, str) else f"the server sent the error {error!r}", error)

    @property
    def retry_after(self) -> float | None:
        """Seconds after which a server that is ``busy`` wants to be asked again; ``None`` where it did not say."""
        hint: Any = self.data.get("retry_after") if isinstance(self.data, dict) else None
        return float(hint) if type(hint) in (int, float) and 0 <= hint < math.inf else None


class PeerUnreachable(RemoteError):
    """The network said that nobody takes datagrams there (an ICMP error that quotes this request).

    The difference to :class:`RequestTimedOut`: there was an answer, from the host or a router, and it came at once.

    Attributes:
        peer: The address that was asked.
        reason: What the network said, as text: ``"Connection refused"``.
    """

    def __init__(self, peer: Address, reason: str) -> None:
        super().__init__(f"{format_address(peer)} cannot be reached: {reason}; is a server running there?")
        self.peer = peer
        self.reason = reason


class CircuitOpen(RemoteError):
    """The last calls to the server all ran out without an answer, so that this one was not even sent.

    The difference to :class:`RequestTimedOut`: it comes at once. One call in each cool-down is let through to see
    whether the server is back; any answer of it ends this state.

    Attributes:
        peers: The addresses that do not answer.
        retry_in: Seconds until the next call is let through.
    """

    def __init__(self, peers: Sequence[Address], retry_in: float) -> None:
        where = " and ".join(map(format_address, peers))
        super().__init__(
            f"{where} did not answer the last calls, so this one was not sent; is a server running there? a call made "
            f"in {retry_in:.3g} s or later is sent, to see whether it is back"
        )
        self.peers = tuple(peers)
        self.retry_in = retry_in


class DTLSHandshakeFailed(RemoteError):
    """No DTLS session with the peer came about, so that nothing was sent.

    Attributes:
        peer: The address that was tried.
        reason: A short stable word for programs: ``"no_answer"``, ``"wrong_ca"``, ``"wrong_name"``, ``"expired"``,
            ``"not_allowed"``, ``"refused"`` (the peer's alert; the text tells it), ``"unreachable"``, ``"failed"``.
        attempts: How many handshakes were begun, each from a port of its own.
    """

    def __init__(self, peer: Address, reason: str, text: str, attempts: int = 1) -> None:
        tries = "" if attempts == 1 else f" (after {attempts} attempts)"
        super().__init__(f"no DTLS session with {format_address(peer)}: {text}{tries}")
        self.peer = peer
        self.reason = reason
        self.attempts = attempts


class DTLSSessionLost(RemoteError):
    """The DTLS session that the call was sent in has ended, and no answer can come in it any more.

    The call may or may not have run, so it was not repeated in another session. Calls that say ``idempotent=True`` are.

    Attributes:
        peer: The server's address.
        reason: How it ended, in words.
    """

    def __init__(self, peer: Address, reason: str) -> None:
        super().__init__(
            f"{format_address(peer)}: {reason} while the call was waiting; it may have run, so it was not repeated "
            "(idempotent=True allows that)"
        )
        self.peer = peer
        self.reason = reason


class PeerReflects(RemoteError):
    """A call came back byte for byte: the peer is an echo server, not an rpc server.

    Attributes:
        peer: The address that was asked.
    """

    def __init__(self, peer: Address) -> None:
        super().__init__(
            f"{format_address(peer)} sent the request back as it was: an echo server listens there; "
            "use echo() with it, or serve rpc there"
        )
        self.peer = peer


class RequestTimedOut(TwistedUDPError, TimeoutError):
    """No answer came before the deadline.

    It is also a builtin :class:`TimeoutError`; it is neither ``twisted.internet.defer.TimeoutError`` (what
    ``Deferred.addTimeout`` fails with) nor ``twisted.internet.error.TimeoutError`` (a failed connection).

    Attributes:
        attempts: Datagrams that were sent for the request; 0 if its server's address was not even known, or if it had
            to wait behind others (the window).
        elapsed: Seconds from the call to this error.
        peers: The addresses that were tried.
    """

    def __init__(self, attempts: int, elapsed: float, peers: Sequence[Address] = ()) -> None:
        where = " from " + ", ".join(map(format_address, peers)) if peers else ""
        datagrams = "1 datagram" if attempts == 1 else f"{attempts} datagrams"
        turn = "; its turn to be sent did not come" if not attempts else ""
        seconds = f"{elapsed:.3g}" if elapsed < 1000 else f"{elapsed:,.0f}"
        super().__init__(f"no answer{where} within {seconds} s, after {datagrams}{turn}")
        self.attempts = attempts
        self.elapsed = elapsed
        self.peers = tuple(peers)


class RequestAborted(TwistedUDPError):
    """The client service was stopped while the request was waiting; it may or may not have run."""


class MethodError(TwistedUDPError):
    """Raise this in a method to answer the call with an error of your own.

    The caller's Deferred fails with :class:`ErrorReplyReceived` carrying the same code, message and data.

    Attributes:
        code: A short stable word for programs.
        message: A sentence for people.
        data: Anything that msgpack carries, or ``None``.
    """

    def __init__(self, code: str, message: str, data: object = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.data = data
