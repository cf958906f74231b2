"""``udpecho discover``: a table of the servers that answer, while they do.

Theory of operation: on a terminal the table grows with each answer, and stays when the time is over; anywhere else, and
with ``--plain``, each answer is a line as it comes. With ``--json`` there is one line at the end, for scripts. Ctrl-C
ends the asking, and what came until then is shown. Names and results come from the network, and are printed as escapes
where they could steer a terminal.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from ..address import format_address
from ..discovery import DISCOVERY_PORT, MAX_ROUNDS, MAX_WAIT
from ._arguments import Misuse, parameter
from ._failures import NO_ANSWER
from ._options import duration, family_options, shown_seconds
from ._output import is_terminal, json_text, one_line, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console
    from rich.table import Table
    from twisted.internet.base import ReactorBase
    from twisted.internet.defer import Deferred

    from ..discovery import DiscoveryAnswer

__all__ = ["discover"]

_REFRESH: Final = 0.25  # seconds, of the table on a terminal


class _Display(NamedTuple):
    """What shows the answers so far; both are given all of them."""

    answered: Callable[[Sequence[DiscoveryAnswer]], None]
    """There is a new one, the last."""
    time_passed: Callable[[Sequence[DiscoveryAnswer]], None] | None = None
    """Some time has passed; None where nothing is to be done then."""


@click.command(
    epilog=(
        "Exit status: 0 somebody answered; 1 nobody did; 2 wrong usage, nothing was sent. Servers answer only if they "
        "were started with --discoverable NAME."
    )
)
@click.argument("args", nargs=-1, metavar="[ARG]...")
@click.option(
    "--wait",
    metavar="TIME",
    type=lambda text: duration("--wait", text, most=MAX_WAIT),
    default="3s",
    show_default=True,
    help="How long it takes in all.",
)
@click.option(
    "--rounds", type=click.IntRange(1, MAX_ROUNDS), default=3, show_default=True, help="How often to ask in that time."
)
@click.option("--interface", "interfaces", metavar="NAME|ADDRESS", multiple=True, help="Ask only on this one.")
@click.option("--method", metavar="METHOD", help="Ask all of them to run this method, with the ARGs as parameters.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=DISCOVERY_PORT, show_default=True, help="The discovery port."
)
@click.option("--json", "as_json", is_flag=True, help="Print the answers as one line of JSON, for scripts.")
@click.option("--plain", is_flag=True, help="Print a line for each answer as it comes, also on a terminal.")
@family_options
@click.pass_context
def discover(ctx: click.Context, /, args: tuple[str, ...], as_json: bool, plain: bool, **options: Any) -> None:
    """Ask who is there, by broadcast and multicast on each network interface, never past a router.

    With --method, each ARG is a JSON value or a word, as with "udpecho call"; a negative number stands behind "--".
    """
    if args and options["method"] is None:
        raise Misuse("an ARG is a parameter of a method; name one with --method")
    params = [parameter(arg) for arg in args]
    with_result = options["method"] is not None
    with _shown(options["wait"], as_json=as_json, plain=plain, with_result=with_result) as display:
        answers = _ask(options, params, display)
    if as_json:
        print_json([_as_json(answer, with_result=with_result) for answer in answers], compact=True)
    if not answers:
        click.echo(f"udpecho: {one_line(_nobody(options))}", err=True)
        ctx.exit(NO_ANSWER)


def _ask(options: dict[str, Any], params: list[object], display: _Display) -> list[DiscoveryAnswer]:
    """Run the discovery, and show all answers so far with each new one."""
    if options["ipv4"] and options["ipv6"]:
        raise Misuse("-4 and -6 exclude each other; leave both out to ask over both")
    from twisted.internet.defer import CancelledError  # noqa: PLC0415  # Twisted: only where something is asked
    from twisted.internet.task import LoopingCall  # noqa: PLC0415  # likewise

    from ._ask import run_until_done  # noqa: PLC0415  # likewise

    came: list[DiscoveryAnswer] = []
    asking: list[Deferred[list[DiscoveryAnswer]]] = []

    def answered(answer: DiscoveryAnswer) -> None:
        came.append(answer)
        display.answered(came)

    async def ask(reactor: ReactorBase) -> list[DiscoveryAnswer]:
        asking.append(_asked(reactor, options, params, answered))
        clock = LoopingCall(display.time_passed, came) if display.time_passed else None
        if clock is not None:
            clock.clock = reactor
            clock.start(_REFRESH)
        try:
            return await asking[0]
        except CancelledError:  # Ctrl-C
            return came
        finally:
            if clock is not None:
                clock.stop()

    def interrupted() -> None:
        options["wait"] = None
        asking[0].cancel()

    return run_until_done(ask, on_interrupt=interrupted)


def _asked(
    reactor: ReactorBase,
    options: dict[str, Any],
    params: list[object],
    on_answer: Callable[[DiscoveryAnswer], object],
) -> Deferred[list[DiscoveryAnswer]]:
    from ..discovery import discover  # noqa: PLC0415  # Twisted: only where something is asked

    return discover(
        reactor,
        wait=options["wait"],
        rounds=options["rounds"],
        method=options["method"],
        params=params,
        port=options["port"],
        interfaces=options["interfaces"] or None,
        ipv4=not options["ipv6"],
        ipv6=not options["ipv4"],
        on_answer=on_answer,
    )


@contextlib.contextmanager
def _shown(wait: float, *, as_json: bool, plain: bool, with_result: bool) -> Iterator[_Display]:
    """Give what shows the answers so far."""
    if as_json:
        yield _Display(lambda _: None)
    elif plain or not is_terminal():
        yield _Display(lambda came: click.echo(_line(came[-1], with_result=with_result)))
    else:
        from rich.console import Console  # noqa: PLC0415  # slow to import: only for people

        with _table_shown(Console(highlight=False), wait, with_result=with_result) as display:
            yield display


@contextlib.contextmanager
def _table_shown(console: Console, wait: float, *, with_result: bool) -> Iterator[_Display]:
    from rich.console import Group  # noqa: PLC0415  # slow to import: only for people
    from rich.live import Live  # noqa: PLC0415  # likewise
    from rich.text import Text  # noqa: PLC0415  # likewise

    ends = time.monotonic() + wait
    answers: list[DiscoveryAnswer] = []

    def show(came: Sequence[DiscoveryAnswer]) -> None:
        answers[:] = sorted(came, key=lambda answer: answer.peer.name)
        left = max(0.0, ends - time.monotonic())
        table = _table(answers, with_result=with_result)
        live.update(
            Group(*([table] if answers else []), Text(f"{len(answers)} found, {left:.1f} s left", "dim")), refresh=True
        )

    # Without a thread of its own: the reactor's one does.
    with Live(console=console, auto_refresh=False, transient=True) as live:
        console.show_cursor(True)  # a program that is killed could not show it again
        show(())  # what is slow at its first time is so before anybody is asked
        yield _Display(show, show)
    if answers:
        console.print(_table(answers, with_result=with_result))


def _table(answers: Sequence[DiscoveryAnswer], *, with_result: bool) -> Table:
    from rich.table import Table  # noqa: PLC0415  # slow to import: only for people
    from rich.text import Text  # noqa: PLC0415  # likewise

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("NAME", style="bold", overflow="fold")
    table.add_column("ADDRESS", overflow="fold")
    table.add_column("RTT", justify="right", no_wrap=True)
    table.add_column("PROTOCOL", overflow="fold")
    table.add_column("VERSION", overflow="fold")
    if with_result:
        table.add_column("RESULT", overflow="fold")
    for answer in answers:
        # As Text, for in a plain str Rich would see markup such as [bold].
        table.add_row(*map(Text, _cells(answer, with_result=with_result)))
    return table


def _line(answer: DiscoveryAnswer, *, with_result: bool) -> str:
    return "  ".join(_cells(answer, with_result=with_result))


def _cells(answer: DiscoveryAnswer, *, with_result: bool) -> list[str]:
    peer = answer.peer
    cells = [
        one_line(peer.name),
        format_address((peer.host, peer.port)),
        "-" if peer.rtt is None else f"{peer.rtt * 1000:.2f} ms",
        one_line(peer.protocol),
        one_line(peer.version),
    ]
    return [*cells, json_text(answer.result, compact=True)] if with_result else cells


def _as_json(answer: DiscoveryAnswer, *, with_result: bool) -> dict[str, object]:
    told = answer.peer._asdict()
    return {**told, "result": answer.result} if with_result else told


def _nobody(options: dict[str, Any]) -> str:
    where = f" on {', '.join(options['interfaces'])}" if options["interfaces"] else ""
    has = " and have this method" if options["method"] is not None else ""
    within = "until it was interrupted" if options["wait"] is None else f"within {shown_seconds(options['wait'])}"
    return (
        f"nobody answered {within}{where}; servers answer if they were started with "
        f"--discoverable NAME{has}, no router is between, and no firewall drops UDP port {options['port']} there or "
        "the answers here"
    )
