"""The pytest plugin, in pytest processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

import twistedudp

PLUGIN = "twistedudp.testing.pytest_plugin"

PREAMBLE = """
import pytest
from twisted.internet.protocol import DatagramProtocol

class Echo(DatagramProtocol):
    noisy = False

    def datagramReceived(self, datagram, addr):
        self.transport.write(datagram, addr)
"""


class PluginTestCase(SynchronousTestCase):
    """A folder with a test module."""

    def setUp(self) -> None:
        """Make the folder."""
        folder = tempfile.TemporaryDirectory(prefix="twistedudp-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_pytest(self, module: str, *arguments: str, seed: str = "") -> tuple[int, str]:
        """Run pytest on a module; return its exit status and its output."""
        (self.folder / "test_it.py").write_text(
            (PREAMBLE if module else "") + textwrap.dedent(module), encoding="utf-8"
        )
        options = ["-q", "-p", "no:cacheprovider", "-p", PLUGIN, "-W", "error", "--strict-markers"]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
            "PYTHONPATH": str(Path(twistedudp.__file__).parent.parent),
            "TWISTEDUDP_SEED": seed,
            # The plugin alone, whatever else is installed, and whether twistedudp is.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.mark.heavy
class FixtureTests(PluginTestCase):
    """The fixture."""

    def test_passes(self) -> None:
        """A test that passes says nothing; the marker's arguments are the network's."""
        status, output = self.run_pytest("""
            @pytest.mark.simulated_network(effects="loss=100%", delay=0.5, names={"server.example": ["192.0.2.1"]})
            def test_lost(simulated_network):
                reactor = simulated_network.reactor("192.0.2.1")
                port = reactor.listenUDP(9, Echo())
                port.write(b"x", ("192.0.2.1", 9))
                simulated_network.run_until(port.stopListening())
                assert [record.cause for record in simulated_network.trace] == ["Loss"]
                assert simulated_network.look_up("server.example") == ["192.0.2.1"]
                assert simulated_network.seed == 0
        """)
        self.assertEqual((status, "1 passed" in output), (0, True), output)

    def test_fails(self) -> None:
        """One that fails shows the seed, the diagram and the command; the leftovers of such a test are not told."""
        module = """
            def test_it(simulated_network):
                reactor = simulated_network.reactor("192.0.2.1")
                reactor.listenUDP(9, Echo()).write(b"hello", ("192.0.2.1", 10))
                simulated_network.advance(1)
                assert simulated_network.seed < 0
        """
        status, output = self.run_pytest(module, seed="7")
        self.assertEqual(status, 1)
        self.assertRegex(output, r"-+ simulated network -+\nseed 7\n")
        self.assertIn('"hello", 5 B, to itself: refused, nobody listens', output)
        self.assertIn("run it again: python -m pytest --twistedudp-seed=7 test_it.py::test_it\n", output)
        self.assertIn("1 failed", output)
        self.assertNotIn("error", output.splitlines()[-1])
        self.assertIn("seed 8\n", self.run_pytest(module, "--twistedudp-seed=8", seed="7")[1])

    def test_leftovers(self) -> None:
        """What is left behind fails the test at its end, unless it is wanted."""
        status, output = self.run_pytest("""
            def test_port(simulated_network):
                simulated_network.reactor("192.0.2.1").listenUDP(9, Echo())

            def test_call(simulated_network):
                simulated_network.reactor().callLater(1, print)

            @pytest.mark.simulated_network(leftovers=True)
            class TestWanted:
                def test_port(self, simulated_network):
                    simulated_network.reactor("192.0.2.1").listenUDP(9, Echo())
        """)
        self.assertEqual(status, 1)
        self.assertIn("port 9 of 192.0.2.1 is still bound, by <test_it.Echo", output)
        self.assertIn("a delayed call of <SimulatedReactor 198.18.0.1 2001:db8::1> is still pending", output)
        self.assertIn("or mark it with @pytest.mark.simulated_network(leftovers=True)", output)
        self.assertIn("(nothing was sent)", output)
        self.assertIn("3 passed, 2 errors", output)

    def test_many_seeds(self) -> None:
        """With a range each test runs once for each seed, beside its own parameters, and the command names one."""
        module = """
            @pytest.mark.parametrize("size", [1, 2])
            def test_it(size, simulated_network):
                assert (simulated_network.seed, size) != (3, 2)

            @pytest.mark.simulated_network(seed=3)
            def test_fixed(simulated_network):
                assert simulated_network.seed == 3

            def test_without():
                pass
        """
        status, output = self.run_pytest(module, "--twistedudp-seed=0-9")
        self.assertEqual(status, 1)
        self.assertIn("1 failed, 21 passed", output)
        self.assertIn("run it again: python -m pytest --twistedudp-seed=3 'test_it.py::test_it[2]'\n", output)
        status, output = self.run_pytest(module, "--twistedudp-seed=3", "test_it.py::test_it[2]")
        self.assertIn("1 failed", output)

    def test_wrong_marker(self) -> None:
        """An argument without a name is an error in one line, instead of a network without faults."""
        status, output = self.run_pytest("""
            @pytest.mark.simulated_network("loss=99%")
            def test_it(simulated_network):
                pass
        """)
        self.assertEqual(status, 1)
        self.assertIn("was given 'loss=99%'; its arguments have names: effects='loss=5%'", output)
        self.assertNotIn("Traceback", output)

    def test_seed_of_the_effects(self) -> None:
        """A seed in the effects' text holds where none was chosen."""
        status, output = self.run_pytest("""
            @pytest.mark.simulated_network(effects="loss=99%,seed=9")
            def test_it(simulated_network):
                assert simulated_network.seed == 9
        """)
        self.assertEqual((status, "1 passed" in output), (0, True), output)

    def test_too_many_seeds(self) -> None:
        """More seeds than anybody waits for are refused at once."""
        status, output = self.run_pytest("def test_it(simulated_network): pass", "--twistedudp-seed=0-99999999")
        self.assertEqual(status, 4)
        self.assertIn("'0-99999999' are 100,000,000 seeds: at most 10,000 at once", output)

    def test_bad_seed(self) -> None:
        """A seed that is none is one line."""
        status, output = self.run_pytest("", "--twistedudp-seed=lucky")
        self.assertEqual(status, 4)
        self.assertIn("ERROR: --twistedudp-seed or TWISTEDUDP_SEED: 'lucky' is no seed", output)
        self.assertNotIn("Traceback", output)

    def test_mixin(self) -> None:
        """A test case with the mixin is reported in pytest's words, once."""
        status, output = self.run_pytest(
            """
            from twisted.trial.unittest import SynchronousTestCase
            from twistedudp.testing import SimulatedNetworkMixin

            class EchoTests(SimulatedNetworkMixin, SynchronousTestCase):
                def test_it(self):
                    self.network.advance(1)
                    self.fail("on purpose")
            """,
            seed="7",
        )
        self.assertEqual(status, 1)
        self.assertEqual(output.count("run it again: "), 1, output)
        self.assertIn("python -m pytest --twistedudp-seed=7 test_it.py::EchoTests::test_it\n", output)


@pytest.mark.heavy
class CostTests(PluginTestCase):
    """What the plugin costs those who do not use it."""

    def test_light(self) -> None:
        """Neither Twisted nor the simulated network is imported where no test asks for it."""
        (self.folder / "conftest.py").write_text(
            "import sys\n\ndef pytest_configure(config):\n    print(sorted(sys.modules))\n", encoding="utf-8"
        )
        status, output = self.run_pytest("", "--fixtures", "-s")
        self.assertEqual(status, 0, output)
        self.assertIn("simulated_network", output)
        self.assertIn(f"'{PLUGIN}'", output)
        for heavy in ("'twisted.internet'", "'msgpack'", "'twistedudp.testing._network'"):
            self.assertNotIn(heavy, output)
