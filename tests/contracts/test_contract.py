"""The contract itself: each of its tests finds the port that breaks it, and a known fault that is gone is noticed."""

from __future__ import annotations

import os
import unittest
from typing import TYPE_CHECKING, Any

from twisted.internet.epollreactor import EPollReactor
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.contracts.admission import BROKEN_AT_ADMISSION
from tests.contracts.broken import BROKEN_PORTS
from tests.contracts.broken_bursts import BROKEN_AT_BURSTS
from tests.contracts.contract import SECTIONS, contract_case, contract_tests
from tests.contracts.providers import (
    REACTORS,
    REQUIRE_COMPILED,
    Fault,
    OurPorts,
    PortProvider,
    missing_backend,
    provider_classes,
    uvloop,
)
from twistedudp.transport import DatagramPort
from twistedudp.transport._backend import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.protocol import DatagramProtocol

ALL_BROKEN_PORTS = {**BROKEN_PORTS, **BROKEN_AT_BURSTS, **BROKEN_AT_ADMISSION}
"""A broken port for each test of the contract."""


def broken_provider(port_class: type[DatagramPort]) -> type[OurPorts]:
    """Return a provider whose ports are of a class given, on the epoll reactor."""

    class BrokenPorts(OurPorts):
        """Ports with a fault."""

        name = port_class.__name__
        backend = "scalar"
        make_reactor = EPollReactor
        # What is broken stays so, however long one waits.
        patience = PortProvider.patience if port_class is DatagramPort else 0.15

        def listen(
            self, protocol: DatagramProtocol, interface: str = "127.0.0.1", port: int = 0, **options: Any
        ) -> Any:
            """Listen with the broken port."""
            options.pop("multicast", None)
            limit = options.pop("max_datagram_size", 65535)
            broken = port_class(self.reactor, port, protocol, interface, limit, backend=self.backend, **options)
            broken.startListening()
            return broken

    return BrokenPorts


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
        self.assertEqual(set(contract_tests()), set(ALL_BROKEN_PORTS))
        self.assertEqual(set(), set(BROKEN_PORTS) & set(BROKEN_AT_BURSTS))

    def test_sound_port(self) -> None:
        """A port without fault passes where the broken ones fail."""
        self.assertTrue(run("test_datagram", DatagramPort).wasSuccessful())

    def test_lacks_name_sections(self) -> None:
        """Every section that a provider does not claim to fulfil is one of the contract's."""
        for provider in provider_classes():
            self.assertEqual(set(), provider.lacks - {section.__name__ for section in SECTIONS}, provider.name)

    def test_faults_name_tests(self) -> None:
        """Every fault that a provider is known to have is that of a test in the contract."""
        for provider in provider_classes():
            self.assertEqual(set(), set(provider.expected_faults) - set(contract_tests()), provider.name)


def _refuses(name: str) -> Callable[[Any], None]:
    def test(self: Any) -> None:
        result = run(name, ALL_BROKEN_PORTS[name])
        self.flushLoggedErrors()
        self.assertFalse(result.wasSuccessful(), f"{ALL_BROKEN_PORTS[name].__name__} passes {name}")

    test.__doc__ = f"{ALL_BROKEN_PORTS[name].__name__} does not pass {name}."
    return test


for _name in ALL_BROKEN_PORTS:
    setattr(BrokenPortTests, _name.replace("test_", "test_refuses_", 1), _refuses(_name))
del _name


class ProviderTests(SynchronousTestCase):
    """The contract is held against every port that there is."""

    def test_providers(self) -> None:
        """Each backend and Twisted's port on each reactor, and the simulator, are held to it."""
        names = {provider.name for provider in provider_classes()}
        backends = [backend.title() for backend in BACKENDS if not missing_backend(backend)]
        expected = {kind + reactor for kind in [*backends, "Twisted"] for reactor in REACTORS}
        self.assertEqual({"Simulated", *expected}, names)

    def test_compiled_backend(self) -> None:
        """The compiled backend is held to it, or the reason why not is shown; where it must be there, it is."""
        if missing := missing_backend("mmsg"):
            if os.environ.get(REQUIRE_COMPILED, "") not in ("", "0"):
                self.fail(f"{REQUIRE_COMPILED} is set, but: {missing}")
            raise SkipTest(missing)
        self.assertEqual(set(REACTORS), {each.name[4:] for each in provider_classes() if each.backend == "mmsg"})

    def test_uvloop(self) -> None:
        """Ports on uvloop's loop are held to it, where it is installed."""
        if uvloop is None:
            raise SkipTest("uvloop is not installed: pip install uvloop")
        self.assertIn("ScalarUvloop", [provider.name for provider in provider_classes()])


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
