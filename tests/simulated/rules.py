"""What must hold of all that happened, of every call, every life of a server, and every counter.

Theory of operation: each rule is a function that takes a :class:`~tests.simulated.history.History` and raises
:class:`Violation`. What the design allows is said where the rule allows it:

* A method that is not idempotent runs once for the same bytes from the same address and port on one life of a server,
  as long as no more than the cache's age lies between two arrivals. A NAT that gives a client another port in the
  middle of a call makes another client of it, and a server that was started again is another server.
* A call that is not idempotent moves to another server only when each of its tries was refused: an ICMP error has come
  that quotes it and bears the address that it was sent to. So it was sent but once to each of the servers before.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError

from tests.simulated.ledger import Violation
from tests.simulated.tables import HAIR
from tests.simulated.world import ECHO_PORT
from twistedudp import errors
from twistedudp.core import INTERNET, LAN
from twistedudp.messages import CODE_BUSY, CODE_UNPROVEN_ADDRESS, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulated.history import History, Sent
    from tests.simulated.ledger import Call, ClientLife, ServerLife

__all__ = ["RULES"]

_ANSWERED: Final = {"now", "later", "coroutine", "look"}
_REFUSED: Final = {
    "unknown": "unknown_method",
    "wrong": "wrong_parameter_count",
    "broken": "method_failed",
}


def each_call_fires_once_in_time(history: History) -> None:
    """Every Deferred has fired, once, and not later than at its deadline."""
    for call in history.world.ledger.calls:
        if call.fired != 1:
            raise Violation("each call fires once", f"{call} has fired {call.fired} times", call)
        if call.ended > call.started + call.plan.timeout + HAIR:
            raise Violation("deadlines are kept", f"{call} ended at {call.ended:.6f}", call)


def each_outcome_is_true(history: History) -> None:
    """Results are those of a run for this call, and errors say what was."""
    for call in history.world.ledger.calls:
        if not (_is_true(history, call) or history.is_tampered(call)):
            outcome = repr(call.result) if call.error is None else repr(call.error)
            raise Violation("each outcome is true", f"{call} ended with {outcome[:300]}", call)


def _is_true(history: History, call: Call) -> bool:
    error, plan = call.error, call.plan
    if error is None:
        return _is_true_result(history, call)
    if isinstance(error, errors.ErrorReplyReceived):
        return _is_true_reply(history, call, error)
    at_deadline = call.ended >= call.started + plan.timeout - HAIR
    client = history.world.plan.clients[plan.client]
    truths: dict[type[BaseException], bool] = {
        errors.RequestTimedOut: at_deadline,
        CancelledError: call.cancelled,
        errors.RequestAborted: call.life.stopping,
        errors.ServiceNotRunning: call.at_once,
        errors.TooManyRequests: call.at_once and bool(client.bounds),
        errors.CircuitOpen: client.options["breaker_threshold"] > 0,
        errors.HostNotFound: client.by_name,
        errors.PeerReflects: client.echo and plan.method == "now",
    }
    if isinstance(error, errors.PeerUnreachable):
        sent = [call.payload] if call.payload is not None else [sent.payload for sent in history.tries[call.token]]
        return any(
            record.source == error.peer and any(payload.startswith(record.payload) for payload in sent)
            for record in history.errors
        )
    return truths.get(type(error), False)


def _is_true_result(history: History, call: Call) -> bool:
    method = call.plan.method
    if method == "echo_bytes":
        return bool(call.result == call.payload)
    if method == "echo":
        asked = any(sent.payload in history.arrived for sent in history.tries[call.token])
        return asked and bool(call.result == [call.token, bytes(call.plan.pad)])
    return method in _ANSWERED and call.result in history.world.ledger.produced[call.token]


def _is_true_reply(history: History, call: Call, error: errors.ErrorReplyReceived) -> bool:
    method, code = call.plan.method, error.code
    if code == CODE_UNPROVEN_ADDRESS:
        return call.ended >= call.started + call.plan.timeout - HAIR
    if code == CODE_BUSY:
        hint = error.retry_after
        left = call.started + call.plan.timeout - call.ended
        return left <= HAIR or (hint is not None and left <= max(hint, INTERNET.min_timeout) + HAIR)
    if code == "server_stopping":
        return method in {"later", "coroutine", "never"} and call.token in history.world.ledger.produced
    if method == "fail":
        return code == "refused" and error.data in history.world.ledger.produced[call.token]
    return code == _REFUSED.get(method) and (method != "broken" or call.token in history.world.ledger.produced)


def _at_its_end(call: Call) -> bool:
    """Tell whether a call has ended at its deadline: a busy server ends it before if that is to come back later."""
    return call.ended >= call.started + call.plan.timeout - HAIR


def tries_are_alike(history: History) -> None:
    """All tries of a call are the same bytes; of one that is not idempotent they leave from one port, to one server."""
    for token, tries in history.tries.items():
        call = history.world.ledger.calls[token]
        if len({sent.payload for sent in tries}) > 1:
            raise Violation("tries are identical", f"{call} was sent as other bytes", call)
        if call.plan.idempotent or call.plan.method == "echo":
            continue
        if len({sent.source for sent in tries}) > 1:
            # A port is of one address family, and a call that has moved may have changed that.
            families = {":" in sent.source[0] for sent in tries}
            if len({sent.source for sent in tries}) > len(families):
                raise Violation("tries leave from one port", f"{call} was sent from several", call)
        for count, (before, after) in enumerate(pairwise(tries), 1):
            if before.destination == after.destination:
                continue
            once = len({sent.destination for sent in tries[:count]}) == count
            if not (once and _refused_before(history, before, after)):
                raise Violation("calls stay where they were sent", f"{call} moved to {after.destination}", call)


def _refused_before(history: History, before: Sent, after: Sent) -> bool:
    return any(
        record.source == before.destination
        and record.destination == before.source
        and before.payload.startswith(record.payload)
        and record.rank < after.fates_before
        for record in history.errors
    )


def tries_are_few(history: History) -> None:
    """No call makes more tries than its schedule has in its time."""
    for token, tries in history.tries.items():
        call = history.world.ledger.calls[token]
        client = history.world.plan.clients[call.plan.client]
        most = _most_tries(call.plan.timeout, LAN if client.options["policy"] == "lan" else INTERNET)
        # A refusal lets a call move at once, and its next tries are as far apart as before.
        most += sum(tries[0].payload.startswith(record.payload) for record in history.errors if record.payload)
        # ... and where a server wants the address proven, it is repeated at once.
        message = history.decoded(tries[0].payload)
        most += history.proofs_wanted[message.msgid] if isinstance(message, Request) else 0
        # A busy server says itself when it wants to be asked again.
        most += history.busy[getattr(message, "msgid", None)]
        if len(tries) > most:
            raise Violation("tries are few", f"{call} was sent {len(tries)} times, {most} are the most", call)


def _most_tries(timeout: float, policy: Any) -> int:
    tries, interval = 1, min(policy.min_timeout, policy.first_timeout, timeout / 8)
    time = interval
    while time < timeout:
        tries += 1
        interval = min(2 * interval, policy.max_timeout)
        time += interval
    return tries


def nothing_runs_twice(history: History) -> None:
    """No method that is not idempotent runs twice for the same bytes from the same peer on one life of a server."""
    for life, received in history.received.items():
        allowed: Counter[object] = Counter()
        seen: dict[object, float] = {}
        age = life.protocol._responder.settings.cache_age
        for record in received:
            message = history.decoded(record.payload)
            if not isinstance(message, Request) or not message.params:
                continue
            assert record.settled_at is not None
            key = (record.source, record.payload)
            before, seen[key] = seen.get(key), record.settled_at
            if before is None or before + age < record.settled_at or message.method == "look":
                allowed[record.source, message.method, _hashable(message.params[0])] += 1
        runs = Counter((run.peer, run.method, run.token) for run in life.runs)
        for (peer, method, token), count in runs.items():
            most = allowed[peer, method, token]
            if count > most:
                text = f"{method!r} of call {token} ran {count} times for {peer} on server life {life.number}"
                raise Violation("nothing runs twice", f"{text}, {most} is allowed", _call(history, token))


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int) else None


def _call(history: History, token: Any) -> Call | None:
    calls = history.world.ledger.calls
    return calls[token] if isinstance(token, int) and 0 <= token < len(calls) else None


def servers_only_answer(history: History) -> None:
    """A server sends to nobody who has not asked, and not more than he has; results go to whom they were run for."""
    for life, responses in history.responses.items():
        # What arrives has the higher number where both are equal: rank counts the fates before its own.
        events: list[tuple[int, int, Any, bytes]] = [
            (record.rank, 1, record.source, b"") for record in history.received[life]
        ]
        events += [(sent.fates_before, 0, sent.destination, sent.payload) for sent in responses]
        owed: Counter[object] = Counter()
        for _, arrival, peer, payload in sorted(events, key=lambda event: event[:2]):
            owed[peer] += 1 if arrival else -1
            if owed[peer] < 0:
                raise Violation("servers only answer", f"server life {life.number} sent {peer} what it did not ask for")
            if not arrival:
                _check_addressee(history, life, peer, payload)


def _check_addressee(history: History, life: ServerLife, peer: Any, payload: bytes) -> None:
    message = history.decoded(payload)
    if not isinstance(message, Response):
        raise Violation("servers only answer", f"server life {life.number} sent {payload[:60]!r}")
    error: Any = message.error
    value: Any = error.get("data") if isinstance(error, dict) else message.result
    if isinstance(value, list) and len(value) == 6 and tuple(value[3:5]) != peer:
        text = f"server life {life.number} gave {peer} what it had run for {value[3:5]}"
        raise Violation("results go to who asked", text, _call(history, value[2]))


def nobody_is_flooded(history: History) -> None:
    """An address that may be forged is sent three times at most what came from it, and 128 bytes."""
    for life, responses in history.responses.items() if history.world.plan.prove else ():
        events: list[tuple[int, int, str, bytes]] = [
            (record.rank, 1, record.source[0], record.payload) for record in history.received[life]
        ]
        events += [(sent.fates_before, 0, sent.destination[0], sent.payload) for sent in responses]
        left: defaultdict[str, int] = defaultdict(lambda: 128)
        proven: set[str] = set()
        for _, arrival, host, payload in sorted(events, key=lambda event: event[:2]):
            prefix = _prefix_of(host)
            left[prefix] += 3 * len(payload) if arrival else 0 if host in proven else -len(payload)
            if left[prefix] < 0:
                text = f"server life {life.number} sent {host} {-left[prefix]} bytes more than it may"
                raise Violation("nobody is flooded", text)
            if arrival and history.is_proof(payload) and payload in history.proofs_of(host):
                proven.add(host)


def _prefix_of(host: str) -> str:
    return str(ipaddress.ip_network(f"{host}/{64 if ':' in host else 32}", strict=False))


def client_counters_add_up(history: History) -> None:
    """What a client has counted is what its callers got, and what the trace shows."""
    for life in history.world.ledger.client_lives:
        _check_outcomes_counted(life)
    for client in history.world.clients:
        lives = [life for life in history.world.ledger.client_lives if life.client == client.number]
        stats = [life.requester.stats for life in lives]
        sent = history.sent[client.name]
        _equal("transmitted", sum(one.transmitted - one.not_sent for one in stats), len(sent))
        requests = [one for one in sent if isinstance(history.decoded(one.payload), Request)]
        if len(requests) == sum(not history.is_proof(one.payload) for one in sent):
            repeats = len(requests) - len({one.payload for one in requests})
            least = sum(one.retransmitted for one in stats)
            _between("retransmitted", repeats, least, least + sum(one.refused + one.unproven for one in stats))
        addresses = client.reactor.addresses
        datagrams = sum(record.error is None and record.destination[0] in addresses for record in history.delivered)
        told = sum(record.destination[0] in addresses for record in history.errors)
        counted = sum(
            one.answered + one.errors + one.busy + one.unproven + one.late + one.duplicate + one.rejected.total()
            for one in stats
        ) - sum(one.rejected["unmatched_icmp"] for one in stats)
        reflected = sum(isinstance(call.error, errors.PeerReflects) for life in lives for call in life.calls)
        _between(
            "received", datagrams, counted + reflected, counted + reflected + sum(life.overtaken for life in lives)
        )
        refused = sum(one.refused + one.rejected["unmatched_icmp"] for one in stats)
        _equal("refused and unmatched_icmp", refused, told)


def _check_outcomes_counted(life: ClientLife) -> None:
    stats = life.requester.stats
    got = Counter(_kind(call) for call in life.calls)
    named = ("answered", "errors", "timed_out", "cancelled", "aborted", "suspended", "too_many", "failed")
    for name in named:
        overtaken = 0 if name in {"cancelled", "too_many"} else life.overtaken
        expected = got[name] - (life.overtaken if name == "cancelled" else 0)
        _between(name, getattr(stats, name), expected, expected + overtaken)
    at_once = sum(call.at_once for call in life.calls)
    _equal("requests", stats.requests, len(life.calls) - at_once)
    ends = sum(getattr(stats, name) for name in named) + got["unreachable"]
    _between("all outcomes", len(life.calls), ends, ends + life.overtaken)


def _kind(call: Call) -> str:
    error = call.error
    if isinstance(error, errors.ErrorReplyReceived):
        # Flipped bits may leave no token in an error, which then is an outcome at once.
        at_deadline = call.ended >= call.started + call.plan.timeout - HAIR
        waits = error.code == CODE_BUSY and _at_its_end(call)
        waits = waits or (error.code == CODE_UNPROVEN_ADDRESS and at_deadline)
        return "timed_out" if waits else "errors"
    kinds: dict[type[BaseException], str] = {
        errors.RequestTimedOut: "timed_out",
        CancelledError: "cancelled",
        errors.RequestAborted: "aborted",
        errors.CircuitOpen: "suspended",
        errors.TooManyRequests: "too_many",
        errors.PeerUnreachable: "unreachable",
    }
    return "answered" if error is None else kinds.get(type(error), "failed")


def server_counters_add_up(history: History) -> None:
    """What a server has counted is what came to it and what it has sent."""
    for life, received in history.received.items():
        stats, responder = life.protocol.stats, life.protocol._responder
        busy = stats.errors[CODE_BUSY]
        counted = stats.requests + stats.notifications + stats.repeated + busy + stats.proofs + stats.rejected.total()
        counted += stats.strangers
        _equal("received", counted - stats.rejected["send_failed"], len(received))
        # Where an address is to be proven the answer is kept, and something else sent, or nothing.
        answered = stats.responses + stats.errors.total() - stats.errors[CODE_UNPROVEN_ADDRESS]
        sent = len(history.responses[life]) + stats.withheld - stats.released - stats.strangers
        _between("sent", sent, answered, answered + stats.repeated)
        _equal("requests", stats.requests, answered - busy + len(responder))
        if not life.crashed:
            _equal("running", len(responder), 0)
        _between("runs", len(life.runs), 0, stats.requests)
        _between("notes", life.notes, 0, stats.notifications)


def echoes_have_come_back(history: History) -> None:
    """No more raw echoes are answered than have come back with these bytes."""
    for client in history.world.clients:
        back = Counter(
            record.payload
            for record in history.delivered
            if record.source[1] == ECHO_PORT and record.destination[0] in client.reactor.addresses
        )
        answered = Counter(
            call.payload
            for call in history.world.ledger.calls
            if call.plan.client == client.number and call.plan.method == "echo_bytes" and call.error is None
        )
        for payload, count in answered.items():
            _between(f"answered echoes of {payload!r}", count, 0, back[payload or b""])


def _equal(what: str, one: int, other: int) -> None:
    _between(what, one, other, other)


def _between(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise Violation("counters add up", f"{what}: {value}, not {least}" + (f" to {most}" if most != least else ""))


RULES: Final[tuple[Callable[[History], None], ...]] = (
    each_call_fires_once_in_time,
    each_outcome_is_true,
    tries_are_alike,
    tries_are_few,
    nothing_runs_twice,
    servers_only_answer,
    nobody_is_flooded,
    client_counters_add_up,
    server_counters_add_up,
    echoes_have_come_back,
)
"""All of them, in the order in which they are checked."""
