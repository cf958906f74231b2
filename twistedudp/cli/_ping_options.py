"""What ``udpecho ping`` was asked for, checked as a whole.

Theory of operation: Click hands over each option by itself, already parsed; here is what they mean together, as a
:class:`PingPlan`. Whatever cannot be meant ends in ``Misuse`` before anything is sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..address import LARGEST_PAYLOAD, max_payload
from ._arguments import Misuse
from ._options import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._options import Certificates
    from ._ping_report import Limits

__all__ = [
    "DEFAULT_INTERVAL",
    "LEAST_INTERVAL",
    "MOST_PROBES",
    "MOST_RATE",
    "MOST_WINDOW",
    "Outputs",
    "PingPlan",
    "check_secure_size",
    "check_sweep",
    "interval_of",
    "one_output",
    "probe_count",
    "probe_size",
    "rate",
    "window_for",
]

DEFAULT_INTERVAL: Final = 0.2
"""Seconds between two probes: the least that ping(8) has long allowed everybody."""

LEAST_INTERVAL: Final = 0.001
"""Seconds; what is shorter is a flood, and asked for by that name."""

MOST_RATE: Final = 1_000_000
"""Probes in a second: more than any machine sends from one process, and a typing error."""

LEAST_RATE: Final = 0.001
"""Probes in a second; what is less is an interval, and asked for by that name."""

MOST_PROBES: Final = 2**32 - 2
"""Sequence numbers have 32 bits, and the last one asks for the server's counts."""

MOST_WINDOW: Final = 4_000_000
"""Probes remembered at once, 9 bytes each: 36 MB. What waits beyond that is given up early, and counted by name."""

_SMALLEST: Final = 56  # SMALLEST_PROBE of probing, whose import costs the other commands; a test compares the two
_MOST_SECURE: Final = 1163  # of a DTLSClient as it is by default, whose import needs an extra; a test compares the two
_NUMBER: Final = re.compile(r"[0-9][0-9_,]*")
_RATE: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(k?)(?:/s)?")


@dataclass(frozen=True)
class Outputs:
    """What a run writes, and where to.

    Attributes:
        plain: Lines instead of a live display, also on a terminal.
        quiet: The summary alone.
        json: One JSON object on standard output, and nothing else there.
        json_lines: A JSON object for each event, and one for the summary.
        csv: The file of a row for each probe; ``-`` is standard output.
        plot: The file of the picture.
    """

    plain: bool = False
    quiet: bool = False
    json: bool = False
    json_lines: bool = False
    csv: str | None = None
    plot: str | None = None

    @property
    def takes_stdout(self) -> bool:
        """Whether a program reads standard output, so that nothing for people goes there."""
        return self.json or self.json_lines or self.csv == "-"


@dataclass(frozen=True)
class PingPlan:
    """A run as it was asked for; times in seconds.

    Attributes:
        host: The server as the user named it.
        port: Its port.
        interval: Between two probes.
        count: How many probes, None for no end.
        duration: How long at most, None for no end.
        timeout: After which an answer is late.
        size: Bytes of each probe.
        limits: What it must keep to.
        outputs: What it writes.
        certificates: For DTLS, None for plain UDP.
    """

    host: str
    port: int
    interval: float
    count: int | None
    duration: float | None
    timeout: float
    size: int
    limits: Limits
    outputs: Outputs
    certificates: Certificates | None = None

    def check_peer(self, host: str) -> None:
        """Refuse a size that the peer's address family does not carry.

        Args:
            host: Its numeric host.

        Raises:
            Misuse: It does not.
        """
        if self.size > max_payload(host):
            raise Misuse(
                f"--size {self.size}: {host} is an IPv4 address, and a datagram over IPv4 carries at most "
                f"{max_payload(host):,} bytes"
            )


def probe_count(text: str | int) -> int:
    """Parse ``--count``.

    Raises:
        Misuse: It is no number from 1 to :data:`MOST_PROBES`.
    """
    number = _whole(str(text))
    if number is None or not 1 <= number <= MOST_PROBES:
        raise Misuse(f"--count {text}: write how many probes to send, from 1 to {MOST_PROBES:,}")
    return number


def probe_size(text: str | int) -> int:
    """Parse ``--size``.

    Raises:
        Misuse: It is no number of bytes that a probe can have.
    """
    number = _whole(str(text))
    if number is None:
        raise Misuse(f"--size {text}: write a number of bytes, such as 1400")
    if number < _SMALLEST:
        raise Misuse(
            f"--size {text}: too small: a probe carries its number, its time and what an rpc server answers, in at "
            f"least {_SMALLEST} bytes"
        )
    if number > LARGEST_PAYLOAD:
        raise Misuse(
            f"--size {text}: too large: a UDP datagram carries at most 65,507 bytes over IPv4 and "
            f"{LARGEST_PAYLOAD:,} over IPv6"
        )
    return number


def check_secure_size(size: int) -> None:
    """Refuse a size that a record of DTLS does not carry.

    Raises:
        Misuse: It does not.
    """
    if size > _MOST_SECURE:
        raise Misuse(f"--size {size}: with --dtls at most {_MOST_SECURE:,} bytes: a record is not cut into pieces")


def rate(text: str) -> float:
    """Parse ``--flood``: probes in a second, ``500``, ``10k``, ``500/s``.

    Raises:
        Misuse: It is none, or beyond :data:`MOST_RATE`.
    """
    parsed = _RATE.fullmatch(text.strip())
    number = float(parsed[1]) * (1000 if parsed[2] else 1) if parsed else 0.0
    if not LEAST_RATE <= number <= MOST_RATE:
        raise Misuse(
            f"--flood {text:.20}: write how many probes a second, at least {LEAST_RATE:g} and at most {MOST_RATE:,}, "
            "such as 5000"
        )
    return number


def interval_of(interval: float | None, flood: float | None) -> float:
    """Return the seconds between two probes.

    Args:
        interval: ``--interval``, if given.
        flood: ``--flood``, if given.

    Raises:
        Misuse: Both are.
    """
    if interval is not None and flood is not None:
        raise Misuse("--interval and --flood exclude each other: both say how often to send")
    if flood is not None:
        return 1 / flood
    return DEFAULT_INTERVAL if interval is None else interval


def interval(text: str) -> float:
    """Parse ``--interval``.

    Raises:
        Misuse: It is no time, or a shorter one than :data:`LEAST_INTERVAL`.
    """
    value = duration("--interval", text)
    if value < LEAST_INTERVAL:
        raise Misuse(f"--interval {text}: the shortest is 1ms; --flood RATE sends more often")
    return value


def one_output(outputs: Outputs) -> None:
    """Refuse outputs that would go to standard output together.

    Raises:
        Misuse: There is more than one.
    """
    named = [
        name
        for name, wanted in (
            ("--json", outputs.json),
            ("--json-lines", outputs.json_lines),
            ("--csv -", outputs.csv == "-"),
        )
        if wanted
    ]
    if len(named) > 1:
        raise Misuse(
            f"{' and '.join(named)} exclude each other: only one can have standard output; --csv FILE writes to a file"
        )


_SWEEPS_TAKE: Final = {
    "sweep_size": {"timeout", "as_json", "plain", "ipv4", "ipv6"},
    "sweep_rate": {"timeout", "as_json", "plain", "ipv4", "ipv6", "size", "flood", "max_loss", "duration"},
}
"""The options that mean something beside a sweep."""


def check_sweep(given: Mapping[str, bool]) -> None:
    """Refuse options that mean nothing beside ``--sweep-size`` or ``--sweep-rate``.

    Args:
        given: Which options were given, by the names of their parameters.

    Raises:
        Misuse: There is one.
    """
    sweeps = [name for name in _SWEEPS_TAKE if given.get(name)]
    if len(sweeps) > 1:
        raise Misuse("--sweep-size and --sweep-rate exclude each other; run one after the other")
    (sweep,) = sweeps
    if given.get("dtls"):
        raise Misuse(f"--dtls and {_option(sweep)} exclude each other: a sweep is of plain UDP")
    for name, is_given in given.items():
        if is_given and name not in _SWEEPS_TAKE[sweep] and name not in (*_SWEEPS_TAKE, "address"):
            raise Misuse(f"{_option(name)} means nothing with {_option(sweep)}: leave it out")


def _option(name: str) -> str:
    return "--json" if name == "as_json" else f"--{name.replace('_', '-')}"


def window_for(interval: float, timeout: float, default: int) -> int:
    """Return how many probes are to be remembered, so that none is given up before its timeout.

    Args:
        interval: Seconds between two probes.
        timeout: Seconds that each waits.
        default: How many at least.
    """
    # Twice as long, so that late answers and duplicates are known as such.
    return min(MOST_WINDOW, max(default, int(2 * timeout / interval) + 1))


def _whole(text: str) -> int | None:
    typed = text.strip()
    if not (typed.isascii() and _NUMBER.fullmatch(typed)) or len(typed) > 20:
        return None
    return int(typed.replace(",", "").replace("_", ""))
