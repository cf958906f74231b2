"""Run the tests of the compiled modules under AddressSanitizer and UndefinedBehaviorSanitizer.

    scripts/_sanitize.py                                 what scripts/test --full runs
    scripts/_sanitize.py tests/transport -k truncated    these tests

Theory of operation: the modules are compiled once more, from a copy of the checkout, with the compiler's sanitizers,
and unpacked into a temporary directory that comes before site-packages on the path. The sanitizers' run-time libraries
must be in the process first, hence LD_PRELOAD; Python takes each object's memory from malloc, so that the bounds of
bytes objects are guarded too. Leaks are not looked for here, for Python itself leaks at its end: that is the work of
tests/integration/test_leaks.py. The copy gets one more module, which writes behind the end of a bytes object when it is
told to: the run begins by having that found, so that it cannot pass because nothing was looked at.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from _environment import ROOT, EnvironmentNotUsable, build_wheel

SANITIZERS: Final = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"

TESTS: Final = (
    *(str(ROOT / "tests" / name) for name in ("transport", "contracts", "admission")),
    "-k",
    "mmsg or twins",
)
"""What drives the compiled modules: their own tests, and what is common to all ports."""
TRAFFIC: Final = (str(ROOT / "tests" / "integration" / "leaks.py"), "20000")
"""... and datagrams of all kinds; what it measures means nothing here."""

PLANTED: Final = '''
"""An overflow, planted by scripts/_sanitize.py."""


def overflow(bytes target):
    """Write behind a bytes object and the zero that ends it."""
    cdef char *start = target
    start[len(target) + 1] = 1
'''

PACKAGE: Final = "twistedudp.transport._mmsg"
PREPARE: Final = f"""
import os, sys, {PACKAGE} as package
assert package.__file__.startswith(os.environ["TWISTEDUDP_SANITIZED"]), package.__file__
from {PACKAGE}._planted import overflow
overflow(b"x" * 1000)
"""


def main(arguments: list[str]) -> int:
    """Build, check the sanitizers themselves, run the tests, and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="twistedudp-sanitized-") as folder:
        try:
            variables = sanitized(Path(folder))
        except EnvironmentNotUsable as error:
            print(f"scripts/_sanitize.py: {error}", file=sys.stderr)
            return 2
        empty = Path(folder) / "empty"  # Python puts the current directory in front of its path
        empty.mkdir()
        found = subprocess.run(
            [sys.executable, "-c", PREPARE],
            cwd=empty,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if found.returncode == 0 or "heap-buffer-overflow" not in found.stderr:
            print(f"{found.stderr}scripts/_sanitize.py: the planted overflow was not found, so nothing would be")
            return 1
        print("The planted overflow was found; now the tests.", flush=True)
        commands = [pytest(arguments)] if arguments else [pytest(list(TESTS)), [sys.executable, *TRAFFIC]]
        return max(
            abs(subprocess.run(command, cwd=empty, env=variables, check=False).returncode) for command in commands
        )


def sanitized(folder: Path) -> dict[str, str]:
    """Put a sanitized package into a folder, and return the environment in which Python uses it."""
    libraries = [library(name) for name in ("libasan.so", "libubsan.so")]
    compiling = {"CFLAGS": SANITIZERS, "LDFLAGS": SANITIZERS, "TWISTEDUDP_REQUIRE_COMPILED": "1"}
    wheel = build_wheel(Path(sys.executable), folder, {PACKAGE.replace(".", "/") + "/_planted.pyx": PLANTED}, compiling)
    target = folder / "package"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return {
        # coverage, which scripts/test may have started this under, would want the sources of this copy
        **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1:strict_string_checks=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(target),
        "TWISTEDUDP_SANITIZED": str(target),
        "TWISTEDUDP_REQUIRE_COMPILED": "1",
    }


def library(name: str) -> str:
    """Return the path of one of the compiler's run-time libraries."""
    try:
        found = subprocess.run(
            ["gcc", f"-print-file-name={name}"],  # noqa: S607  # the compiler that builds the modules
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise EnvironmentNotUsable(f"gcc cannot be run ({error}); Debian has it in the package gcc") from error
    if not Path(found).is_absolute():  # where it has none it prints the bare name
        raise EnvironmentNotUsable(f"this gcc has no {name}; Debian has it in the package libgcc-*-dev")
    return str(Path(found).resolve())


def pytest(arguments: list[str]) -> list[str]:
    """Return the command that runs pytest, in another directory than this one."""
    files = [argument.partition("::") for argument in arguments]
    return [
        str(Path(sys.executable).parent / "pytest"),
        "-c",
        str(ROOT / "pyproject.toml"),
        f"--rootdir={ROOT}",
        "--import-mode=append",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:pytest_twisted",
        "--capture=sys",  # a sanitizer's report goes to the descriptor, and then the process ends
        *(
            f"{Path(file).resolve()}{colons}{test}" if Path(file).exists() else file + colons + test
            for file, colons, test in files
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
