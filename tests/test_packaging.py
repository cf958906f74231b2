"""The wheel: it holds everything that belongs to the package, and nothing else, and twistd finds what it brings."""

from __future__ import annotations

import configparser
import functools
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import twistedudp
from tests.checkout import PACKAGE, ROOT, load_script


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
            for path in sorted(PACKAGE.rglob("*.py"))
            if (package / path.relative_to(PACKAGE)).read_bytes() != path.read_bytes()
        ]
        self.assertEqual(changed, [])


@functools.cache
def wheel_content() -> bytes:
    """Build the wheel from the checkout, once in this process."""
    with tempfile.TemporaryDirectory(prefix="twistedudp-test-") as folder:
        built: Path = load_script("_environment").build_wheel(Path(sys.executable), Path(folder))
        return built.read_bytes()


def wheel() -> zipfile.ZipFile:
    """Return the wheel."""
    return zipfile.ZipFile(io.BytesIO(wheel_content()))


class WheelTests(SynchronousTestCase):
    """A wheel built from the checkout, and unpacked as pip does it."""

    def test_contents(self) -> None:
        """The wheel holds each module, the mark of typed packages and the twistd plugin, and nothing else."""
        modules = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py")}
        self.assertEqual(
            {name for name in wheel().namelist() if ".dist-info/" not in name},
            modules | {"twistedudp/py.typed", "twisted/plugins/twistedudp_plugin.py"},
        )

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
        before = set(ROOT.iterdir())
        with tempfile.TemporaryDirectory(prefix="twistedudp-test-") as folder:
            load_script("_environment").build_wheel(Path(sys.executable), Path(folder))
        self.assertEqual(set(ROOT.iterdir()) - before, set())

    def test_twistd_lists_udpecho(self) -> None:
        """From the unpacked wheel alone, twistd finds the plugin and lists the command."""
        with tempfile.TemporaryDirectory(prefix="twistedudp-test-") as folder:
            wheel().extractall(folder)
            done = subprocess.run(
                [sys.executable, "-m", "twisted", "--help"],
                cwd=folder,
                # Not measured: coverage would want the sources of this copy, which is gone when it reports.
                env={
                    **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
                    "PYTHONPATH": folder,
                },
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
