"""The errors: their family tree, their attributes, and texts that say what to do."""

from __future__ import annotations

import inspect

from twisted.trial.unittest import SynchronousTestCase

from twistedudp import errors
from twistedudp.errors import (
    BroadcastNotSupported,
    CannotSend,
    CircuitOpen,
    DatagramTooLarge,
    DecodeError,
    DTLSConfigurationError,
    DTLSHandshakeFailed,
    DTLSSessionLost,
    DTLSUnavailable,
    EncodeError,
    ErrorReplyReceived,
    HostNotFound,
    InvalidAddress,
    LimitExceeded,
    LocalError,
    MethodError,
    PeerReflects,
    PeerUnreachable,
    PluginError,
    RemoteError,
    RequestAborted,
    RequestTimedOut,
    ServiceNotRunning,
    TooManyRequests,
    TwistedUDPError,
)

PEER = ("127.0.0.1", 10000)


class FamilyTests(SynchronousTestCase):
    """Who is caught by which ``except``."""

    def test_all_is_complete(self) -> None:
        """The list of public names has every class that the module defines, and nothing else."""
        defined = [
            name
            for name, value in vars(errors).items()
            if inspect.isclass(value) and value.__module__ == errors.__name__
        ]
        self.assertEqual(sorted(errors.__all__), sorted(defined))

    def test_one_root(self) -> None:
        """Catching the root catches all of them."""
        for name in errors.__all__:
            self.assertTrue(issubclass(getattr(errors, name), TwistedUDPError), name)

    def test_whose_fault(self) -> None:
        """An error is the caller's, the other side's, or nobody's, and never two of these."""
        local = {
            InvalidAddress, EncodeError, LimitExceeded, DatagramTooLarge, BroadcastNotSupported, CannotSend,
            ServiceNotRunning, TooManyRequests, PluginError, DTLSConfigurationError, DTLSUnavailable,
        }  # fmt: skip
        remote = {
            CircuitOpen,
            DecodeError,
            HostNotFound,
            ErrorReplyReceived,
            PeerUnreachable,
            PeerReflects,
            DTLSHandshakeFailed,
            DTLSSessionLost,
        }
        nobodys = {RequestTimedOut, RequestAborted, MethodError}
        classes = {getattr(errors, name) for name in errors.__all__}
        self.assertEqual({each for each in classes if issubclass(each, LocalError)} - {LocalError}, local)
        self.assertEqual({each for each in classes if issubclass(each, RemoteError)} - {RemoteError}, remote)
        self.assertEqual(classes - local - remote - {LocalError, RemoteError, TwistedUDPError}, nobodys)

    def test_builtin_relatives(self) -> None:
        """Programs that know only Python's own errors catch what they would expect."""
        self.assertTrue(issubclass(RequestTimedOut, TimeoutError))
        for each in (InvalidAddress, EncodeError, LimitExceeded, DecodeError):
            self.assertTrue(issubclass(each, ValueError), each)

    def test_limit_is_an_encode_error(self) -> None:
        """Whoever catches EncodeError catches a value beyond the limits as well."""
        self.assertTrue(issubclass(LimitExceeded, EncodeError))


class TextTests(SynchronousTestCase):
    """What a person reads, and what a program reads."""

    def test_encode_error(self) -> None:
        """The path stands in front of the reason, and is left out where there is none."""
        error = EncodeError("it is bad", "params[0]")
        self.assertEqual((str(error), error.reason, error.path), ("params[0]: it is bad", "it is bad", "params[0]"))
        self.assertEqual(str(EncodeError("it is bad")), "it is bad")

    def test_datagram_too_large(self) -> None:
        """It tells the size, the limit, the difference, and both ways out."""
        error = DatagramTooLarge(70000, 8192)
        self.assertEqual((error.size, error.limit), (70000, 8192))
        for part in ("70,000", "61,808 more", "8,192", "send less", "max_datagram_size"):
            self.assertIn(part, str(error))

    def test_broadcast(self) -> None:
        """It names the address."""
        error = BroadcastNotSupported("255.255.255.255")
        self.assertEqual(error.host, "255.255.255.255")
        self.assertIn("255.255.255.255 is a broadcast or multicast address", str(error))
        self.assertIn("twistedudp.discover", str(error))

    def test_cannot_send(self) -> None:
        """It names the local address, and what to do."""
        error = CannotSend("192.0.2.1")
        self.assertEqual(error.interface, "192.0.2.1")
        self.assertIn("interface='192.0.2.1' is no address of this machine; name one that is", str(error))

    def test_plugin_error(self) -> None:
        """The text is the reason, the name is an attribute."""
        error = PluginError("nope", "there is no plugin nope")
        self.assertEqual((error.name, str(error)), ("nope", "there is no plugin nope"))

    def test_host_not_found(self) -> None:
        """It quotes the name, and the resolver's reason where there is one."""
        self.assertIn("'no.example' does not resolve;", str(HostNotFound("no.example")))
        error = HostNotFound("no.example", "NXDOMAIN")
        self.assertEqual(error.host, "no.example")
        self.assertIn("'no.example' does not resolve (NXDOMAIN);", str(error))

    def test_peer_unreachable(self) -> None:
        """It names the address as people write it, and what the network said."""
        error = PeerUnreachable(("::1", 7), "Connection refused")
        self.assertEqual((error.peer, error.reason), (("::1", 7), "Connection refused"))
        self.assertIn("[::1]:7 cannot be reached: Connection refused", str(error))

    def test_peer_reflects(self) -> None:
        """It says what listens there, and what to do."""
        error = PeerReflects(PEER)
        self.assertEqual(error.peer, PEER)
        self.assertIn("127.0.0.1:10000 sent the request back", str(error))
        self.assertIn("echo server", str(error))

    def test_timed_out(self) -> None:
        """It tells who was asked, how long, and with how many datagrams."""
        error = RequestTimedOut(4, 2.0004, [PEER, ("::1", 10000)])
        self.assertEqual((error.attempts, error.elapsed), (4, 2.0004))
        self.assertEqual(error.peers, (PEER, ("::1", 10000)))
        self.assertEqual(str(error), "no answer from 127.0.0.1:10000, [::1]:10000 within 2 s, after 4 datagrams")

    def test_timed_out_singular(self) -> None:
        """One datagram is no "datagrams"."""
        self.assertEqual(
            str(RequestTimedOut(1, 0.5, [PEER])), "no answer from 127.0.0.1:10000 within 0.5 s, after 1 datagram"
        )

    def test_timed_out_unresolved(self) -> None:
        """Where nothing was sent, no address is named, and the error says that the call's turn did not come."""
        error = RequestTimedOut(0, 2.0)
        text = "no answer within 2 s, after 0 datagrams; its turn to be sent did not come"
        self.assertEqual((str(error), error.peers), (text, ()))

    def test_circuit_open(self) -> None:
        """It names those that do not answer, and when the next call is let through."""
        error = CircuitOpen([PEER, ("::1", 7)], 2.5)
        self.assertEqual((error.peers, error.retry_in), ((PEER, ("::1", 7)), 2.5))
        text = "127.0.0.1:10000 and [::1]:7 did not answer the last calls, so this one was not sent"
        advice = "is a server running there? a call made in 2.5 s or later is sent, to see whether it is back"
        self.assertEqual(str(error), f"{text}; {advice}")

    def test_method_error(self) -> None:
        """It carries what the caller will get."""
        error = MethodError("no_such_user", "there is no such user", {"id": 5})
        self.assertEqual((error.code, error.message, error.data), ("no_such_user", "there is no such user", {"id": 5}))
        self.assertEqual(str(error), "no_such_user: there is no such user")
        self.assertIsNone(MethodError("a", "b").data)


class ErrorReplyTests(SynchronousTestCase):
    """The error object of a response, of any origin."""

    def test_of_our_servers(self) -> None:
        """The map of our servers becomes code, message and data."""
        error = ErrorReplyReceived.from_untrusted({"code": "busy", "message": "ask later", "data": [1]})
        self.assertEqual((error.code, error.message, error.data), ("busy", "ask later", [1]))
        self.assertEqual(str(error), "busy: ask later")

    def test_without_data(self) -> None:
        """Data may be missing."""
        self.assertIsNone(ErrorReplyReceived.from_untrusted({"code": "busy", "message": "ask later"}).data)

    def test_text(self) -> None:
        """A foreign server's text is the message."""
        error = ErrorReplyReceived.from_untrusted("method not found")
        self.assertEqual((error.code, error.message, error.data), ("", "method not found", "method not found"))
        self.assertEqual(str(error), "method not found")

    def test_any_object(self) -> None:
        """Any other object is shown in the message and kept whole."""
        foreign: object
        for foreign in ([-32601, "no"], 5, False, {"code": 5, "message": "x"}, {"code": "x"}, {"message": "x"}, {}):
            error = ErrorReplyReceived.from_untrusted(foreign)
            self.assertEqual((error.code, error.data), ("", foreign))
            self.assertEqual(error.message, f"the server sent the error {foreign!r}")
