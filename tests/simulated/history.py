"""All that has happened, in the order in which it did: what the rules go by when everything has stopped.

Theory of operation: the trace has every datagram as it was sent and as it arrived, in the order in which both were
decided. Three things are worked out from it once: which bytes the clients have sent from where and when, what has come
to each life of a server and what it has sent, and which datagrams arrived as nobody had sent them.

A flipped bit can make a request of another, or a result of another, and no checksum tells: such a datagram is *tampered
with*. The outcome of a call is left unjudged if a tampered datagram that bears its msgid has arrived anywhere. What is
said of runs holds of tampered requests as well, for it goes by the bytes that arrived.
"""

from __future__ import annotations

import errno
from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.simulated.world import ECHO_PORT, RPC_PORT
from twistedudp._msgpack import decode_untrusted, encode_notification
from twistedudp.errors import DecodeError
from twistedudp.messages import CODE_BUSY, CODE_UNPROVEN_ADDRESS, PROVE_METHOD, Notification, Request, Response
from twistedudp.testing import Fate

if TYPE_CHECKING:
    from tests.simulated.ledger import Call, ServerLife
    from tests.simulated.world import World
    from twistedudp.address import Address
    from twistedudp.messages import Message
    from twistedudp.testing import TraceRecord

__all__ = ["History", "Sent"]


class Sent(NamedTuple):
    """One datagram as its sender sent it."""

    number: int
    time: float
    source: Address
    destination: Address
    payload: bytes
    fates_before: int


class History:
    """All that has happened in a world.

    Args:
        world: The world, at its end.

    Attributes:
        world: The world.
        records: The trace.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.records: list[TraceRecord] = list(world.network.trace)
        self._messages: dict[bytes, Message | None] = {}

    def decoded(self, payload: bytes) -> Message | None:
        """Return the message in a payload, or ``None``."""
        if payload not in self._messages:
            try:
                self._messages[payload] = decode_untrusted(payload)
            except DecodeError:
                self._messages[payload] = None
        return self._messages[payload]

    @cached_property
    def delivered(self) -> list[TraceRecord]:
        """What has arrived, ICMP errors included, in order."""
        return sorted(
            (record for record in self.records if record.fate is Fate.DELIVERED), key=lambda record: record.rank
        )

    @cached_property
    def arrived(self) -> set[bytes]:
        """The payloads that have come to any server."""
        return {record.payload for record in self.delivered if record.destination[1] in (ECHO_PORT, RPC_PORT)}

    @cached_property
    def busy(self) -> Counter[int | None]:
        """How often each request was answered that its server is busy, by msgid."""
        answers = (self.decoded(record.payload) for record in self.delivered if record.error is None)
        return Counter(
            answer.msgid
            for answer in answers
            if isinstance(answer, Response) and isinstance(answer.error, dict) and answer.error.get("code") == CODE_BUSY
        )

    @cached_property
    def errors(self) -> list[TraceRecord]:
        """The ICMP errors that programs were told of; a port keeps to itself that something was too large."""
        return [record for record in self.delivered if record.error and record.error.errno != errno.EMSGSIZE]

    @cached_property
    def sent(self) -> dict[str, list[Sent]]:
        """What each host's programs have sent, in order."""
        sent: defaultdict[str, list[Sent]] = defaultdict(list)
        for number, host, (source, destination, payload, error) in self.world.network.sent:
            if error is None:
                record = self.records[number]
                sent[host].append(Sent(number, record.time, source, destination, payload, record.fates_before))
        return sent

    @cached_property
    def tries(self) -> dict[int, list[Sent]]:
        """The requests that clients have sent, by the token of the call."""
        tries: defaultdict[int, list[Sent]] = defaultdict(list)
        for host in self.world.client_hosts:
            for sent in self.sent[host]:
                message = self.decoded(sent.payload)
                if isinstance(message, Request):
                    tries[self.token_of(message)].append(sent)
        return tries

    def is_proof(self, payload: bytes) -> bool:
        """Tell whether a payload proves an address, or is meant to."""
        message = self.decoded(payload)
        return isinstance(message, Notification) and message.method == PROVE_METHOD

    def proof_wanted(self, payload: bytes) -> Any:
        """Return the token in a payload that wants an address proven; ``None`` if it does not."""
        message = self.decoded(payload)
        error: Any = message.error if isinstance(message, Response) else None
        is_wanted = isinstance(error, dict) and error.get("code") == CODE_UNPROVEN_ADDRESS
        return error.get("data") if is_wanted else None

    def proofs_of(self, host: str) -> set[bytes]:
        """Return the proofs of a host that somebody could make who has received all that servers sent to it."""
        return self._proofs[host]

    @cached_property
    def _proofs(self) -> defaultdict[str, set[bytes]]:
        proofs: defaultdict[str, set[bytes]] = defaultdict(set)
        for responses in self.responses.values():
            for sent in responses:
                token = self.proof_wanted(sent.payload)
                if token is not None:
                    proofs[sent.destination[0]].add(encode_notification(PROVE_METHOD, [token]))
        return proofs

    @cached_property
    def proofs_wanted(self) -> Counter[int]:
        """How often a proof was wanted of a client for a request, by msgid; whoever sent that."""
        return Counter(
            message.msgid
            for record in self.delivered
            if self.proof_wanted(record.payload) is not None
            and isinstance(message := self.decoded(record.payload), Response)
        )

    def token_of(self, message: Request) -> Any:
        """Return the token of the call that made a request."""
        first: Any = message.params[0]
        return first[0] if message.method == "echo" else first

    @cached_property
    def tampered(self) -> set[int]:
        """The msgids in datagrams that have arrived as nobody had sent them."""
        # By sender, for an echo server sends back whatever has come of a request.
        sent = {(host, one.payload) for host, datagrams in self.sent.items() for one in datagrams}
        strange = (
            self.decoded(record.payload)
            for record in self.delivered
            if record.error is None
            and (record.sender, record.payload) not in sent
            and record.number not in self.world.network.forged
        )
        return {message.msgid for message in strange if isinstance(message, (Request, Response))}

    def is_tampered(self, call: Call) -> bool:
        """Tell whether a call's outcome may be any, since flipped bits made a datagram that bears its msgid."""
        if not self.tampered:
            return False
        return any(
            getattr(self.decoded(sent.payload), "msgid", None) in self.tampered
            for sent in self.tries.get(call.token, ())
        )

    @cached_property
    def received(self) -> dict[ServerLife, list[TraceRecord]]:
        """What has come to the rpc server, by its life."""
        received: dict[ServerLife, list[TraceRecord]] = {}
        for life in self.world.ledger.server_lives:
            received[life] = [
                record
                for record in self.delivered
                if record.destination[1] == RPC_PORT
                and record.destination[0] in life.addresses
                and life.born <= record.rank < life.died
                and record.error is None
            ]
        return received

    @cached_property
    def responses(self) -> dict[ServerLife, list[Sent]]:
        """What the rpc server has sent, by its life."""
        return {
            life: [
                sent
                for sent in self.sent[life.addresses[0]]
                if sent.source[1] == RPC_PORT and life.born < sent.fates_before <= life.died
            ]
            for life in self.world.ledger.server_lives
        }
