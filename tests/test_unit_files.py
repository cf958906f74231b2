"""The example units in docs/: what they set, with its reason, and that our own options take what they start."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.checkout import ROOT
from tests.test_tap import OptionsTestCase
from twistedudp import tap
from twistedudp._activation import SOCKET_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = ROOT / "docs" / "udpecho.service"
SOCKET = ROOT / "docs" / "udpecho.socket"


def settings(unit: Path) -> dict[tuple[str, str], list[str]]:
    """Return what a unit file sets, by section and name; a setting may be there several times."""
    found: dict[tuple[str, str], list[str]] = {}
    section = ""
    for line in unit.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            assert equals, line
            found.setdefault((section, name), []).append(value)
    return found


def unexplained(unit: Path) -> Iterator[str]:
    """Yield the lines of [Service] and [Socket] that no comment stands above, in their own paragraph."""
    section, explained = "", False
    for line in unit.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line
            explained = False
        elif line.startswith("# "):
            explained = True
        elif not line:
            explained = False
        elif section in ("[Service]", "[Socket]") and not explained and not line.startswith("#"):
            yield line


class ServiceTests(OptionsTestCase):
    """The service."""

    def test_start(self) -> None:
        """What it starts is a command line of ours; options of twistd itself stand before the word udpecho."""
        ((line,),) = [values for (_, name), values in settings(SERVICE).items() if name == "ExecStart"]
        program, *words = shlex.split(line)
        self.assertEqual(Path(program).name, "twistd")
        at = words.index("udpecho")
        self.assertEqual(words[:at], ["--nodaemon", "--pidfile="])
        options = self.parse(*words[at + 1 :], "--interface", "192.0.2.1")
        self.assertTrue(options.is_public)
        self.assertEqual(options.plugin.plugin.name, "echo")

    def test_other_options(self) -> None:
        """The options that its comments propose are there."""
        proposed = re.findall(r"^#.*?(--[a-z-]+)", SERVICE.read_text(encoding="utf-8"), re.MULTILINE)
        self.assertIn("--token-key-file", proposed)
        known = {f"--{name.rstrip('=')}" for name in tap.Options().longOpt}
        self.assertLessEqual(set(proposed), known)

    def test_end(self) -> None:
        """The supervisor waits longer than the drain may last, and asks for it by the signal that drains."""
        found = settings(SERVICE)
        ((line,), (signal,), (patience,)) = (
            found["Service", name] for name in ("ExecStart", "KillSignal", "TimeoutStopSec")
        )
        options = self.parse(*shlex.split(line.partition("udpecho")[2]))
        self.assertEqual(signal, "SIGTERM")
        self.assertGreater(float(patience), options["drain-timeout"] + 5)

    def test_hardened(self) -> None:
        """The rights that are taken away, which nobody shall lose by an edit."""
        found = settings(SERVICE)
        for name, value in (
            ("DynamicUser", "yes"),
            ("NoNewPrivileges", "yes"),
            ("CapabilityBoundingSet", ""),
            ("ProtectSystem", "strict"),
            ("RestrictAddressFamilies", "AF_INET AF_INET6"),
            ("MemoryDenyWriteExecute", "yes"),
            ("SystemCallArchitectures", "native"),
        ):
            self.assertEqual(found["Service", name], [value])
        self.assertEqual(found["Service", "SystemCallFilter"][0], "@system-service")
        self.assertRegex(found["Service", "MemoryMax"][0], r"^\d+M$")


class SocketTests(SynchronousTestCase):
    """The socket, and both together."""

    def test_socket(self) -> None:
        """It is a datagram socket of the name that our server looks for, and tells where waiting datagrams went."""
        found = settings(SOCKET)
        self.assertEqual(found["Socket", "FileDescriptorName"], [SOCKET_NAME])
        self.assertEqual(found["Socket", "PassPacketInfo"], ["yes"])
        self.assertEqual([name for _, name in found if name.startswith("Listen")], ["ListenDatagram"])
        self.assertEqual(settings(SERVICE)["Unit", "Requires"], [SOCKET.name])

    def test_reasons(self) -> None:
        """Every setting has its reason above it."""
        self.assertEqual([*unexplained(SERVICE), *unexplained(SOCKET)], [])

    def test_systemd_agrees(self) -> None:
        """Where systemd is installed it understands every line, and sees little that is left open."""
        program = shutil.which("systemd-analyze")
        if program is None:
            return  # the other tests hold what is written; this one, that systemd reads it so
        folder = tempfile.TemporaryDirectory(prefix="twistedudp-test-")
        self.addCleanup(folder.cleanup)
        directory = Path(folder.name)
        text = SERVICE.read_text(encoding="utf-8")
        # verify wants a program that is there
        text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", text)
        (directory / SERVICE.name).write_text(text, encoding="utf-8")
        (directory / SOCKET.name).write_text(SOCKET.read_text(encoding="utf-8"), encoding="utf-8")
        verified = self.analyze(program, "verify", directory / SERVICE.name, directory / SOCKET.name)
        self.assertEqual(verified.strip(), "")
        found = re.search(
            r"exposure level for \S+: ([\d.]+)", self.analyze(program, "security", directory / SERVICE.name)
        )
        if found is not None:  # before version 250 it reads no files
            self.assertLess(float(found[1]), 2.0)

    def analyze(self, program: str, verb: str, *files: Path) -> str:
        """Return what systemd says of files."""
        offline = ["--offline=true"] if verb == "security" else []
        finished = subprocess.run(
            [program, verb, *offline, *map(str, files)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return finished.stdout + finished.stderr
