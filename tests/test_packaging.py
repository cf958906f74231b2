"""The wheel: it holds everything that belongs to the package, and nothing else, and twistd finds what it brings."""

from __future__ import annotations

import configparser
import functools
import io
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from twisted.trial.unittest import SynchronousTestCase

import twistedudp
from tests.checkout import PACKAGE, ROOT, load_script
from twistedudp.transport._backend import choose_backend

COMPILED_DEMANDED = os.environ.get("TWISTEDUDP_REQUIRE_COMPILED", "") not in {"", "0"}

SERVE_ONE = """
from twisted.internet import reactor
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import globalLogBeginner, textFileLogObserver
import socket, sys, twistedudp

class Echo(DatagramProtocol):
    def datagramReceived(self, datagram, addr):
        self.transport.write(datagram, addr)
        reactor.stop()

globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
port = twistedudp.listen(reactor, 0, Echo(), "127.0.0.1")
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer.settimeout(20)
peer.sendto(b"answer me", ("127.0.0.1", port.getHost().port))
reactor.run()
print("answered", peer.recv(100))
print("from", twistedudp.__file__)
"""
"""A server of one datagram, with its log."""


LIMIT = 300.0
"""Seconds after which a build that has not ended never will."""

WITHOUT_NETWORK = ("--no-deps", "--no-index", "--no-build-isolation")


def checkout_files(*patterns: str) -> set[str]:
    """Return the paths of the package's files of some kinds, below the checkout."""
    return {str(path.relative_to(ROOT)) for pattern in patterns for path in PACKAGE.rglob(pattern)}


def unmeasured(**variables: str) -> dict[str, str]:
    """Return an environment for what runs a copy of the package: coverage would want that copy's sources later."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}, **variables}


class SetupTests(SynchronousTestCase):
    """setup.cfg against the tree."""

    def test_packages(self) -> None:
        """The list of packages, which is written by hand, names each folder with modules, and twisted.plugins."""
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg", encoding="utf-8")
        in_tree = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("*.py")}
        self.assertEqual(set(setup["options"]["packages"].split()), in_tree | {"twisted.plugins"})

    def test_packages_are_packages(self) -> None:
        """Each folder has an __init__.py; twisted_plugins, by Twisted's rule, has none."""
        folders = {path.parent for path in PACKAGE.rglob("*.py")}
        self.assertEqual({folder for folder in folders if not (folder / "__init__.py").exists()}, set())
        self.assertFalse((ROOT / "twisted_plugins" / "__init__.py").exists())

    def test_package_data(self) -> None:
        """The sdist is told to hold all of a Cython module's sources, and the wheel what type checkers read of it."""
        manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8")
        self.assertIn("recursive-include twistedudp *.pyx *.pxd *.pyi", manifest)
        stubs = {Path(name).with_suffix(".pyx").name for name in checkout_files("*.pyi")}
        self.assertLessEqual({"_backend.pyx"}, stubs)


class InstalledTests(SynchronousTestCase):
    """What these tests run on."""

    def test_wheel_is_under_test(self) -> None:
        """Under scripts/test the package comes from the installed wheel, here and in processes that tests start."""
        if "TWISTEDUDP_TEST_INSTALLED" not in os.environ:
            return
        script = "import twistedudp; print(twistedudp.__file__)"
        child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
        for path in (Path(twistedudp.__file__), Path(child.stdout.strip())):
            self.assertIn("site-packages", path.parts)

    def test_installed_is_current(self) -> None:
        """Where the installed package is under test, its modules are the checkout's, byte for byte."""
        package = Path(twistedudp.__file__).parent
        changed = [
            str(path.relative_to(ROOT))
            for path in sorted({*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")})
            if (package / path.relative_to(PACKAGE)).read_bytes() != path.read_bytes()
        ]
        self.assertEqual(changed, [])

    def test_compiled_backend_serves(self) -> None:
        """Where the compiled backend is demanded, as .ci/run does, it is what serves."""
        if COMPILED_DEMANDED:
            self.assertEqual(choose_backend().name, "mmsg", choose_backend().reason)


class Built(NamedTuple):
    """What was built from the checkout."""

    sdist: list[str]
    """The sdist's files, below its own folder."""
    wheel: bytes
    """The wheel that was built from the sdist."""
    left: set[Path]
    """What the checkout has at its top since."""


@functools.cache
def built() -> Built:
    """Build an sdist from a copy of the checkout, and the wheel from that, once in this process."""
    environment = load_script("_environment")
    before = set(ROOT.iterdir())
    with tempfile.TemporaryDirectory(prefix="twistedudp-test-") as name:
        folder = Path(name)
        environment.copy_sources(folder / "source")
        subprocess.run(
            [sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"],
            cwd=folder / "source",
            env=unmeasured(),
            capture_output=True,
            check=True,
            timeout=LIMIT,
        )
        (sdist,) = folder.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            names = [member.name.partition("/")[2] for member in archive if member.isfile()]
        environment._pip(Path(sys.executable), "wheel", *WITHOUT_NETWORK, f"--wheel-dir={folder}", str(sdist))
        (wheel,) = folder.glob("*.whl")
        return Built(names, wheel.read_bytes(), set(ROOT.iterdir()) - before)


def wheel() -> zipfile.ZipFile:
    """Return the wheel."""
    return zipfile.ZipFile(io.BytesIO(built().wheel))


@pytest.mark.heavy
class WheelTests(SynchronousTestCase):
    """A wheel built from the checkout by way of an sdist, and unpacked as pip does it."""

    def test_sdist(self) -> None:
        """The sdist holds the sources of all modules, compiled ones as well, and nothing that was made of them."""
        names = set(built().sdist)
        self.assertLessEqual(checkout_files("*.py", "*.pyx", "*.pxd", "*.pyi", "py.typed"), names)
        self.assertLessEqual({"setup.py", "setup.cfg", "pyproject.toml", "LICENSE", "README.md"}, names)
        self.assertEqual({name for name in names if name.endswith((".c", ".so", ".o"))}, set())

    def test_contents(self) -> None:
        """The wheel holds modules, their stubs, the mark of typed packages and the twistd plugin, and nothing else."""
        names = {name for name in wheel().namelist() if ".dist-info/" not in name}
        compiled = {name for name in names if name.endswith(".so")}
        self.assertEqual(
            names - compiled,
            checkout_files("*.py", "*.pyi") | {"twistedudp/py.typed", "twisted/plugins/twistedudp_plugin.py"},
        )
        if compiled or COMPILED_DEMANDED:
            suffix = sysconfig.get_config_var("EXT_SUFFIX")
            self.assertEqual(compiled, {name.removesuffix(".pyx") + suffix for name in checkout_files("*.pyx")})

    def test_about(self) -> None:
        """The wheel installs the command udpecho, asks for what it imports, and brings its licence."""
        built = wheel()
        about = {name.split("/")[-1]: built.read(name).decode() for name in built.namelist() if ".dist-info/" in name}
        self.assertIn("udpecho = twistedudp.cli:main", about["entry_points.txt"])
        for requirement in ("twisted>=", "msgpack>=1.2.1", "msgspec>=", "click>=", "rich>="):
            self.assertIn(f"Requires-Dist: {requirement}", about["METADATA"])
        self.assertIn("LICENSE", about)

    def test_checkout_stays_clean(self) -> None:
        """Building leaves nothing in the checkout: a build folder there would leak stale modules into later wheels."""
        self.assertEqual(built().left, set())

    def test_twistd_lists_udpecho(self) -> None:
        """From the unpacked wheel alone, twistd finds the plugin and lists the command."""
        with tempfile.TemporaryDirectory(prefix="twistedudp-test-") as folder:
            wheel().extractall(folder)  # noqa: S202  # our own
            done = subprocess.run(
                [sys.executable, "-m", "twisted", "--help"],
                cwd=folder,
                env=unmeasured(PYTHONPATH=folder),
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
        self.assertRegex(done.stdout, r"(?m)^ +udpecho +\S")

    def test_installed_twistd_lists_udpecho_once(self) -> None:
        """The twistd beside this Python lists the command as well, once."""
        if "TWISTEDUDP_TEST_INSTALLED" not in os.environ:
            return
        twistd = Path(sys.executable).parent / "twistd"
        done = subprocess.run([twistd, "--help"], capture_output=True, text=True, check=True, timeout=60)
        self.assertEqual(done.stdout.count("\n    udpecho "), 1)


@pytest.mark.heavy
class WithoutCompilerTests(SynchronousTestCase):
    """``pip install .`` where the C compiler fails, or is not there."""

    def setUp(self) -> None:
        """Copy the checkout, without any module compiled before."""
        folder = tempfile.TemporaryDirectory(prefix="twistedudp-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        load_script("_environment").copy_sources(self.folder / "source")

    def install(self, compiler: str, demanded: str) -> subprocess.CompletedProcess[str]:
        """Install the copy into a folder of its own."""
        return subprocess.run(
            [sys.executable, "-m", "pip", "install", *WITHOUT_NETWORK, "--target=installed", "./source"],
            cwd=self.folder,
            env=unmeasured(CC=compiler, TWISTEDUDP_REQUIRE_COMPILED=demanded),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def test_demanded(self) -> None:
        """Where the compiled modules are demanded, the installation fails and says what it takes."""
        done = self.install("no-such-compiler", "1")
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stdout + done.stderr, r"_mmsg\._\w+ was not built: .*no-such-compiler")
        self.assertIn("TWISTEDUDP_REQUIRE_COMPILED is set, so this is an error", done.stdout + done.stderr)
        self.assertFalse((self.folder / "installed").exists())

    def test_not_demanded(self) -> None:
        """The installation succeeds, and a server's log tells which backend serves it and why."""
        done = self.install("false", "")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(list((self.folder / "installed").rglob("*.so")), [])
        served = subprocess.run(
            [sys.executable, "-c", SERVE_ONE],
            cwd=self.folder,
            env=unmeasured(PYTHONPATH=str(self.folder / "installed"), TWISTEDUDP_BACKEND=""),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        self.assertEqual((served.returncode, served.stderr), (0, ""))
        self.assertIn("answered b'answer me'", served.stdout)
        self.assertIn(f"from {self.folder / 'installed'}", served.stdout)
        lines = [line for line in served.stdout.splitlines() if "served by the backend" in line]
        self.assertEqual(len(lines), 1, served.stdout)
        self.assertIn("backend scalar: the compiled one was not built when twistedudp was installed", lines[0])

    def test_without_cython(self) -> None:
        """Cython is no more needed than a compiler."""
        hidden = "import sys; sys.modules['Cython'] = None; sys.argv[1:] = ['build_ext', '--inplace']"
        done = subprocess.run(
            [sys.executable, "-c", f"{hidden}; exec(open('setup.py').read())"],
            cwd=self.folder / "source",
            env=unmeasured(TWISTEDUDP_REQUIRE_COMPILED=""),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Cython is not there", done.stdout + done.stderr)
        self.assertIn("UDP ports will be served in plain Python", done.stdout + done.stderr)
