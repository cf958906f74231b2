"""What a server may send to an address that may be forged: never much more than came from there.

Theory of operation: whoever forges the source of a request has the response sent to somebody else, and a server whose
responses are larger than the requests multiplies what he sends. So the payload bytes that go to an address that is not
proven stay within ``FACTOR`` (3) times those that came from there, as with QUIC (RFC 9000 section 8), summed over its
prefix: an IPv4 address, or the /64 around an IPv6 address, which is what one network hands to one host. Beyond this
there are ``ALLOWANCE`` (128) bytes for one short error, which tells how to prove the address and carries a token.

Most exchanges need no memory: a response of at most three times its request's bytes keeps the sum whatever was before.
Only the error runs into *debt*, up to the allowance, and only a debtor's further exchanges are looked at, as what they
leave unused pays the debt. Where not even the error fits, nothing is sent, and what the request brought is saved as
*credit*: an honest client that repeats its request gets the error free of debt after a few tries (of ``n`` bytes each:
the first multiple of ``3 n`` that reaches the error's size).

Both tables are bounded. A credit may be forgotten at any time, for that makes nobody owe less. A debt may not: an
attacker who can push others' debts out would get another 128 bytes for each victim by each round through the table, in
all ten times the bytes that he sends. So a debt is kept for ``debt_age``, an hour, from its last increase, and where
the table is full nobody else gets into debt: the error then waits until the request's repeats have paid for it. In a
time of ``T`` seconds a prefix is thus sent at most 3 times what came from it, plus 128 (1 + T / 3600) bytes; and all
prefixes together, however many are forged, get at most 8,192 * 128 bytes, 1 MiB, an hour beyond 3 times what came.
What an attacker gains by filling the table (8,192 datagrams an hour) is that requests of less than 40 bytes from
addresses that are not proven have to be tried up to three times more.

Proven addresses stand in a table of their own, which only a valid token enters; the one that was needed least recently
leaves. They have no budget.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from ..address import unmapped
from ..messages import CODE_UNPROVEN_ADDRESS, PROVE_METHOD

__all__ = [
    "ALLOWANCE",
    "ERROR_SIZE",
    "FACTOR",
    "PROOF_HEAD",
    "TOKEN_SIZE",
    "ReplyBudget",
    "Tokens",
    "prefix_of",
    "unproven_error",
]

FACTOR: Final = 3
"""How many bytes may be sent for each that came (RFC 9000 section 8.1)."""

ALLOWANCE: Final = 128
"""Bytes that a prefix may have been sent beyond that: room for one error, whatever the size of its request."""

TOKEN_SIZE: Final = 16
"""Bytes of a token: what nobody guesses, and short enough for an error of 128 bytes."""

MAX_DEBTORS: Final = 8192
"""Prefixes in debt, and prefixes with a credit; each table takes 2.5 MiB at most."""

DEBT_AGE: Final = 3600.0
"""Seconds after its last increase for which a debt is kept: 128 bytes an hour are no flood to anybody."""

MAX_PROVEN: Final = 65536
"""Proven addresses; the table takes 15 MiB at most."""

PROVEN_AGE: Final = 3600.0
"""Seconds for which an address is proven. Addresses change hands; to prove one again costs a client two datagrams."""


class Tokens(Protocol):
    """What makes and knows tokens without remembering any."""

    def token_of(self, host: str) -> bytes:
        """Return the token of a host, of ``TOKEN_SIZE`` bytes."""
        ...

    def is_valid_untrusted(self, token: bytes, host: str) -> bool:
        """Tell whether bytes of any origin are a token that was made for this host lately."""
        ...


_HEAD: Final = b"\x94\x01\xce"
_TEXT: Final = b"send the notification rpc.prove [data], then this again"
_CODE: Final = CODE_UNPROVEN_ADDRESS.encode()
_ERROR: Final = b"".join(
    (b"\x83\xa4code", bytes([0xA0 | len(_CODE)]), _CODE, b"\xa7message\xd9", bytes([len(_TEXT)]), _TEXT, b"\xa4data")
) + bytes([0xC4, TOKEN_SIZE])
_END: Final = b"\xc0"  # no result

ERROR_SIZE: Final = len(_HEAD) + 4 + len(_ERROR) + TOKEN_SIZE + len(_END)
"""Bytes of the error, which has this size always."""

PROOF_HEAD: Final = b"".join(
    (b"\x93\x02", bytes([0xA0 | len(PROVE_METHOD)]), PROVE_METHOD.encode(), b"\x91\xc4", bytes([TOKEN_SIZE]))
)
"""How a proof begins as every usual encoder writes it; the token is the rest."""


def unproven_error(msgid: int, token: bytes) -> bytes:
    """Return the response with the error ``unproven_address``, encoded.

    It is put together here, since a flood of forged requests wants one for each.
    """
    return b"".join((_HEAD, msgid.to_bytes(4, "big"), _ERROR, token, _END))


def prefix_of(host: str) -> str:
    """Return the prefix that shares one budget with a host: an IPv4 address itself, the /64 of an IPv6 address.

    Args:
        host: A numeric host in the kernel's spelling, with or without a scope.
    """
    if ":" not in host:
        return host
    plain = unmapped(host)
    if plain is not host:
        return plain
    head, gap, tail = host.partition("::")
    groups = head.split(":")
    if gap and len(groups) < 4:  # some of the first four are zeros that are not written
        behind = tail.partition("%")[0].split(":") if tail else []
        zeros = max(0, 8 - len(groups) - len(behind)) if head else 8 - len(behind)
        groups = [*(groups if head else ()), *("0",) * zeros, *behind]
    return ":".join(groups[:4])


class ReplyBudget:
    """Decides what may be sent to whom; time is that of the last datagram that came, which the owner tells.

    Args:
        tokens: Makes and knows tokens.
        trusts_loopback: Whether 127.0.0.0/8 and ::1 are proven: nothing from outside has such a source.
        max_debtors: Prefixes that may be in debt at once.
        debt_age: Seconds for which a debt is kept after its last increase.
        max_proven: Hosts that may be proven at once.
        proven_age: Seconds for which a host is proven.

    Attributes:
        tokens: Makes and knows tokens.
        now: The time in seconds on any clock that does not go back; the owner's to set.
        debts: The bytes that a prefix was sent beyond ``FACTOR`` times what came from it, from 1 to ``ALLOWANCE``, with
            when they became more; in the order of these times.
    """

    __slots__ = (
        "_credits", "_debt_age", "_max_debtors", "_max_proven", "_proven", "_proven_age", "_trusts_loopback", "debts",
        "now", "tokens",
    )  # fmt: skip

    def __init__(
        self,
        tokens: Tokens,
        *,
        trusts_loopback: bool = True,
        max_debtors: int = MAX_DEBTORS,
        debt_age: float = DEBT_AGE,
        max_proven: int = MAX_PROVEN,
        proven_age: float = PROVEN_AGE,
    ) -> None:
        self.tokens = tokens
        self.now = 0.0
        self.debts: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._credits: OrderedDict[str, int] = OrderedDict()
        self._proven: OrderedDict[str, float] = OrderedDict()
        self._trusts_loopback = trusts_loopback
        self._max_debtors = max_debtors
        self._debt_age = debt_age
        self._max_proven = max_proven
        self._proven_age = proven_age

    def prove_untrusted(self, token: object, host: str) -> bool:
        """Take a proof of any origin; tell whether it was one, so that the host is proven now."""
        if type(token) is not bytes or len(token) != TOKEN_SIZE or not self.tokens.is_valid_untrusted(token, host):
            return False
        proven = self._proven
        if host not in proven and len(proven) >= self._max_proven:
            proven.popitem(last=False)
        proven[host] = self.now + self._proven_age
        proven.move_to_end(host)
        return True

    def is_proven(self, host: str) -> bool:
        """Tell whether a host may be sent anything."""
        until = self._proven.get(host)
        if until is None:
            return self._trusts_loopback and (host.startswith("127.") or host == "::1")
        if until < self.now:
            del self._proven[host]
            return False
        self._proven.move_to_end(host)
        return True

    def pay(self, host: str, unused: int) -> None:
        """Learn that what came from a host allows for so many bytes more than were sent for it."""
        prefix = prefix_of(host)
        debt = self.debts.get(prefix)
        if debt is not None and not self.is_proven(host):  # of a proven neighbour's bytes nothing is owed
            self._owes(prefix, debt[0] - unused, debt[1])

    def may_refuse(self, host: str, received: int, size: int = ERROR_SIZE) -> bool:
        """Tell whether a request may be answered with an error, which then counts as sent; else its bytes are saved.

        Args:
            host: Who sent it, or is said to have.
            received: Its bytes.
            size: The error's bytes, at most ``ALLOWANCE``.
        """
        prefix = prefix_of(host)
        owed, since = self.debts.get(prefix, (0, self.now))
        if owed and since + self._debt_age < self.now:
            del self.debts[prefix]
            owed = 0
        if not owed:
            owed = -self._credits.pop(prefix, 0)
        owed -= FACTOR * received
        after = owed + size
        if after <= 0 or (after <= ALLOWANCE and self._has_room(prefix)):
            self._owes(prefix, after, self.now if size > FACTOR * received else since)
            return True
        self._owes(prefix, owed, since)
        if owed < 0:
            self._save(prefix, -owed)
        return False

    def _has_room(self, prefix: str) -> bool:
        """Tell whether a prefix may be in debt; debts that are old enough to be forgotten are."""
        debts = self.debts
        if prefix in debts or len(debts) < self._max_debtors:
            return True
        oldest = self.now - self._debt_age
        while debts:
            _, since = next(iter(debts.values()))
            if since >= oldest:
                break
            debts.popitem(last=False)
        return len(debts) < self._max_debtors

    def _owes(self, prefix: str, owed: int, since: float) -> None:
        """Write down what a prefix owes, which is nothing if it is not positive."""
        if owed <= 0:
            self.debts.pop(prefix, None)
            return
        self.debts[prefix] = owed, since
        if since == self.now:
            self.debts.move_to_end(prefix)

    def _save(self, prefix: str, credit: int) -> None:
        if len(self._credits) >= self._max_debtors:
            self._credits.popitem(last=False)
        self._credits[prefix] = credit
