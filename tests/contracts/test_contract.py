"""The contract itself: each of its tests finds the port that breaks it, and a known fault that is gone is noticed."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING, Any

from twisted.internet.epollreactor import EPollReactor
from twisted.trial.unittest import SynchronousTestCase

from tests.contracts.broken import BROKEN_PORTS, broken_provider
from tests.contracts.contract import contract_case, contract_tests
from tests.contracts.providers import Fault, provider_classes
from twistedudp.transport import DatagramPort

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def run(name: str, port_class: type[DatagramPort], faults: Mapping[str, Fault] | None = None) -> unittest.TestResult:
    """Run one test of the contract on a port."""
    provider = broken_provider(port_class)
    provider.expected_faults = faults or {}
    result = unittest.TestResult()
    contract_case(contract_tests()[name], provider)(name).run(result)
    return result


class BrokenPortTests(SynchronousTestCase):
    """For each test of the contract, a port that it refuses."""

    def test_each_test_has_a_broken_port(self) -> None:
        """There is no test in the contract of which it is not known that it can fail."""
        self.assertEqual(set(contract_tests()), set(BROKEN_PORTS))

    def test_sound_port(self) -> None:
        """A port without fault passes where the broken ones fail."""
        self.assertTrue(run("test_datagram", DatagramPort).wasSuccessful())

    def test_faults_name_tests(self) -> None:
        """Every fault that a provider is known to have is that of a test in the contract."""
        for provider in provider_classes():
            self.assertEqual(set(), set(provider.expected_faults) - set(contract_tests()), provider.name)


def _refuses(name: str) -> Callable[[Any], None]:
    def test(self: Any) -> None:
        result = run(name, BROKEN_PORTS[name])
        self.flushLoggedErrors()
        self.assertFalse(result.wasSuccessful(), f"{BROKEN_PORTS[name].__name__} passes {name}")

    test.__doc__ = f"{BROKEN_PORTS[name].__name__} does not pass {name}."
    return test


for _name in BROKEN_PORTS:
    setattr(BrokenPortTests, _name.replace("test_", "test_refuses_", 1), _refuses(_name))
del _name


class KnownFaultTests(SynchronousTestCase):
    """A fault on the list must be there, and be the one that the list describes."""

    def test_fault_is_there(self) -> None:
        """A test that fails as known passes."""
        faults = {"test_empty_datagram": Fault("empty datagrams get lost", "no datagram arrived")}
        self.assertTrue(run("test_empty_datagram", BROKEN_PORTS["test_empty_datagram"], faults).wasSuccessful())

    def test_fault_is_gone(self) -> None:
        """A test that does not fail any more is a failure that says so."""
        result = run("test_empty_datagram", DatagramPort, {"test_empty_datagram": Fault("empty ones get lost", "no")})
        self.assertIn("the known fault is gone", result.failures[0][1])

    def test_fault_is_another(self) -> None:
        """A test that fails in another way is a failure that says so."""
        faults = {"test_empty_datagram": Fault("it explodes", "boom")}
        result = run("test_empty_datagram", BROKEN_PORTS["test_empty_datagram"], faults)
        self.assertIn("it fails in another way than known", result.failures[0][1])

    def test_reactors_are_not_installed(self) -> None:
        """Each provider has a reactor of its own, so that tests of one cannot disturb those of another."""
        first, second = (broken_provider(DatagramPort)() for _ in range(2))
        self.addCleanup(first.close)
        self.addCleanup(second.close)
        self.assertIsInstance(first.reactor, EPollReactor)
        self.assertNotIdentical(first.reactor, second.reactor)
