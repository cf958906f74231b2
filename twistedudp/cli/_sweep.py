"""What ``udpecho ping --sweep-size`` and ``--sweep-rate`` do and print.

Theory of operation: ``_ping`` calls one of the two functions here with the values that Click parsed; each looks the
host up, runs a sweep on the reactor, prints a line for each step as it ends, and the finding. On a terminal one more
line at the bottom says what is being looked for; it is rewritten in place, and gone at the end. Nothing of Twisted is
imported before they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from ._arguments import Misuse
from ._output import is_terminal, one_line, print_json
from ._ping_units import share_text, time_text
from ._sweep_findings import rate_findings, rate_text, size_findings

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.base import ReactorBase
    from twisted.internet.defer import Deferred

    from .._sweeps import RateStep, RateSweep, SizeStep, SizeSweep
    from ..address import Address
    from ._ask import Server

__all__ = ["sweep_rate_command", "sweep_size_command"]

_T = TypeVar("_T")

_GOOD, _BAD, _LOCAL = "green", "red", "magenta"  # legible on dark and on light


def sweep_size_command(server: Server, *, as_json: bool = False, plain: bool = False) -> int:
    """Find the largest payload that passes whole, and print it.

    Args:
        server: Whom to ask; its ``timeout`` is the longest time that one answer is waited for, in seconds.
        as_json: Print one JSON object (``--json``) and nothing else.
        plain: No live line at the bottom, also on a terminal (``--plain``).

    Returns:
        The exit status: 0 if a size was found, 1 if nothing answered.
    """
    from .._sweeps import sweep_size  # noqa: PLC0415  # Twisted: only where something is asked

    lines = _Lines(plain=plain, silent=as_json)

    def on_step(step: SizeStep) -> None:
        lines.add(*_size_line(step))
        lines.status(f"looking between {step.passes or 0:,} and {step.too_large:,} bytes")

    def sweeping(reactor: ReactorBase, peer: Address) -> Deferred[SizeSweep]:
        lines.add(f"{_named(server, peer)}: which payloads pass whole", "bold")
        return sweep_size(reactor, peer, timeout=server.timeout, on_step=on_step)

    found = _run(server, sweeping, lines)
    if as_json:
        print_json(found.as_json(), compact=True)
    else:
        lines.findings(size_findings(found))
    return 1 if found.largest is None else 0


def sweep_rate_command(
    server: Server,
    *,
    size: int,
    most_rate: float | None = None,
    max_loss: float = 0.0,
    seconds_per_step: float | None = None,
    as_json: bool = False,
    plain: bool = False,
) -> int:
    """Find the highest rate without loss, and print it.

    Args:
        server: Whom to ask; its ``timeout`` is when an answer counts as lost, in seconds.
        size: Bytes of each probe's payload (``--size``).
        most_rate: Probes in a second that are never exceeded (``--flood RATE``, if given); None for 10,000.
        max_loss: The share of lost probes that still counts as none (``--max-loss``), 0 to 1.
        seconds_per_step: How long each rate is tried, in seconds (``-w``, if given); None for 1.
        as_json: Print one JSON object (``--json``) and nothing else.
        plain: No live line at the bottom, also on a terminal (``--plain``).

    Returns:
        The exit status: 0 if a rate was found, 1 if nothing answered or every rate lost.
    """
    from .._sweeps import DEFAULT_MOST_RATE, sweep_rate  # noqa: PLC0415  # Twisted: only where something is asked

    lines = _Lines(plain=plain, silent=as_json)
    most = DEFAULT_MOST_RATE if most_rate is None else most_rate
    seconds = 1.0 if seconds_per_step is None else seconds_per_step

    def on_step(step: RateStep) -> None:
        lines.add(*_rate_line(step))
        above = "" if step.too_fast is None else f" and below {rate_text(step.too_fast)}"
        lines.status(f"looking above {rate_text(step.passes or 0)}{above}, {seconds:g} s for each rate")

    def sweeping(reactor: ReactorBase, peer: Address) -> Deferred[RateSweep]:
        allowed = f"no more than {share_text(max_loss)} of the probes" if max_loss else "no probe"
        lines.add(f"{_named(server, peer)}: up to which rate {allowed} of {size:,} bytes is lost", "bold")
        return sweep_rate(
            *(reactor, peer), size=size, most_rate=most, max_loss=max_loss, seconds_per_step=seconds,
            timeout=server.timeout, on_step=on_step,
        )  # fmt: skip

    found = _run(server, sweeping, lines)
    if as_json:
        print_json(found.as_json(), compact=True)
    else:
        lines.findings(rate_findings(found))
    return 1 if found.highest is None else 0


def _run(server: Server, sweeping: Callable[[ReactorBase, Address], Deferred[_T]], lines: _Lines) -> _T:
    """Look the server up, and run a sweep to its end.

    Raises:
        Misuse: Nothing can be sent to such an address.
    """
    from twisted.internet.error import InvalidAddressError  # noqa: PLC0415  # Twisted: only where something is asked

    from ..transport import BroadcastNotAllowed  # noqa: PLC0415  # likewise
    from ._ask import run_until_done  # noqa: PLC0415  # Twisted: only where something is asked
    from ._ping_peer import addresses_of, answering_one  # noqa: PLC0415  # likewise

    async def asking(reactor: ReactorBase) -> _T:
        addresses = await addresses_of(reactor, server.host, server.port, server.family)
        return await sweeping(reactor, await answering_one(reactor, addresses))

    try:
        return run_until_done(asking)
    except InvalidAddressError as error:
        raise Misuse(f"{one_line(server.host)}: {one_line(str(error.args[-1]))}") from error
    except BroadcastNotAllowed as error:
        raise Misuse(
            f"{error.host} is a broadcast address; a sweep asks one server, by an address of its own"
        ) from error
    finally:
        lines.status("")


def _named(server: Server, peer: Address) -> str:
    from ..address import format_address  # noqa: PLC0415  # beside the others

    name = "" if server.host == peer[0] else f"{one_line(server.host)} "
    return f"{name}{format_address(peer)}"


def _size_line(step: SizeStep) -> tuple[str, str]:
    """Return the line of a step, and its style."""
    tries = f"{step.tries:,} {'try' if step.tries == 1 else 'tries'}"
    text, style = {
        "passed": (f"pass, {time_text(step.rtt)}", _GOOD),
        "silent": (f"no answer to {tries}", _BAD),
        "too large here": (f"too large: {step.detail}" if step.detail else "too large for the own interface", _LOCAL),
        "too large there": (f"too large: {step.detail}" if step.detail else "too large, says ICMP", _BAD),
        "cut": (f"cut: {step.detail}", _BAD),
    }.get(step.outcome, (step.detail, _BAD))
    stage = {"check": "again: ", "fragments": "in fragments: "}.get(step.stage, "")
    return f"{step.size:>8,} bytes  {stage}{one_line(text)}", style


def _rate_line(step: RateStep) -> tuple[str, str]:
    """Return the line of a step, and its style."""
    lost = f"{step.lost:,} of {step.sent:,} lost ({share_text(step.loss)})"
    text, style = {
        "passed": (lost if step.lost else "nothing lost", _GOOD),
        "lost": (lost, _BAD),
        "this machine": (f"this machine: {step.detail}", _LOCAL),
        "no answer": (f"no answer to {step.sent:,} probes", _BAD),
    }[step.outcome]
    if step.outcome != "no answer" and step.p99 is not None:
        text = f"{text}, p99 {time_text(step.p99)}"
    return f"{rate_text(step.rate):>12}  {'again: ' if step.stage == 'check' else ''}{text}", style


class _Lines:
    """Lines on standard output, and on a terminal one below them that is rewritten in place.

    Args:
        plain: No such line, and no colours.
        silent: Nothing at all.
    """

    def __init__(self, *, plain: bool, silent: bool) -> None:
        self._silent = silent
        self._console: Any = None
        self._status = ""
        if is_terminal() and not plain and not silent:
            from rich.console import Console  # noqa: PLC0415  # slow to import: only for people

            console = Console(highlight=False)
            self._console = None if console.is_dumb_terminal else console

    def add(self, line: str, style: str = "") -> None:
        """Print a line."""
        if self._silent:
            return
        if self._console is None:
            click.echo(line)
            return
        from rich.text import Text  # noqa: PLC0415  # slow to import: only for people

        self._erase()
        self._console.print(Text(line, style=style), soft_wrap=True)

    def status(self, text: str) -> None:
        """Show a text below the lines instead of the one before; an empty one erases it."""
        if self._console is None:
            return
        self._erase()
        self._status = text[: max(0, self._console.width - 1)]
        self._console.file.write(self._status)
        self._console.file.flush()

    def findings(self, sentences: list[str]) -> None:
        """Print the findings, a paragraph that is wrapped to the terminal."""
        text = " ".join(sentences)
        if self._console is None:
            click.echo("\n" + "\n".join(sentences))
            return
        from rich.text import Text  # noqa: PLC0415  # slow to import: only for people

        self._console.print()
        self._console.print(Text(text, style="bold"))

    def _erase(self) -> None:
        if self._status:
            self._console.file.write("\r\x1b[2K")
            self._status = ""
