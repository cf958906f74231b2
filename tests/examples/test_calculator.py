"""The example calculator, called over the simulated network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.examples.loading import load_example
from twistedudp import _msgpack
from twistedudp.messages import Response
from twistedudp.server import UDPServerService
from twistedudp.testing import SimulatedNetwork

if TYPE_CHECKING:
    from twistedudp.address import Address

HOST = "192.0.2.1"


class Caller(DatagramProtocol):
    """Notes the responses that it gets."""

    noisy = False

    def __init__(self) -> None:
        self.responses: list[Any] = []

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Note a response."""
        self.responses.append(_msgpack.decode_untrusted(datagram))


class CalculatorTests(SynchronousTestCase):
    """Each method, right and wrong."""

    def call(self, method: str, *params: object) -> Response:
        """Call a method and return the response."""
        network = SimulatedNetwork()
        calculator = load_example("calculator").Calculator()
        # This caller would not know how to prove its address.
        service = UDPServerService(network.reactor(HOST), 10000, calculator, HOST, prove_addresses=False)
        service.startService()
        caller = Caller()
        network.reactor().listenUDP(0, caller).write(_msgpack.encode_request(1, method, params), (HOST, 10000))
        network.run_until_idle()
        (response,) = caller.responses
        assert isinstance(response, Response)
        return response

    def test_results(self) -> None:
        """It calculates, also with whole numbers."""
        self.assertEqual(self.call("add", 1, 2.5).result, 3.5)
        self.assertEqual(self.call("subtract", 1, 2).result, -1.0)
        self.assertEqual(self.call("multiply", 3, 4).result, 12.0)
        self.assertEqual(self.call("divide", 1, 4).result, 0.25)
        self.assertEqual(self.call("mean", [3.14159, 2.71828, 1.41421]).result, 2.42469333333333333)

    def test_errors(self) -> None:
        """What cannot be calculated has an error code of its own."""
        for method, params, code in (("divide", (22, 0), "division_by_zero"), ("mean", ([],), "no_numbers")):
            error: Any = self.call(method, *params).error
            self.assertEqual(error["code"], code)
        self.assertIn("22 cannot be divided by zero", str(self.call("divide", 22, 0).error))

    def test_not_a_number(self) -> None:
        """Parameters are checked before a method runs."""
        error: Any = self.call("add", 1, "2").error
        self.assertEqual(error["code"], "wrong_parameter_type")
