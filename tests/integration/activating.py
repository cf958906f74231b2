"""A supervisor for tests: starts a program with sockets that it has bound, as systemd does.

Theory of operation: what the sockets are called and how many they are stands in variables of the environment
(sd_listen_fds(3)), and so does the number of the process, which nobody knows before there is one. So a small program
stands between that puts the sockets where they belong, says so, and becomes the server.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["activated", "descriptors"]

_PROGRAM = """
import json, os, sys
descriptors, variables = json.loads(sys.argv[1])
copies = [os.dup(descriptor) for descriptor in descriptors]
copies = [os.dup(copy) if copy < 3 + len(copies) else copy for copy in copies]
for number, copy in enumerate(copies):
    os.dup2(copy, 3 + number)
for name, value in variables.items():
    os.environ[name] = value.format(pid=os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


def descriptors(sockets: Sequence[Any]) -> list[int]:
    """Return the descriptors that have to be passed to a child together with :func:`activated`."""
    return [each.fileno() for each in sockets]


def activated(sockets: Sequence[Any], **variables: str) -> tuple[str, ...]:
    """Return the command that starts another with these sockets as its descriptors 3, 4 and so on.

    Args:
        sockets: Anything that has a descriptor.
        variables: What is in the environment beside or instead of ``LISTEN_PID`` and ``LISTEN_FDS``; ``{pid}`` stands
            for the number of the process.
    """
    told: Mapping[str, str] = {"LISTEN_PID": "{pid}", "LISTEN_FDS": str(len(sockets)), **variables}
    return (sys.executable, "-ISc", _PROGRAM, json.dumps([descriptors(sockets), dict(told)]))
