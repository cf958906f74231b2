"""``udpecho doctor``: what stands between this machine and a UDP server, or between a server and its clients.

Theory of operation: the examination is :mod:`twistedudp.doctor`'s; here its findings become text or JSON, and an exit
status. What a finding shows was perhaps sent by a stranger and goes through the same escapes as any answer. While it
runs, a terminal shows what is being done; everything else gets the findings only.
"""

from __future__ import annotations

import contextlib
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Final

import click

from ..address import DEFAULT_PORT, parse_host_port
from ._arguments import Misuse
from ._failures import NO_ANSWER
from ._options import duration, family_of_flags, family_options
from ._output import is_open, is_terminal, one_line, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from twisted.internet.base import ReactorBase

    from ..address import Address
    from ..doctor import Finding

__all__ = ["doctor"]

EPILOG = (
    "Exit status: 0 nothing is wrong; 1 a finding is a fault; 2 wrong usage, nothing was sent. docs/doctor.md explains "
    "each finding by its code."
)

_LONGEST_TIMEOUT: Final = 60.0
_LEAST_BUFFER, _MOST_BUFFER = 1, 2**30
_WIDEST: Final = 100
"""Columns of a line of text on a terminal: longer ones are hard to read."""
_INDENT: Final = 4


@click.command(epilog=EPILOG)
@click.argument("target", metavar="HOST[:PORT]")
@click.option(
    "--local",
    is_flag=True,
    help="Look at the port on this machine, which runs the server; HOST may be left out: ':10000'.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=lambda text: duration("--timeout", str(text), most=_LONGEST_TIMEOUT),
    default="4",
    show_default=True,
    help="How long to wait until silence is believed, for each address of HOST.",
)
@click.option("--quick", is_flag=True, help="Only see whether it answers: leave out loss, rate and large datagrams.")
@click.option(
    "--receive-buffer",
    metavar="BYTES",
    type=click.IntRange(_LEAST_BUFFER, _MOST_BUFFER),
    help="The receive buffer of the program that you have in mind; left out, what this system gives by itself.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one line of JSON, for scripts.")
@family_options
def doctor(target: str, local: bool, as_json: bool, **options: Any) -> None:
    """Find out whether UDP reaches HOST, how far, and what stands in the way.

    Sends a few probes, which echo servers and rpc servers answer, and if they are answered some hundred more within a
    second, and large ones: what is lost, at which rate, and which sizes pass. Anything that does not answer is told
    apart by what comes back instead: nothing, or an ICMP error, and whose.
    """
    if local:
        host, port = _local_target(target)
        _refuse_asking()
        findings = _local_examiner()(host, port)
    else:
        host, port = _target(target)
        findings = _examine(host, port, options)
    if as_json:
        from ..doctor import findings_as_json  # noqa: PLC0415  # Twisted: only where something is examined

        print_json(findings_as_json(target, findings, host=host, port=port, local=local), compact=True)
    else:
        _print(findings)
    if any(finding.fault for finding in findings):
        click.get_current_context().exit(NO_ANSWER)


def _target(text: str) -> Address:
    if text.isdecimal():
        raise Misuse(f"{text!r} is a port without a host; write HOST:{text}, or --local :{text}")
    try:
        return parse_host_port(text, DEFAULT_PORT)
    except ValueError as error:
        hint = "; with --local the host may be left out" if text.startswith(":") else ""
        raise Misuse(f"{error}{hint}") from error


def _local_target(text: str) -> Address:
    """Parse ``[HOST][:PORT]``; the host is empty where it is left out."""
    if text.startswith(":") and not text.startswith("::"):
        return "", _target(f"localhost{text}")[1]
    host, port = _target(text)
    return host, port


def _refuse_asking() -> None:
    """Refuse what was typed for a question, beside ``--local``.

    Raises:
        Misuse: There is such an option.
    """
    context = click.get_current_context()
    for name in ("ipv4", "ipv6", "quick", "timeout", "receive_buffer"):
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            flag = {"ipv4": "-4", "ipv6": "-6"}.get(name, f"--{name.replace('_', '-')}")
            raise Misuse(f"{flag} says how to ask a server, and --local asks nobody; leave one of them out")


def _local_examiner() -> Callable[[str, int], list[Finding]]:
    from ..doctor import examine_local  # noqa: PLC0415  # only where something is examined

    return examine_local


def _examine(host: str, port: int, options: dict[str, Any]) -> list[Finding]:
    family = family_of_flags(host, ipv4=options["ipv4"], ipv6=options["ipv6"])
    from ..doctor import Thoroughness, examine  # noqa: PLC0415  # Twisted: only where something is examined
    from ._ask import run_until_done  # noqa: PLC0415  # likewise

    how = Thoroughness(options["timeout"], options["quick"], options["receive_buffer"])

    async def asking(reactor: ReactorBase) -> list[Finding]:
        with _status() as show:
            return await examine(reactor, host, port, family=family, how=how, on_step=show)

    return run_until_done(asking)


@contextlib.contextmanager
def _status() -> Iterator[Callable[[str], object]]:
    """Show on a terminal what is being done, and nothing anywhere else."""
    if not (is_terminal() and is_open(sys.stderr) and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415  # slow to import: only for people
    from rich.text import Text  # noqa: PLC0415  # likewise

    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(Text(one_line(text)))


def _print(findings: Sequence[Finding]) -> None:
    """Print findings for people: wrapped on a terminal, one line for each thing anywhere else."""
    from rich.console import Console  # noqa: PLC0415  # slow to import
    from rich.text import Text  # noqa: PLC0415  # likewise

    console = Console(soft_wrap=True, highlight=False)
    width = min(console.width, _WIDEST) if is_terminal() else 0
    for number, finding in enumerate(findings):
        if number:
            console.print()
        style = "bold red" if finding.fault else "bold green" if finding.code == "UDP-ANSWERED" else "bold yellow"
        head = f"{finding.code}{' (fault)' if finding.fault else ''}:"
        first, *rest = _wrapped(f"{head} {one_line(finding.says)}", width, 0)
        console.print(Text.assemble((first[: len(head)], style), first[len(head) :]))
        for line in rest:
            console.print(Text(line))
        for text in finding.evidence:
            for line in _wrapped(one_line(text), width, _INDENT):
                console.print(Text(line, "dim"))
        if finding.advice:
            for line in _wrapped(f"What to do: {one_line(finding.advice)}", width, 0):
                console.print(Text(line))


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    """Return a text as lines of at most so many columns; as one line where the width is 0."""
    if not width:
        return [" " * indent + text]
    return textwrap.wrap(
        text,
        max(width - 1, 20),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + (2 if indent else _INDENT)),
        break_on_hyphens=False,
        drop_whitespace=True,
    )
