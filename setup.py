"""Build the compiled parts; everything else about the package is in setup.cfg.

Theory of operation: each Cython source in ``twistedudp/transport/_mmsg`` becomes a module of that package. They are for
CPython on Linux, and an extra: where there is no Cython, no C compiler or no header of Python, or where compiling
fails, a warning is printed, the installation succeeds, and ports are served in plain Python (``_backend.py`` logs so).
With ``TWISTEDUDP_REQUIRE_COMPILED=1`` in the environment such a build fails instead, and so does any warning of Cython
or the C compiler. C sources are written below ``build/``, never beside the Cython sources.

To compile in a checkout: ``python setup.py build_ext --inplace``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, CompileError, ExecError, LinkError, PlatformError

PACKAGE = "twistedudp.transport._mmsg"

REQUIRED = os.environ.get("TWISTEDUDP_REQUIRE_COMPILED", "") not in ("", "0")
POSSIBLE = sys.platform == "linux" and sys.implementation.name == "cpython"

DIRECTIVES = {
    "language_level": "3",
    # Indexes are the loops' own and bounded by them; scripts/test --full looks after them with AddressSanitizer.
    "boundscheck": False,
    "wraparound": False,
    # Plain method descriptors: CPython 3.11 and newer specialise calls of these, and not of Cython's functions.
    "binding": False,
    # ... and so signatures must be in the docstrings, in the form that inspect.signature() reads.
    "embedsignature": True,
    "embedsignature.format": "clinic",
}
if REQUIRED:
    # Cython does not look for these unless asked.
    DIRECTIVES |= {"warn.maybe_uninitialized": True, "warn.multiple_declarators": True, "warn.unused": True}

WARNINGS = ["-Wall", "-Wextra", "-Werror"]
"""No exception is needed: Cython 3.0.11 to 3.3 write what gcc accepts so, for the headers of Python 3.10 to 3.13."""


class BuildCompiled(build_ext):
    """Translate and compile the modules, and say in one line why one could not be built."""

    def build_extension(self, ext: Extension) -> None:
        """Build one module; raises CompileError with what to do if it is demanded and cannot be built."""
        try:
            self.translate(ext)
            super().build_extension(ext)
        except (CCompilerError, ExecError, LinkError, PlatformError) as error:
            reason = f"{ext.name} was not built: {error}"
            if REQUIRED:
                raise CompileError(
                    f"{reason}\nTWISTEDUDP_REQUIRE_COMPILED is set, so this is an error, and so is any warning above. "
                    "It takes Cython, a C compiler and Python's headers (Debian: gcc, libc6-dev, python3-dev); unset "
                    "the variable to install twistedudp without compiled modules."
                ) from error
            raise CompileError(f"{reason}; UDP ports will be served in plain Python") from error

    def translate(self, ext: Extension) -> None:
        """Replace a module's Cython source by the C source made of it."""
        try:
            from Cython.Build import cythonize  # noqa: PLC0415  # it may be missing
            from Cython.Compiler import Errors, Options  # noqa: PLC0415  # likewise
        except ImportError as error:
            raise CompileError(f"Cython is not there ({error})") from error
        Options.warning_errors = REQUIRED
        try:
            (translated,) = cythonize(  # type: ignore[no-untyped-call]  # Cython has annotations in other modules only
                [Extension(ext.name, [cython_source(ext.name)])],
                build_dir=self.build_temp,
                compiler_directives=DIRECTIVES,
                force=self.force,
                quiet=not self.verbose,
            )
        except Errors.CompileError as error:
            raise CompileError(f"Cython refused {cython_source(ext.name)}") from error
        ext.sources = translated.sources


def cython_source(name: str) -> str:
    """Return the path of a module's Cython source."""
    return f"{name.replace('.', '/')}.pyx"


def modules() -> list[Extension]:
    """Return the modules to compile on this platform."""
    if REQUIRED and not POSSIBLE:
        sys.exit("TWISTEDUDP_REQUIRE_COMPILED is set, but the compiled modules are for CPython on Linux: unset it")
    names = [f"{PACKAGE}.{path.stem}" for path in sorted(Path(PACKAGE.replace(".", "/")).glob("*.pyx"))]
    return [
        Extension(
            name,
            [cython_source(name)],
            # -O2 whatever Python was built with, and no -march: the wheel may be moved to another machine.
            extra_compile_args=["-O2", *(WARNINGS if REQUIRED else [])],
            optional=not REQUIRED,
        )
        for name in (names if POSSIBLE else [])
    ]


setup(ext_modules=modules(), cmdclass={"build_ext": BuildCompiled})
