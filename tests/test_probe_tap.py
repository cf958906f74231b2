"""``twistd udpprobe``: its options, its errors, and the service that it makes; without processes."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from twistedudp import probe_tap
from twistedudp.watch import OnChangeCommand, Settings, UDPProbeService, Webhook

WEB = ("--target", "web=192.0.2.1:7")


class OptionsTestCase(SynchronousTestCase):
    """Command lines."""

    def parse(self, *arguments: str) -> probe_tap.Options:
        """Parse a command line."""
        options = probe_tap.Options()
        options.parseOptions(arguments)
        if options.metrics is not None:
            self.addCleanup(options.metrics.close)
        return options

    def refused(self, *arguments: str) -> str:
        """Parse a command line with an error; return the line that is printed for it, without its prefix."""
        error = self.assertRaises(SystemExit, self.parse, *arguments)
        assert isinstance(error.code, str)  # Python prints a text, and the exit status is 1
        self.assertNotIn("\n", error.code)
        self.assertTrue(error.code.startswith("twistd udpprobe: "), error.code)
        return error.code.removeprefix("twistd udpprobe: ")


class OptionTests(OptionsTestCase):
    """Each option, right and wrong."""

    def test_targets(self) -> None:
        """Several, with the settings given beside them."""
        options = self.parse(*WEB, "--target", "ns.example", "--interval", "0.5", "--degraded-loss", "0.1")
        self.assertEqual([target[:3] for target in options.found.values()],
                         [("web", "192.0.2.1", 7), ("ns.example", "ns.example", 10000)])  # fmt: skip
        self.assertEqual(options.found["web"].settings, Settings(interval=0.5, degraded_loss=0.1))

    def test_every_setting(self) -> None:
        """Each setting of a file is an option, and its help tells the default that it has."""
        names = {field.name: field.default for field in msgspec.structs.fields(Settings)}
        self.assertEqual([name.replace("-", "_") for name in probe_tap._SETTINGS], list(names))
        texts = {row[0].replace("-", "_"): row[3] for row in probe_tap.Options.optParameters}
        for name, default in names.items():
            if default is None:
                self.assertNotIn("[default", texts[name])
            else:
                self.assertIn(f"[default: {default}]", texts[name])

    def test_wrong(self) -> None:
        """What is wrong is told in one line, with the option and what to write."""
        for arguments, expected in (
            ((), "there is no target; write for example --target web=127.0.0.1:10000, or --targets FILE"),
            (("--target", "web=a:b"), "--target: 'b' is not a port: it must be a number from 1 to 65535"),
            ((*WEB, *WEB), "--target: 'web' is given twice; each target has a name of its own"),
            (("--targets", "/no/such.toml"), "/no/such.toml: No such file or directory; name a file that this"),
            ((*WEB, "--interval", "0"), "--interval: '0' is not a number of seconds from 0.1 to 3600; write"),
            ((*WEB, "--protocol", "tcp"), "--protocol: 'tcp' is not auto, echo or rpc; write for example"),
            ((*WEB, "--on-change", "/no/such"), "--on-change: '/no/such' is no program that can be run"),
            ((*WEB, "--webhook", "x"), "--webhook: 'x' is not a URL; write for example https://"),
            ((*WEB, "--metrics", "x"), "--metrics: 'x' is not a whole number from 0 to 65535"),
            ((*WEB, "--metrics", "65536"), "--metrics: '65536' is not a whole number from 0 to 65535"),
            ((*WEB, "--metrics-interface", "localhost"), "--metrics-interface: 'localhost' is not the numeric address"),
            ((*WEB, "--metrics-interface", "224.0.0.1"), "--metrics-interface: '224.0.0.1' is not the numeric address"),
            ((*WEB, "--metrics", "0", "--metrics-interface", "192.0.2.77"), "192.0.2.77 is not an address of this"),
            (("--tarjet", "x"), "there is no option --tarjet (did you mean '--target'?); --help lists them all"),
            ((*WEB, "10000"), "'10000' is not an option: options begin with --; --help lists them all"),
        ):  # fmt: skip
            self.assertIn(expected, self.refused(*arguments))

    def test_file(self) -> None:
        """A file's errors name it by its whole path, for a daemon's directory is another."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = Path(os.path.relpath(directory.name)) / "targets.toml"
        path.write_text("[targets]\nweb = 7\n", encoding="utf-8")
        self.assertTrue(
            self.refused("--targets", str(path)).startswith(f"{path.absolute()}: targets.web: 7 is neither")
        )
        path.write_text("[targets]\nweb = '192.0.2.1:7'\n", encoding="utf-8")
        options = self.parse("--targets", str(path), "--target", "other=192.0.2.2:7", "--interval", "5")
        self.assertEqual(list(options.found), ["other", "web"])
        path.write_text("[targets]\nnew = '192.0.2.1:7'\n", encoding="utf-8")
        self.assertEqual(list(options.read_targets()), ["other", "new"])
        self.assertEqual(options.read_targets()["new"].settings.interval, 5.0)

    def test_metrics_port(self) -> None:
        """It is bound when options are parsed; a taken one is told in one line."""
        options = self.parse(*WEB, "--metrics", "0")
        assert options.metrics is not None
        host, port = options.metrics.getsockname()
        self.assertEqual(host, "127.0.0.1")
        self.assertEqual(
            self.refused(*WEB, "--metrics", str(port)),
            f"--metrics: TCP port 127.0.0.1:{port} is in use (ss -ltnp tells by whom); stop it, or choose another port "
            "(0 picks a free one)",
        )
        options.metrics.close()
        self.parse(*WEB, "--metrics", str(port))

    def test_metrics_on_ipv6(self) -> None:
        """An IPv6 interface has it there."""
        options = self.parse(*WEB, "--metrics", "0", "--metrics-interface", "::1")
        assert options.metrics is not None
        self.assertEqual((options.metrics.family, options.metrics.getsockname()[0]), (socket.AF_INET6, "::1"))

    def test_missing_extra(self) -> None:
        """Without the extra's packages the option that needs one says how to get it, and others work."""
        self.patch(probe_tap, "find_spec", lambda _: None)
        for option, value, package in (("metrics", "0", "prometheus_client"), ("webhook", "http://a/", "treq")):
            self.assertEqual(
                self.refused(*WEB, f"--{option}", value),
                f"--{option} needs the package {package}, which is not installed: pip install 'twistedudp[probe]'",
            )
        self.parse(*WEB)

    def test_help(self) -> None:
        """Every option is explained."""
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        self.assertRaises(SystemExit, self.parse, "--help")
        text = output.getvalue()
        for option in (
            "target",
            "targets",
            "on-change",
            "webhook",
            "metrics",
            "metrics-interface",
            *probe_tap._SETTINGS,
        ):
            self.assertIn(f"--{option}=", text)
        self.assertIn("SIGHUP", text)

    def test_start_is_quick(self) -> None:
        """Importing the options, as twistd does for --help, imports neither what probes nor an HTTP server."""
        program = (
            "import sys, twistedudp.probe_tap\n"
            "heavy = ('msgspec', 'twistedudp.watch', 'twistedudp.transport', 'twisted.web', 'prometheus_client',\n"
            "         'treq', 'hdrh', 'twisted.internet.reactor')\n"
            "print([name for name in heavy if name in sys.modules])"
        )
        finished = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
        self.assertEqual(finished.stdout, "[]\n")


class ServiceTests(OptionsTestCase):
    """From options to the service."""

    def test_made(self) -> None:
        """The service has the targets, and who is to be told; nothing is started."""
        service: Any = probe_tap.makeService(
            self.parse(*WEB, "--on-change", "true -x", "--webhook", "http://127.0.0.1/")
        )
        self.assertIsInstance(service, UDPProbeService)
        self.assertEqual((service.name, service.running, service.watcher.targets), ("udpprobe", 0, {}))
        self.assertEqual([type(one) for one in service._notifiers], [OnChangeCommand, Webhook])
        self.assertEqual(list(service._targets), ["web"])

    def test_made_without(self) -> None:
        """Without these options nobody is told but the log."""
        service: Any = probe_tap.makeService(self.parse(*WEB))
        self.assertEqual((service._notifiers, service._metrics), ([], None))
