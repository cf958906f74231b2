"""A series' summary as text for people, what is to be done about it, and whether it is within the limits.

Theory of operation: pure functions from a :class:`~twistedudp.probing.Summary` to lines and sentences. Each figure has
its place and its name, which docs/ping.md defines; what a figure of zero cannot mean is left out, but never a count.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from ..address import format_address
from ._output import one_line
from ._ping_histogram import histogram_lines
from ._ping_units import counted, interval_text, share_text, time_text, times_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .._secure_probes import SessionCounts
    from ..address import Address
    from ..probing import Summary, Times

__all__ = [
    "WORDS",
    "Limits",
    "Observed",
    "exceeded",
    "heading",
    "nothing_came",
    "remarks",
    "report_lines",
    "run_as_json",
]

WORDS: Final = {
    "wrong_sequence": "answers with a number never sent",
    "forgotten_sequence": "answers after their time",
    "from_another_address": "from other addresses",
    "other_series": "answers to another series",
    "not_a_probe": "datagrams that answer nothing",
    "wrong_size": "answers of another size",
    "icmp_error_without_quote": "ICMP errors about who knows",
    "forged_icmp_error": "ICMP errors about nothing sent",
    "answered_before_sent": "answers before their probe",
    "window_full": "probes given up early, too many waited",
    "skipped_deadlines": "probes never sent, for lack of time",
    "clock_jump": "times the wall clock was set",
}
"""What the stable words of oddities mean."""

_UNANSWERED: Final = "unanswered_at_stop"
_LABEL: Final = 12  # columns of the names on the left
_MOST_STRANGERS: Final = 3
"""Addresses named; a server has seldom more, and a scan from thousands shall not fill the screen."""


@dataclass(frozen=True)
class Limits:
    """What a run must keep to; None where there is no limit.

    Attributes:
        loss: Share of the probes that may be lost.
        p50: Seconds that the median round trip may take.
        p99: Seconds that the 99th percentile may take.
        jitter: Seconds of jitter.
    """

    loss: float | None = None
    p50: float | None = None
    p99: float | None = None
    jitter: float | None = None


@dataclass
class Observed:
    """What was seen beside the figures.

    Attributes:
        unreachable: What the last ICMP error said.
        not_sent: Why the last probe that was not sent was not.
        strangers: Addresses that answered and are not the server's, and how often.
        sessions: What became of the DTLS sessions; None over plain UDP.
    """

    unreachable: str = ""
    not_sent: str = ""
    strangers: Mapping[Address, int] | None = None
    sessions: SessionCounts | None = None


def run_as_json(summary: Summary, observed: Observed) -> dict[str, object]:
    """Return a run as the object that ``--json`` prints."""
    sessions = observed.sessions
    if sessions is None:
        return {**summary.as_json(), "dtls": False}
    return {**summary.as_json(), "dtls": True, **asdict(sessions)}


def exceeded(summary: Summary, limits: Limits) -> str:
    """Return which limits a run exceeded, by what, as one line; empty where it kept to them."""
    found = []
    if limits.loss is not None and (summary.loss is None or summary.loss > limits.loss):
        # The same digits would not tell which is more.
        share = share_text(summary.loss)
        tells = (
            f"{summary.lost:,} of {summary.received + summary.lost:,}" if share == share_text(limits.loss) else share
        )
        found.append(f"loss is {tells}, more than --max-loss {share_text(limits.loss)}")
    for name, value, limit in (
        ("p50", summary.rtt.p50, limits.p50),
        ("p99", summary.rtt.p99, limits.p99),
        ("jitter", summary.jitter if summary.received > 1 else 0.0, limits.jitter),
    ):
        if limit is None or value is None or value <= limit:
            continue
        shown, allowed = time_text(value), interval_text(limit)
        if value * 0.99 <= limit:  # three digits may not tell which is more
            shown = f"{value:.9f} s"
        found.append(f"{name} is {shown}, more than --max-{name} {allowed}")
    return "; ".join(found)


def nothing_came(summary: Summary, observed: Observed) -> str:
    """Return why nothing may have come back, and what to do next, as one line."""
    where = _where(summary)
    return (
        _other_answer(summary, observed, where)
        or _no_sending(summary, observed, where)
        or _silence(summary, where, secure=observed.sessions is not None)
    )


def _no_sending(summary: Summary, observed: Observed, where: str) -> str:
    if summary.oddities.get(_UNANSWERED) and not summary.lost:
        return f"nothing has come back from {where} yet: the run was ended while its probes waited for their answers"
    if summary.sent:
        return ""
    if observed.not_sent:
        return f"nothing was sent to {where}: {one_line(observed.not_sent)}; {_doctor(summary)}"
    return f"nothing was sent to {where}: the run ended before its first probe"


def _other_answer(summary: Summary, observed: Observed, where: str) -> str:
    if observed.strangers:
        return f"nothing came back from {where}, but {_from_another(summary, observed.strangers)}"
    if observed.unreachable.startswith("Connection refused"):
        return (
            f"nobody listens at {where}: its host refused (ICMP port unreachable); start a server there, or check the "
            "port"
        )
    if observed.unreachable:
        return f"nothing came back from {where}: {one_line(observed.unreachable)}; {_doctor(summary)}"
    return ""


def _silence(summary: Summary, where: str, *, secure: bool) -> str:
    if summary.corrupted:
        return f"nothing came back intact from {where}: {counted(summary.corrupted, 'answer')} changed on the way"
    if summary.late:
        return (
            f"nothing came back from {where} in time, and {counted(summary.late, 'answer')} too late; a longer "
            "--timeout counts them"
        )
    if secure:
        return (
            f"nothing came back from {where}, which has shaken hands; is it an echo server, or an rpc server of ours, "
            "that answers what it is sent?"
        )
    return (
        f"nothing came back from {where}; is a server running there? a firewall may be silent, too: {_doctor(summary)}"
    )


def remarks(summary: Summary, observed: Observed) -> list[str]:
    """Return what else the reader should know after a run with answers, each as one line."""
    found = []
    if observed.strangers:
        found.append(_from_another(summary, observed.strangers))
    if summary.unreachable and observed.unreachable:
        found.append(
            f"{counted(summary.unreachable, 'ICMP error')} about these probes, the last of which says: "
            f"{one_line(observed.unreachable)}"
        )
    if summary.not_sent and observed.not_sent:
        found.append(f"{counted(summary.not_sent, 'probe')} could not be sent: {one_line(observed.not_sent)}")
    if summary.late:
        found.append(f"{counted(summary.late, 'answer')} came after the timeout; a longer --timeout counts them")
    return found


def _from_another(summary: Summary, strangers: Mapping[Address, int]) -> str:
    shown = sorted(strangers.items(), key=lambda item: -item[1])[:_MOST_STRANGERS]
    names = ", ".join(one_line(format_address(address)) for address, _ in shown)
    more = f" and {len(strangers) - len(shown):,} more" if len(strangers) > len(shown) else ""
    count = sum(strangers.values())
    came = "an answer came" if count == 1 else f"{count:,} answers came"
    return f"{came} from ANOTHER address: {names}{more}; {_doctor(summary)}"


def _doctor(summary: Summary) -> str:
    return f"'udpecho doctor {one_line(summary.target)}' tells why"


def _where(summary: Summary) -> str:
    """Return the address, with the name as the user wrote it where that is another."""
    target = one_line(summary.target)
    return summary.address if target == summary.address else f"{target} ({summary.address})"


def report_lines(
    summary: Summary,
    buckets: Sequence[tuple[int, int]],
    *,
    width: int = 79,
    blocks: bool = True,
    sessions: SessionCounts | None = None,
) -> list[str]:
    """Return a summary as lines.

    Args:
        summary: What came of the run.
        buckets: The round trips, see :func:`~._ping_histogram.histogram_lines`.
        width: Characters of a line of the histogram.
        blocks: Whether it is drawn with block characters.
        sessions: What became of the DTLS sessions; None over plain UDP.
    """
    lines = [heading(summary), *_rows(summary, sessions)]
    histogram = histogram_lines(buckets, width=width, blocks=blocks)
    return [*lines, "", *histogram] if histogram else lines


def heading(summary: Summary) -> str:
    """Return the line that says whom a run asked."""
    return f"--- {_where(summary)} ---"


def _rows(summary: Summary, sessions: SessionCounts | None) -> Iterator[str]:
    yield _row(
        "run",
        f"{summary.size:,} bytes every {interval_text(summary.interval)} for {time_text(summary.duration)}"
        + (f", answered by {summary.protocol}" if summary.protocol else ""),
    )
    if sessions is not None:
        yield from _session_rows(sessions)
    yield _row(
        "probes",
        f"{summary.sent:,} sent, {summary.received:,} received, {summary.lost:,} lost ({share_text(summary.loss)})",
    )
    yield _row("answers", f"{summary.late:,} late, {summary.duplicated:,} duplicated, {summary.reordered:,} reordered")
    yield _row("", f"{summary.corrupted:,} corrupted, {summary.foreign:,} foreign")
    yield from _odd_rows(summary)
    if summary.received:
        rtt = summary.rtt
        yield _row("round trip", times_text({"min": rtt.min, "mean": rtt.mean, "max": rtt.max, "stddev": rtt.stddev}))
        yield _row("", times_text({"p50": rtt.p50, "p90": rtt.p90, "p99": rtt.p99, "p99.9": rtt.p999}))
    if summary.jitter is not None:
        yield _row("jitter", f"{time_text(summary.jitter)} (RFC 3550)")
    yield from _server_rows(summary)
    if summary.sent:
        told = "by the kernel" if summary.kernel_times else "by this program, later than it was"
        late = summary.schedule_error
        yield _row("schedule", f"probes left {time_text(late.p50)} (p50), {time_text(late.p99)} (p99) behind time")
        if summary.received:
            yield _row("", f"arrival was told {told}")


def _session_rows(sessions: SessionCounts) -> Iterator[str]:
    which = "handshake" if sessions.handshakes == 1 else "the first handshake"
    took = "" if sessions.handshake is None else f", {which} took {time_text(sessions.handshake)}"
    yield _row("DTLS", f"{counted(sessions.handshakes, 'session')}{took}")
    if sessions.without_session:
        yield _row("", f"{counted(sessions.without_session, 'probe')} lost for want of a session")


def _odd_rows(summary: Summary) -> Iterator[str]:
    label = "odd"
    waited = summary.oddities.get(_UNANSWERED, 0)
    if waited:
        yield _row("not counted", f"{counted(waited, 'probe')} whose answers were still awaited when the run was ended")
    if summary.unreachable:
        yield _row("ICMP", counted(summary.unreachable, "error"))
    if summary.not_sent:
        yield _row("not sent", counted(summary.not_sent, "probe"))
    for word, count in summary.oddities.items():
        if word == _UNANSWERED:
            continue
        yield _row(label, f"{count:,} {WORDS.get(word, word)} ({word})")
        label = ""


def _server_rows(summary: Summary) -> Iterator[str]:
    if summary.lost_there is not None:
        yield _row(
            "lost there", f"{summary.lost_there:,} on the way to the server, {summary.lost_back:,} on the way back"
        )
    elif summary.protocol == "rpc":
        yield _row("lost there", "unknown: the server's count does not fit this run's")
    if summary.duplicated_there:
        yield _row("dup. there", f"{counted(summary.duplicated_there, 'probe')} reached the server more than once")
    if summary.server_time.p50 is not None:
        yield _row("server took", _spread(summary.server_time))
    if summary.variation_there.p50 is not None:
        yield _row("varies there", _spread(summary.variation_there))
        yield _row("varies back", _spread(summary.variation_back))


def _spread(times: Times) -> str:
    return times_text({"p50": times.p50, "p99": times.p99, "max": times.max})


def _row(label: str, text: str) -> str:
    return f"{label:<{_LABEL}} {text}"
