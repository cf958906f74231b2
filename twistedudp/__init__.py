"""Run and call UDP services on Twisted.

Theory of operation: the public names live in submodules and are imported at their first use (PEP 562), so that
``import twistedudp.errors`` or the start of ``twistd``, which looks at every plugin that is installed, pays neither for
msgpack nor for a socket. :mod:`twistedudp.testing` is imported by its own name: production code has no use for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors
    from .admission import AdmissionPolicy
    from .client import UDPClientService
    from .discovery import DiscoveryAnswer, discover
    from .interfaces import IDatagramPlugin
    from .methods import RPCMethods, current_peer, method
    from .plugins import DatagramPlugin
    from .server import UDPServerService
    from .transport import listen

__all__ = [
    "AdmissionPolicy",
    "DatagramPlugin",
    "DiscoveryAnswer",
    "IDatagramPlugin",
    "RPCMethods",
    "UDPClientService",
    "UDPServerService",
    "current_peer",
    "discover",
    "errors",
    "listen",
    "method",
]

_HOMES = {
    "AdmissionPolicy": "admission",
    "DatagramPlugin": "plugins",
    "DiscoveryAnswer": "discovery",
    "IDatagramPlugin": "interfaces",
    "RPCMethods": "methods",
    "UDPClientService": "client",
    "UDPServerService": "server",
    "current_peer": "methods",
    "discover": "discovery",
    "listen": "transport",
    "method": "methods",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name == "errors":
        return import_module(".errors", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    """List the public names, whether imported yet or not."""
    return sorted({*globals(), *__all__})
