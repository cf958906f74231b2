"""The C program ``flood`` as tests run it, beside the reactor that they run.

Theory of operation: the program has a processor of its own to send from, while the test's process serves. It is read
when it has ended, or when it has said that all is sent, so nothing is waited for in vain.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.integration.compiling import compiled

if TYPE_CHECKING:
    from typing_extensions import Self

    from twistedudp.address import Address

__all__ = ["Generator", "RunDelay"]

_PATIENCE: Final = 30.0  # seconds for a process to end that has nothing more to do


class Generator:
    """A running ``flood``, ended at the end of the ``with`` block.

    Args:
        mode: What it shall do; see the head of ``flood.c``.
        server: Where it shall send to.
        arguments: What else the mode needs.
    """

    def __init__(self, mode: str, server: Address, *arguments: int) -> None:
        command = [str(compiled("flood")), mode, server[0], str(server[1]), *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    @property
    def ended(self) -> bool:
        """Whether it is done."""
        return self._process.poll() is not None

    @property
    def all_sent(self) -> bool:
        """Whether a volley has been sent, or the program has failed."""
        assert self._process.stdout is not None
        return self.ended or bool(select.select([self._process.stdout], [], [], 0)[0])

    def figures(self) -> dict[str, int]:
        """Let a volley end, and return what the program counted.

        Raises:
            AssertionError: It failed.
        """
        output, faults = self._process.communicate(timeout=_PATIENCE)
        if self._process.returncode:
            raise AssertionError(f"flood ended with status {self._process.returncode}:\n{faults.decode()}")
        counted: dict[str, int] = json.loads(output.splitlines()[-1])
        return counted


class RunDelay:
    """How long this thread could have run but was given no processor: the machine's fault, not the code's."""

    def __init__(self) -> None:
        self._path = Path(f"/proc/self/task/{os.getpid()}/schedstat")
        self._before = self._read()

    def since_last(self) -> float:
        """Return the seconds since this was last asked; 0 where the kernel does not tell."""
        before, self._before = self._before, self._read()
        return self._before - before

    def _read(self) -> float:
        try:
            return int(self._path.read_text().split()[1]) / 1e9
        except OSError:
            return 0.0
