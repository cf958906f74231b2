"""The virtual environment that the programs in this folder run in: made if there is none, kept up with the sources.

Theory of operation: a fresh machine has Python 3.10 with ``venv`` and ``pip``, and nothing else, so this module is
standard library only. The package is built into a wheel from a copy of its sources in a temporary directory (a build
inside the checkout would leave a ``build`` folder behind, whose stale modules find their way into later wheels) and
the wheel is installed, never the checkout: what the scripts run is what a user gets. A stamp inside the environment
holds a digest of the sources' contents and the extras; where it still matches, nothing is built and no network is
needed. Without a C compiler the wheel has no compiled modules, as for any user; where TWISTEDUDP_REQUIRE_COMPILED is
set (see setup.py) an environment that was made without it is made again.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parent.parent
"""The checkout."""
DEFAULT_ENVIRONMENT: Final = ROOT / ".venv"

_OLDEST_PYTHON: Final = (3, 10)
_HAS_PIP = "import importlib.util, sys; sys.exit(importlib.util.find_spec('pip') is None)"
"""Interrupted while it was made, an environment has an interpreter already and pip not yet."""

_REQUIRE_COMPILED: Final = "TWISTEDUDP_REQUIRE_COMPILED"
_STAMP: Final = "twistedudp-installed.json"
_SOURCES: Final = (
    "setup.cfg",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "twistedudp",
    "twisted_plugins",
)
_NOT_SOURCES: Final = shutil.ignore_patterns("__pycache__", "*.pyc", "*.c", "*.so", "dropin.cache")
"""Among them *.c and *.so: what a build in the checkout left, perhaps of older sources or by another compiler."""


class EnvironmentNotUsable(Exception):
    """The environment cannot be made; the text says why and what to do."""


class _Stamp(NamedTuple):
    """What an environment holds."""

    digest: str
    extras: list[str]
    compiled: bool
    """Whether the build would have failed if it could not compile, so that the compiled modules are there for sure."""

    def serves(self, wanted: _Stamp) -> bool:
        """Tell whether nothing has to be installed."""
        return self[:2] == wanted[:2] and self.compiled >= wanted.compiled


def python_of(environment: Path) -> Path:
    """Return the path of an environment's interpreter."""
    return environment / "bin" / "python"


def prepare(extras: tuple[str, ...] = (), environment: Path = DEFAULT_ENVIRONMENT) -> Path:
    """Make the environment hold the package as the checkout has it now, and return the path of its interpreter.

    Args:
        extras: The extras of setup.cfg that are needed; those installed earlier stay.
        environment: The environment's folder; it is made if it does not exist.

    Raises:
        EnvironmentNotUsable: Python is too old, or ``venv`` or ``pip`` failed.
    """
    if sys.version_info < _OLDEST_PYTHON:
        version = ".".join(map(str, sys.version_info[:3]))
        raise EnvironmentNotUsable(
            f"twistedudp needs Python 3.10 or newer, and this is {version}: run python3.12 {sys.argv[0]}"
        )
    # Two at once would install into each other. This very file is the lock, since any file can be one.
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _prepare_locked(extras, environment)


def _prepare_locked(extras: tuple[str, ...], environment: Path) -> Path:
    python = python_of(environment)
    installed = _read_stamp(environment) if _runs(python) else None
    demanded = os.environ.get(_REQUIRE_COMPILED, "") not in {"", "0"}
    wanted = _Stamp(sources_digest(), sorted({*extras, *(installed.extras if installed else [])}), demanded)
    if installed is not None and installed.serves(wanted):
        return python
    if not _runs(python):
        _create(environment)
    _install(python, environment, wanted.extras)
    (environment / _STAMP).write_text(json.dumps(wanted._asdict()))
    return python


def sources_digest(root: Path = ROOT) -> str:
    """Return a digest of the names and contents of all that goes into the wheel."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        top = root / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and not _NOT_SOURCES(str(path.parent), [path.name]) and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def copy_sources(to: Path) -> None:
    """Copy all that goes into the wheel, and nothing that a build left, to a folder that does not exist yet."""
    to.mkdir()
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=_NOT_SOURCES)
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, to / name)


def build_wheel(
    python: Path, into: Path, more: Mapping[str, str] | None = None, variables: Mapping[str, str] | None = None
) -> Path:
    """Build the wheel with an interpreter that has the build requirements, and return its path.

    Args:
        python: The interpreter; nothing is installed into it, and no network is used.
        into: The folder that gets the wheel.
        more: Sources that the checkout does not have: their text by their path.
        variables: What the build shall find in its environment beside what this process has.
    """
    with tempfile.TemporaryDirectory(prefix="twistedudp-build-") as folder:
        copy = Path(folder) / "source"
        copy_sources(copy)
        for name, text in (more or {}).items():
            (copy / name).write_text(text, encoding="utf-8")
        # Without isolation: an isolated build downloads setuptools each time, so a changed source would need a network.
        options = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(into)]
        _pip(python, "wheel", *options, str(copy), variables=variables)
    (wheel,) = into.glob("twistedudp-*.whl")
    return wheel


def build_requirements() -> list[str]:
    """Return what pyproject.toml asks for to build the package (``tomllib`` came with Python 3.11 only)."""
    match = re.search(r"^requires = (\[.*?\])", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    if match is None:
        raise EnvironmentNotUsable("pyproject.toml has no 'requires = [...]' in [build-system]")
    requirements: list[str] = ast.literal_eval(match.group(1))
    return requirements


def run_with(python: Path, *arguments: str) -> None:
    """Go on as another Python program: this process becomes it, and signals and the exit status are its own."""
    sys.stdout.flush()
    os.execv(python, [str(python), *arguments])  # noqa: S606  # no shell is wanted


def _install(python: Path, environment: Path, extras: list[str]) -> None:
    print(f"Installing twistedudp into {_shown(environment)} ...", flush=True)
    # No stamp while the contents are in between, so that an interrupted installation is done again.
    (environment / _STAMP).unlink(missing_ok=True)
    # setuptools writes wheels without the "wheel" package since 70.1.
    _pip(python, "install", "--prefer-binary", "setuptools >= 70.1", *build_requirements())
    with tempfile.TemporaryDirectory(prefix="twistedudp-wheel-") as folder:
        wheel = build_wheel(python, Path(folder))
        # Twice: the version does not change from edit to edit, so only --force-reinstall replaces the package, and
        # together with the dependencies it would reinstall all of them.
        _pip(python, "install", "--force-reinstall", "--no-deps", "--no-index", str(wheel))
        _pip(python, "install", "--prefer-binary", f"{wheel}[{','.join(extras)}]" if extras else str(wheel))


def _pip(python: Path, *arguments: str, variables: Mapping[str, str] | None = None) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, check=False, cwd=tempfile.gettempdir(), env={**os.environ, **(variables or {})})
    if done.returncode:
        raise EnvironmentNotUsable(
            f"'pip {arguments[0]}' failed with exit status {done.returncode}, its own words are above; "
            "the first set-up needs a network or a package index that pip is configured for"
        )


def _create(environment: Path) -> None:
    print(f"Making the virtual environment {_shown(environment)} ...", flush=True)
    done = subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=False)
    if done.returncode:
        raise EnvironmentNotUsable(
            f"'{sys.executable} -m venv' failed, its own words are above; Debian has it in the package python3-venv"
        )


def _runs(python: Path) -> bool:
    """Tell whether the environment is whole: its interpreter no link to one that was removed, and pip there."""
    return python.exists() and subprocess.run([str(python), "-c", _HAS_PIP], check=False).returncode == 0


def _read_stamp(environment: Path) -> _Stamp | None:
    try:
        stamp = json.loads((environment / _STAMP).read_text())
        return _Stamp(str(stamp["digest"]), [str(extra) for extra in stamp["extras"]], bool(stamp["compiled"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
