"""The whole suite on every supported Python: ``nox``, or ``nox -s tests-3.12`` for one.

Each builds the compiled modules for itself, and fails if it cannot or if a compiler warns: what Cython writes depends
on Python's headers. ``TWISTEDUDP_REQUIRE_COMPILED=0`` does without, where there is no C compiler.

nox finds interpreters on the path by their names, such as ``python3.12``. pyenv has them there once they are chosen,
by ``pyenv global 3.11 3.10 3.12 3.13`` or by the variable ``PYENV_VERSION`` with colons between the versions.
"""

from __future__ import annotations

import os

import nox


@nox.session(python=["3.10", "3.11", "3.12", "3.13"], venv_backend="venv")
def tests(session: nox.Session) -> None:
    """Run scripts/test in the session's environment: it installs the wheel there by itself."""
    demanded = os.environ.get("TWISTEDUDP_REQUIRE_COMPILED", "1")
    command = ("python", "scripts/test", "--environment", session.virtualenv.location, *session.posargs)
    session.run(*command, env={"TWISTEDUDP_REQUIRE_COMPILED": demanded})
