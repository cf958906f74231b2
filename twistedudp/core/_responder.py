"""The server's half of the protocol: which datagrams are requests, and what their responses are.

Theory of operation: the same driving contract as the requester's. ``datagram_received`` turns a request into an event;
the owner runs the method, however long that takes, and gives its outcome to ``respond`` or ``respond_error``, which
put the response among the transmits. A notification is an event that wants no response. Nothing else is ever answered:
not a malformed datagram, not a response, not source port 0, so that no two servers can keep each other busy.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .._msgpack import decode_untrusted, encode_response
from ..errors import DecodeError, EncodeError, LimitExceeded
from ..messages import (
    CODE_BUSY,
    CODE_RESULT_NOT_ENCODABLE,
    CODE_RESULT_TOO_LARGE,
    CODE_SERVER_STOPPING,
    Request,
    Response,
)
from ._settings import ResponderSettings
from ._transmit import Transmit

if TYPE_CHECKING:
    from ..address import Address
    from ..messages import Notification

__all__ = ["IncomingRequest", "Responder", "ResponderStats"]


class IncomingRequest:
    """One request or notification to be run.

    Attributes:
        peer: Who sent it.
        message: What was sent.
        done: Whether it was answered.
    """

    __slots__ = ("done", "message", "peer")

    def __init__(self, peer: Address, message: Request | Notification) -> None:
        self.peer = peer
        self.message = message
        self.done = False


class ResponderStats:
    """Counters of a server, all of them since it was made.

    Attributes:
        requests: Requests handed out to be run.
        notifications: Notifications handed out to be run.
        responses: Results sent.
        errors: Errors sent, by code.
        rejected: Datagrams dropped in silence, by reason: ``malformed``, ``not_a_request``, ``too_large``,
            ``source_port_zero``, ``busy`` (notifications only: requests are answered).
    """

    __slots__ = ("errors", "notifications", "rejected", "requests", "responses")

    def __init__(self) -> None:
        self.requests = 0
        self.notifications = 0
        self.responses = 0
        self.errors: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()


class Responder:
    """The table of requests that are running.

    Args:
        settings: See there.
    """

    def __init__(self, settings: ResponderSettings | None = None) -> None:
        self.settings = settings or ResponderSettings()
        self.stats = ResponderStats()
        self._running: dict[IncomingRequest, None] = {}  # in order, so that equal runs are equal
        self._received: list[IncomingRequest] = []
        self._transmits: list[Transmit] = []

    def __len__(self) -> int:
        """Return how many requests are running."""
        return len(self._running)

    # Input

    def datagram_received(self, payload: bytes, peer: Address) -> None:
        """Take a datagram of any origin; cannot fail."""
        if len(payload) > self.settings.max_request_size:
            self.stats.rejected["too_large"] += 1
            return
        if not peer[1]:
            self.stats.rejected["source_port_zero"] += 1
            return
        try:
            message = decode_untrusted(payload)
        except DecodeError:
            self.stats.rejected["malformed"] += 1
            return
        if isinstance(message, Response):
            self.stats.rejected["not_a_request"] += 1
            return
        incoming = IncomingRequest(peer, message)
        if len(self._running) >= self.settings.max_running:
            self._refuse(incoming)
            return
        if type(message) is Request:
            self.stats.requests += 1
        else:
            self.stats.notifications += 1
        self._running[incoming] = None
        self._received.append(incoming)

    # Commands

    def respond(self, incoming: IncomingRequest, result: object) -> None:
        """Answer a request with its result; a result that cannot be sent is answered with the error that says so."""
        if not self._finish(incoming):
            return
        message = incoming.message
        assert isinstance(message, Request)  # noqa: S101  # _finish() is False for notifications
        try:
            payload = encode_response(message.msgid, None, result)
        except LimitExceeded as error:
            self._send_error(incoming, CODE_RESULT_TOO_LARGE, str(error))
            return
        except EncodeError as error:
            self._send_error(incoming, CODE_RESULT_NOT_ENCODABLE, str(error))
            return
        limit = self.settings.max_response_size
        if len(payload) > limit:
            text = f"the response would have {len(payload):,} bytes, more than the limit of {limit:,}"
            self._send_error(incoming, CODE_RESULT_TOO_LARGE, text)
            return
        self.stats.responses += 1
        self._transmits.append(Transmit(payload, incoming.peer, 0))

    def respond_error(self, incoming: IncomingRequest, code: str, message: str, data: object = None) -> None:
        """Answer a request with an error."""
        if self._finish(incoming):
            self._send_error(incoming, code, message, data)

    def close(self) -> None:
        """Answer everything that is running with the error that the server stops."""
        for incoming in list(self._running):
            self.respond_error(incoming, CODE_SERVER_STOPPING, "the server stopped while the method was running")

    # Outputs

    def transmits(self) -> list[Transmit]:
        """Return the datagrams to send, in order, and forget them."""
        transmits = self._transmits
        if transmits:
            self._transmits = []
        return transmits

    def events(self) -> list[IncomingRequest]:
        """Return the requests and notifications to run, in order, and forget them."""
        received = self._received
        if received:
            self._received = []
        return received

    def _refuse(self, incoming: IncomingRequest) -> None:
        if type(incoming.message) is Request:
            text = f"{len(self._running):,} requests are running, the most allowed; ask again later"
            self._send_error(incoming, CODE_BUSY, text)
        else:
            self.stats.rejected["busy"] += 1

    def _finish(self, incoming: IncomingRequest) -> bool:
        """End a request; tell whether a response is still to be sent."""
        if incoming.done:
            return False
        incoming.done = True
        self._running.pop(incoming, None)
        return type(incoming.message) is Request

    def _send_error(self, incoming: IncomingRequest, code: str, message: str, data: object = None) -> None:
        request = incoming.message
        assert isinstance(request, Request)  # noqa: S101  # notifications are never answered
        error: dict[str, object] = {"code": code, "message": message}
        try:
            payload = encode_response(request.msgid, error if data is None else {**error, "data": data}, None)
            fits = len(payload) <= self.settings.max_response_size
        except EncodeError:
            fits = False
        if not fits:
            # Its data, or the text of a method's own error, is the method's doing; the code alone always fits.
            code = code.encode("ascii", "replace")[:64].decode()
            payload = encode_response(request.msgid, {"code": code, "message": "(too large to send)"}, None)
        self.stats.errors[code] += 1
        self._transmits.append(Transmit(payload, incoming.peer, 0))
