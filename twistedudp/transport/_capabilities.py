"""What this kernel, or a device of this host, cannot do, said once.

Theory of operation: whatever makes a port faster but is not needed is tried, and left alone by a socket on which it
does not work. An operator wants to know of it, but once and not for each socket.
"""

from __future__ import annotations

from twisted.logger import Logger

__all__ = ["lacking"]

_log = Logger(namespace="twistedudp.transport")
_said: set[str] = set()


def lacking(capability: str, error: OSError) -> None:
    """Log once in a process that something does not work here, and that nothing is lost by it but speed.

    Args:
        capability: What the kernel calls it.
        error: What it said.
    """
    if capability not in _said:
        _said.add(capability)
        _log.info(
            "{capability} does not work here ({reason}): slower, but no loss",
            capability=capability,
            reason=error.strerror,
        )
