"""``udpecho ping`` as Click sees it.

Theory of operation: each option is parsed by itself, what they mean together is a plan (:mod:`._ping_options`), and
:mod:`._ping_run` runs it; that, and Twisted, is imported when something is to be run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from ._arguments import Misuse
from ._options import address as parsed_address
from ._options import dtls_options, duration, family_of_flags, family_options, share
from ._ping_options import (
    Outputs,
    PingPlan,
    check_secure_size,
    check_sweep,
    interval,
    interval_of,
    one_output,
    probe_count,
    probe_size,
    rate,
)
from ._ping_report import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._resolve import AddressFamily
    from ..address import Address
    from ._options import Certificates

__all__ = ["ping"]

EPILOG: Final = (
    "Exit status: 0 answers came, within the limits; 1 none came, or a limit was exceeded; 2 wrong usage, nothing was "
    "sent."
)


def _time(option: str) -> Callable[[str], float]:
    """Return a parser of an option's time."""

    def parsed(text: str) -> float:
        return duration(option, str(text))

    return parsed


def _limit(option: str) -> Callable[[str], float]:
    """Return a parser of an option's share."""

    def parsed(text: str) -> float:
        return share(option, text)

    return parsed


def _schedule_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add when to send, how many, and what."""
    for option in (
        click.option("--size", metavar="BYTES", type=probe_size, default=64, show_default=True,
                     help="Payload of each probe."),
        click.option("--timeout", metavar="TIME", type=_time("--timeout"), default=2.0,
                     help="After which an answer is late and its probe lost: 2s if left out."),
        click.option("--flood", metavar="RATE", type=rate, help="Send so many a second instead, such as 5000 or 10k."),
        click.option("-w", "--duration", metavar="TIME", type=_time("--duration"),
                     help="Send for so long, at most."),
        click.option("-c", "--count", metavar="NUMBER", type=probe_count,
                     help="Send so many. Without -c and -w, until Ctrl-C."),
        click.option("-i", "--interval", metavar="TIME", type=interval,
                     help="Send one so often: 200ms if left out, 1ms at least."),
    ):  # fmt: skip
        command = option(command)
    return command


def _limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what the run must keep to."""
    for option in (
        click.option("--max-jitter", metavar="TIME", type=_time("--max-jitter"), help="The same for the jitter."),
        click.option("--max-p99", metavar="TIME", type=_time("--max-p99"), help="The same for 99 % of them: 50ms."),
        click.option("--max-p50", metavar="TIME", type=_time("--max-p50"),
                     help="Exit status 1 if half of the round trips take longer."),
        click.option("--max-loss", metavar="SHARE", type=_limit("--max-loss"),
                     help="Exit status 1 if more is lost: 1% or 0.01."),
    ):  # fmt: skip
        command = option(command)
    return command


def _output_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what is written."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="Print the summary only."),
        click.option("--plot", metavar="FILE", help="Draw the run into FILE: .png, .svg or .pdf (needs matplotlib)."),
        click.option("--csv", metavar="FILE", help="Write a row for each probe to FILE; - is standard output."),
        click.option("--json-lines", is_flag=True, help="Print an object for each datagram, and one for the summary."),
        click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object, nothing else."),
        click.option("--plain", is_flag=True, help="Print lines, also on a terminal."),
    ):
        command = option(command)
    return command


def _sweep_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what is looked for instead."""
    command = click.option("--sweep-rate", is_flag=True, help="Find the highest rate without loss instead.")(command)
    return click.option("--sweep-size", is_flag=True, help="Find the largest payload that passes whole instead.")(
        command
    )


@click.command("ping", epilog=EPILOG)
@click.argument("address", metavar="HOST[:PORT]", type=parsed_address)
@_schedule_options
@family_options
@dtls_options
@_limit_options
@_output_options
@_sweep_options
def ping(address: Address, ipv4: bool, ipv6: bool, certificates: Certificates | None, **typed: Any) -> None:
    """Probe an echo server or an rpc server: loss, round trips, jitter.

    Any UDP server that sends back what it gets will do (RFC 862); one of ours that serves rpc tells more. TIME is
    written 50ms, 0.2 or 1s. Ctrl-C ends the run and prints its summary.
    """
    outputs = Outputs(
        plain=typed["plain"],
        quiet=typed["quiet"],
        json=typed["as_json"],
        json_lines=typed["json_lines"],
        csv=typed["csv"],
        plot=typed["plot"],
    )
    one_output(outputs)
    family = family_of_flags(address[0], ipv4=ipv4, ipv6=ipv6)
    if typed["sweep_size"] or typed["sweep_rate"]:
        click.get_current_context().exit(_sweep(address, family, outputs, typed))
    if certificates is not None:
        check_secure_size(typed["size"])
    plan = PingPlan(
        host=address[0],
        port=address[1],
        interval=interval_of(typed["interval"], typed["flood"]),
        count=typed["count"],
        duration=typed["duration"],
        timeout=typed["timeout"],
        size=typed["size"],
        limits=Limits(loss=typed["max_loss"], p50=typed["max_p50"], p99=typed["max_p99"], jitter=typed["max_jitter"]),
        outputs=outputs,
        certificates=certificates,
    )
    from ._ping_run import run_ping  # noqa: PLC0415  # Twisted: only where something is asked

    click.get_current_context().exit(run_ping(plan, family))


def _sweep(address: Address, family: AddressFamily | None, outputs: Outputs, typed: Mapping[str, Any]) -> int:
    """Run a sweep, and return the exit status.

    Raises:
        Misuse: Options that do not go together.
    """
    from ._ask import Server  # noqa: PLC0415  # Twisted: only where something is asked
    from ._sweep import sweep_rate_command, sweep_size_command  # noqa: PLC0415  # likewise

    context = click.get_current_context()
    unset = (click.core.ParameterSource.DEFAULT, None)
    check_sweep({name: context.get_parameter_source(name) not in unset for name in context.params})
    if typed["sweep_rate"] and typed["max_loss"] == 1:
        raise Misuse("--max-loss 100%: with --sweep-rate it must be below 100%")
    server = Server(*address, typed["timeout"], family)
    if typed["sweep_size"]:
        return sweep_size_command(server, as_json=outputs.json, plain=outputs.plain)
    return sweep_rate_command(
        server,
        size=typed["size"],
        most_rate=typed["flood"],
        max_loss=typed["max_loss"] or 0.0,
        seconds_per_step=typed["duration"],
        as_json=outputs.json,
        plain=outputs.plain,
    )
