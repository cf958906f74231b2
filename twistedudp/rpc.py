"""The built-in protocol ``rpc``, and what it shares with plugins whose target is an ``RPCMethods``.

Theory of operation: ``--protocol rpc --protocol-option class=module:Class`` names a class without any plugin file. Its
own options go to its constructor; ``max_request_size`` is the protocol's, here as in every plugin that serves methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .address import LARGEST_PAYLOAD
from .errors import LocalError, PluginError
from .methods import RPCMethods
from .plugins import construct, load_target
from .protocol import RPCServerProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["methods_protocol", "rpc_protocol"]

_LARGEST_REQUEST = "max_request_size"


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
        options: ``max_request_size`` (bytes; a larger request is counted and dropped), and those of the class itself;
            see :func:`twistedudp.plugins.construct`.
        wanted_by: Who asks, as error texts begin: ``"protocol 'calculator'"``.
        name: The plugin's name, for the error's attribute.

    Raises:
        PluginError: An option is wrong, the class raised, or what it made is no ``RPCMethods``.
    """
    own = dict(options)
    text = own.pop(_LARGEST_REQUEST, "8192")
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= LARGEST_PAYLOAD):
        most = f"a whole number from 1 to {LARGEST_PAYLOAD}"
        raise PluginError(name, f"{wanted_by}: the option {_LARGEST_REQUEST}={text!r} is not {most}")
    methods = construct(target, own, wanted_by, name)
    if not isinstance(methods, RPCMethods):
        raise PluginError(name, f"{wanted_by}: {target!r} makes no RPCMethods; derive the class from it")
    try:
        return RPCServerProtocol(methods, max_request_size=int(text))
    except LocalError as error:  # a method that cannot be served
        raise PluginError(name, f"{wanted_by}: {error}") from None
