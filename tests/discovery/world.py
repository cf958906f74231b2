"""What tests of discovery share: hosts of the simulated network that know their interfaces, questions and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twistedudp.discovery._wire import NO_RESULT, Answer, Question
from twistedudp.echo import EchoProtocol
from twistedudp.server import UDPServerService

if TYPE_CHECKING:
    from twistedudp.testing import SimulatedNetwork

__all__ = ["ASKER", "BROADCAST", "QUESTION_ID", "a_question", "an_answer", "host", "served"]

ASKER = "192.0.2.200"
BROADCAST = "255.255.255.255"
QUESTION_ID = b"question"


def host(network: SimulatedNetwork, *addresses: str) -> Any:
    """Add a host and return its reactor; everybody is attached to its network."""
    reactor: Any = network.reactor(*addresses)
    return reactor


def served(reactor: Any, name: str, serves: Any = EchoProtocol, interface: str = "0.0.0.0", **options: Any) -> Any:  # noqa: S104  # simulated
    """Start a discoverable server on a host, and return the service."""
    service = UDPServerService(reactor, 0, serves, interface, discoverable=name, **options)
    service.startService()
    return service


def a_question(**fields: Any) -> Question:
    """Return a question like any other, but for these fields."""
    question = Question(7, QUESTION_ID, 0, 1, b"", 800, None, [])
    return question._replace(**fields)


def an_answer(**fields: Any) -> Answer:
    """Return an answer like any other, but for these fields."""
    answer = Answer(7, b"answerer", "kitchen", "echo", "0.1.0", 0, 250_000, NO_RESULT)
    return answer._replace(**fields)
