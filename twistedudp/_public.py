"""What a protocol must be like to be served on a public address: the part of ``--public`` that only it can tell.

Theory of operation: on a public address anybody can send in anybody's name. So a protocol must not send a peer much
more than came from there, or others are flooded by way of it, and nothing that needs to know who asks may go in
plaintext. What a protocol says of itself (``amplifies``, ``has_private_methods``) is looked at when it was made and
before it reads anything; what its plugin says, already while options are parsed. Who says nothing is refused: a
protocol that was never looked at for this is not safe by accident.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import PluginError

if TYPE_CHECKING:
    from twisted.internet.protocol import AbstractDatagramProtocol

    from .interfaces import IDatagramPlugin

__all__ = ["check_plugin", "check_protocol", "check_token_key"]

_WAY_OUT = "encrypt it with --dtls-cert, which proves who asks, or listen on loopback"


def check_plugin(plugin: IDatagramPlugin) -> None:
    """Refuse a plugin that says that its protocol amplifies.

    Raises:
        PluginError: It does.
    """
    if getattr(plugin, "amplifies", None):
        raise PluginError(plugin.name, _amplifies(plugin.name))


def check_protocol(plugin: IDatagramPlugin, protocol: AbstractDatagramProtocol, *, encrypted: bool) -> None:
    """Refuse a protocol that is not to be served on a public address.

    Args:
        plugin: Where it is from.
        protocol: It, before it has a transport.
        encrypted: Whether peers have proven who they are before it sees anything.

    Raises:
        PluginError: It is refused; one line that says what to change.
    """
    name = plugin.name
    if getattr(protocol, "answer_privileged_ports", False):
        raise PluginError(
            name, "--public: answer_privileged_ports lets servers that echo answer one another; leave it out"
        )
    if encrypted:
        return
    amplifies = getattr(protocol, "amplifies", None)
    if amplifies is None:
        amplifies = getattr(plugin, "amplifies", None)
    if amplifies is None:
        raise PluginError(
            name,
            f"--public: nobody says whether the protocol {name!r} can be used to flood others: write amplifies = False "
            "in its class if it never sends a peer more than three times the bytes that came from there; else "
            f"{_WAY_OUT}",
        )
    if amplifies:
        raise PluginError(name, _amplifies(name))
    if getattr(protocol, "has_private_methods", False):
        raise PluginError(
            name,
            f"--public: the protocol {name!r} has methods marked private=True, which must not be called in plaintext: "
            "give a certificate with --dtls-cert and --dtls-key, or leave these methods out",
        )


def check_token_key(plugin: IDatagramPlugin, protocol: AbstractDatagramProtocol) -> None:
    """Refuse a secret for a protocol that has no use for it.

    Raises:
        PluginError: It proves no addresses.
    """
    if not hasattr(protocol, "use_token_key"):
        text = f"--token-key-file: the protocol {plugin.name!r} serves no methods and proves no addresses; leave it out"
        raise PluginError(plugin.name, text)


def _amplifies(name: str) -> str:
    return (
        f"--public: the protocol {name!r} may send more than three times the bytes that came from there to whoever is "
        f"named as the sender, and so flood others: {_WAY_OUT}"
    )
