"""The built-in protocol ``rpc``, and what it shares with plugins whose target is an ``RPCMethods``.

Theory of operation: ``--protocol rpc --protocol-option class=module:Class`` names a class without any plugin file. Its
own options go to its constructor; those of :data:`PROTOCOL_OPTIONS` are the protocol's, here as in every plugin that
serves methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .address import LARGEST_PAYLOAD
from .errors import LocalError, PluginError
from .methods import RPCMethods
from .plugins import construct, load_target
from .protocol import RPCServerProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["PROTOCOL_OPTIONS", "methods_protocol", "rpc_protocol"]

PROTOCOL_OPTIONS: Final = {
    "max_request_size": LARGEST_PAYLOAD,
    "cache_entries": 2**24,
    "cache_size": 2**40,
    "cache_age": 24 * 60 * 60,
}
"""The options of :class:`RPCServerProtocol` that are whole numbers from 1, and the most that each may be. For the
cache's bounds that is no limit of ours: more is surely a mistake."""


def rpc_protocol(class_: str, **options: str) -> RPCServerProtocol:
    """Serve an ``RPCMethods`` class that is named as text: the target of the built-in protocol ``rpc``.

    Args:
        class_: ``"module:Class"``.
        options: As for :func:`methods_protocol`.

    Raises:
        PluginError: The class cannot be had, constructed with these options, or is no ``RPCMethods``.
    """
    wanted_by = f"protocol 'rpc' with class={class_!r}"
    return methods_protocol(load_target(class_, wanted_by, "rpc"), options, wanted_by, "rpc")


def methods_protocol(
    target: Callable[..., object], options: Mapping[str, str], wanted_by: str, name: str
) -> RPCServerProtocol:
    """Construct an ``RPCMethods`` with options that were given as text, and serve it.

    Args:
        target: The class, or a callable that returns its instance.
        options: ``max_request_size`` (bytes; a larger request is counted and dropped), the bounds of the responses
            kept for requests that repeat (``cache_entries``, ``cache_size`` in bytes, ``cache_age`` in seconds), and
            those of the class itself; see :func:`twistedudp.plugins.construct`.
        wanted_by: Who asks, as error texts begin: ``"protocol 'calculator'"``.
        name: The plugin's name, for the error's attribute.

    Raises:
        PluginError: An option is wrong, the class raised, or what it made is no ``RPCMethods``.
    """
    own = dict(options)
    bounds: dict[str, Any] = {}
    for option, most in PROTOCOL_OPTIONS.items():
        text = own.pop(option, None)
        if text is None:
            continue
        if not (text.isascii() and text.isdigit() and len(text) < 16 and 1 <= int(text) <= most):
            reason = f"the option {option}={text!r} is not a whole number from 1 to {most}"
            raise PluginError(name, f"{wanted_by}: {reason}")
        bounds[option] = int(text)
    methods = construct(target, own, wanted_by, name)
    if not isinstance(methods, RPCMethods):
        raise PluginError(name, f"{wanted_by}: {target!r} makes no RPCMethods; derive the class from it")
    try:
        return RPCServerProtocol(methods, **bounds)
    except LocalError as error:  # a method that cannot be served
        raise PluginError(name, f"{wanted_by}: {error}") from None
