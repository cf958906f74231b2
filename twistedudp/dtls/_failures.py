"""Why a handshake failed, in plain words.

Theory of operation: three sources tell. Our own verdict about the peer's certificate is a number, noted by a callback;
the check of the name raises :class:`PeerRefused`; what the peer tells is an alert, which OpenSSL gives as a text in an
error. Texts only choose words here and decide nothing: an error may carry the text of an older one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from OpenSSL import SSL

    from ._facts import PeerFacts

__all__ = ["NOT_ALLOWED", "TOO_MUCH", "UNREADABLE", "PeerRefused", "unreadable", "why"]

NOT_ALLOWED: Final = -1
"""Our own number for a certificate whose name is not on the list."""

UNREADABLE: Final = -2
"""Our own number for a certificate that OpenSSL takes and cryptography cannot read."""

TOO_MUCH: Final = -3
"""Our own number for a peer that sends more than a handshake has."""

_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
_UNTRUSTED: Final = frozenset({2, 7, 18, 19, 20, 21})
"""X509_V_ERR_... of x509_vfy.h: the chain does not end at an authority that is trusted, or a signature is wrong."""

_WRONG_PURPOSE: Final = 26

_CERTAIN: Final = frozenset({"wrong_ca", "wrong_name", "expired", "not_allowed", "refused", "unreachable"})
"""Findings that another attempt does not change if they are true."""

_ALERTS: Final = {
    "unknown ca": "it does not trust the authority of our certificate",
    "certificate unknown": "it refuses our certificate",
    "certificate expired": "it says that our certificate has expired, or is not valid yet",
    "certificate required": "it wants a certificate of us",
    "bad certificate": "it refuses our certificate",
    "unsupported certificate": "it says that our certificate is not for this use (extendedKeyUsage)",
    "handshake failure": "it wants a certificate of us, or knows none of our cipher suites",
    "protocol version": "it does not speak DTLS 1.2",
    "insufficient security": "it knows none of our cipher suites",
    "access denied": "it does not let us in",
    "internal error": "it ended the handshake; perhaps our certificate's name is not on its list",
    "close notify": "it ended the handshake",
}
"""RFC 5246 section 7.2, as OpenSSL spells them."""

_FAULTS: Final = {
    "unsupported protocol": "it does not speak DTLS 1.2",
    "wrong version number": "it does not speak DTLS 1.2",
    "version too low": "it does not speak DTLS 1.2",
    "no shared cipher": "it knows none of our cipher suites",
    "peer did not return a certificate": "it has shown no certificate",
}
"""What OpenSSL itself found wrong."""


class PeerRefused(Exception):
    """We refuse the peer.

    Attributes:
        reason: The word for programs; see :class:`twistedudp.errors.DTLSHandshakeFailed`.
        text: The sentence for people.
        certain: Whether another attempt will find the same, unless it was forged.
    """

    def __init__(self, reason: str, text: str, *, certain: bool = False) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.certain = certain or reason in _CERTAIN


def why(facts: PeerFacts, error: SSL.Error | None) -> PeerRefused:
    """Tell why a handshake failed.

    Args:
        facts: What was noted about the peer.
        error: What OpenSSL raised.
    """
    if facts.refusal == TOO_MUCH:
        return PeerRefused("failed", "it sends more than a handshake has")
    if facts.refusal:
        return _verdict(facts)
    reasons = _reasons(error)
    for text in reasons:
        _, alert, name = text.partition("alert ")
        if alert:
            return PeerRefused("refused", _ALERTS.get(name, f"it sent the alert {name!r}"))
    for text in reasons:
        if text in _FAULTS:
            return PeerRefused("failed", _FAULTS[text])
    detail = f" ({', '.join(reasons)})" if reasons else ""
    return PeerRefused("failed", f"the handshake broke off{detail}")


def unreadable() -> PeerRefused:
    """Refuse a peer whose certificate cannot be read."""
    return PeerRefused(
        "failed", "its certificate breaks the rules of X.509 (RFC 5280) and cannot be read", certain=True
    )


def _verdict(facts: PeerFacts) -> PeerRefused:
    number = facts.refusal
    if number == NOT_ALLOWED:
        return PeerRefused("not_allowed", f"its certificate's name is {facts.name!r}, which is not on the list")
    if number == UNREADABLE:
        return unreadable()
    if number in _UNTRUSTED:
        return PeerRefused("wrong_ca", "its certificate does not come from an authority that is trusted here")
    if number == _EXPIRED:
        return PeerRefused("expired", "its certificate has expired")
    if number == _NOT_YET_VALID:
        return PeerRefused("expired", "its certificate is not valid yet; are both clocks right?")
    unfit = "is not for this use (extendedKeyUsage)"
    text = unfit if number == _WRONG_PURPOSE else f"does not hold (OpenSSL's verification error {number})"
    return PeerRefused("failed", f"its certificate {text}", certain=True)


def _reasons(error: SSL.Error | None) -> list[str]:
    """Return OpenSSL's texts: ``Error`` carries a list of triples, ``SysCallError`` a number and a text."""
    if error is None or not error.args or not isinstance(error.args[0], list):
        return []
    return [str(entry[-1]) for entry in error.args[0] if isinstance(entry, tuple) and entry]
