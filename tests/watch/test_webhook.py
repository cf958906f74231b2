"""The webhook with an HTTP agent that answers as a test says: order, attempts, bounds, what is thrown away."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer

from tests.watch.test_command import change
from twistedudp.errors import LocalError
from twistedudp.watch import Webhook, checked_url
from twistedudp.watch._notify import MAX_WAITING
from twistedudp.watch._webhook import PAUSES, WEBHOOK_TIMEOUT

REFUSED: Any = Refused()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
URL = "https://alerts.example/udpprobe?key=1"


class Connection:
    """What a response's body comes over."""

    def __init__(self) -> None:
        self.aborted = False

    def abortConnection(self) -> None:
        """Take note."""
        self.aborted = True


class Response:
    """An answer whose body a test delivers."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.headers = Headers({})
        self.length = 0
        self.body: Any = None
        self.connection = Connection()

    def deliverBody(self, protocol: Any) -> None:
        """Take who wants the body."""
        self.body = protocol
        protocol.makeConnection(self.connection)

    def end(self) -> None:
        """End the body."""
        self.body.connectionLost(Failure(ResponseDone()))  # type: ignore[no-untyped-call]  # Twisted has no annotation here


@implementer(IAgent)
class Agent:
    """Keeps requests for the test to answer.

    Attributes:
        requests: Method, URL, decoded body, and the Deferred of each.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes, Any, Deferred[Any]]] = []
        self.cancelled = 0

    def request(self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None) -> Any:
        """Keep it."""
        waiting: Deferred[Any] = Deferred(self._cancel)
        assert headers is not None
        assert headers.getRawHeaders(b"content-type") == [b"application/json; charset=UTF-8"]
        self.requests.append((method, uri, bodyProducer._inputFile.getvalue(), waiting))  # as treq has it
        return waiting

    def _cancel(self, _: object) -> None:
        self.cancelled += 1


class WebhookTests(SynchronousTestCase):
    """Posting."""

    def setUp(self) -> None:
        """Make one."""
        self.reactor = Clock()
        self.agent = Agent()
        self.webhook = Webhook(self.reactor, URL, agent=self.agent)
        self.addCleanup(lambda: self.assertEqual(self.reactor.getDelayedCalls(), []))
        self.addCleanup(self.webhook.stop)

    def answer(self, code: int) -> Response:
        """Answer the last request."""
        response = Response(code)
        self.agent.requests[-1][3].callback(response)
        response.end()
        return response

    def counts(self) -> list[int]:
        """Return how many were told, failed and dropped."""
        return [count() for _, count in self.webhook.counters.values()]

    def test_post(self) -> None:
        """A change is one JSON object with all of its fields; what is not known is null."""
        self.webhook.tell(change())
        ((method, uri, body, _),) = self.agent.requests
        self.assertEqual((method, uri), (b"POST", URL.encode()))
        self.assertEqual(
            json.loads(body),
            {
                "target": "web",
                "address": "192.0.2.1:7",
                "state": "down",
                "previous": "up",
                "reason": "no_answer",
                "says": "5 probes in a row failed",
                "loss": 0.25,
                "p50": 0.001,
                "p99": None,
                "jitter": 0.0,
                "time": 1.5,
            },
        )
        self.answer(204)
        self.assertEqual(self.counts(), [1, 0, 0])

    def test_order(self) -> None:
        """One at a time, in order."""
        for number in range(3):
            self.webhook.tell(change(f"t{number}"))
        for number in range(3):
            self.assertEqual(len(self.agent.requests), number + 1)
            self.answer(200)
        self.assertEqual(self.counts(), [3, 0, 0])

    def test_again(self) -> None:
        """What may pass is tried again after growing pauses, and in the end it is given up, counted and told."""
        with capturedLogs() as events:
            self.webhook.tell(change())
            for number, pause in enumerate(PAUSES):
                self.assertEqual(len(self.agent.requests), number + 1)
                self.answer(503 if number % 2 else 429)
                self.reactor.advance(pause - 0.01)
                self.assertEqual(len(self.agent.requests), number + 1)
                self.reactor.advance(0.02)
            self.assertEqual(self.counts(), [0, 0, 0])
            self.answer(500)
        self.assertEqual(self.counts(), [0, 1, 0])
        self.assertIn(
            "that web is down could not be told: the receiver answered with status 500", eventAsText(events[-1])
        )

    def test_passes(self) -> None:
        """Told at the second attempt is told."""
        self.webhook.tell(change())
        self.agent.requests[-1][3].errback(REFUSED)
        self.reactor.advance(PAUSES[0])
        self.answer(200)
        self.assertEqual(self.counts(), [1, 0, 0])

    def test_final(self) -> None:
        """What will not pass is not tried again, redirections among it; the next change is told."""
        with capturedLogs():
            for code in (301, 400, 401, 404):
                self.webhook.tell(change())
                self.answer(code)
        self.assertEqual((self.counts(), len(self.agent.requests)), ([0, 4, 0], 4))

    def test_timeout(self) -> None:
        """No answer, or one that does not end, is given up and tried again."""
        self.webhook.tell(change())
        self.reactor.advance(WEBHOOK_TIMEOUT + 0.1)
        self.assertEqual(self.agent.cancelled, 1)
        self.reactor.advance(PAUSES[0])
        response = Response(200)
        self.agent.requests[-1][3].callback(response)
        response.body.dataReceived(b"x")
        self.reactor.advance(WEBHOOK_TIMEOUT + 0.1)
        self.assertTrue(response.connection.aborted)
        self.reactor.advance(PAUSES[1])
        self.answer(200)
        self.assertEqual(self.counts(), [1, 0, 0])

    def test_endless_body(self) -> None:
        """A body without end is cut; what counts is the status."""
        self.webhook.tell(change())
        response = Response(200)
        self.agent.requests[-1][3].callback(response)
        for _ in range(20):
            response.body.dataReceived(b"x" * 4096)
        self.assertTrue(response.connection.aborted)
        response.end()
        self.assertEqual(self.counts(), [1, 0, 0])

    def test_connection_error(self) -> None:
        """Why there was no connection is told."""
        with capturedLogs() as events:
            self.webhook.tell(change())
            for pause in (*PAUSES, 0):
                self.agent.requests[-1][3].errback(REFUSED)
                self.reactor.advance(pause)
        self.assertIn("Connection was refused by other side", eventAsText(events[-1]))

    def test_bounded(self) -> None:
        """When too many wait the oldest are dropped and counted."""
        with capturedLogs() as events:
            for number in range(MAX_WAITING + 4):
                self.webhook.tell(change(f"t{number}"))
        self.assertEqual(self.counts(), [0, 0, 3])
        self.assertIn("webhook: more than 1,000 changes wait", eventAsText(events[0]))

    def test_stop(self) -> None:
        """A POST under way and one that waits for its next attempt are given up; nothing is left or logged."""
        self.webhook.tell(change())
        self.webhook.tell(change())
        self.successResultOf(self.webhook.stop())
        self.assertEqual(self.agent.cancelled, 1)
        self.webhook.tell(change())
        self.assertEqual(len(self.agent.requests), 1)
        again = Webhook(self.reactor, URL, agent=self.agent)
        again.tell(change())
        self.answer(500)
        self.successResultOf(again.stop())
        self.assertEqual(self.flushLoggedErrors(), [])


class URLTests(SynchronousTestCase):
    """``--webhook``."""

    def test_right(self) -> None:
        """HTTP and HTTPS."""
        for text in (URL, "http://127.0.0.1:8080", "http://[::1]:80/x"):
            self.assertEqual(checked_url(text), text)

    def test_wrong(self) -> None:
        """Anything else is told with an example."""
        for text in ("", "alerts.example", "ftp://a/", "https://", "http://a:b/", "http://a:0/", "http://a:70000/",
                     "http://[::1/", "http://ä.example/", "http://a/ b", "http://a/\n"):  # fmt: skip
            error = self.assertRaises(LocalError, checked_url, text)
            self.assertEqual(
                str(error), f"--webhook: {text!r} is not a URL; write for example https://alerts.example/udpprobe"
            )
