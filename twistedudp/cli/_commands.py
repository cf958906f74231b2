"""The commands of ``udpecho`` as Click sees them; those that measure and search have modules of their own.

Theory of operation: each command turns its arguments into one question, a coroutine over a client, has
:func:`._ask.ask` run it, and prints the answer. Errors leave as exceptions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import click

from ._arguments import Misuse, datagram, parameter
from ._compare import compare
from ._discover import discover
from ._doctor import doctor
from ._options import server_options
from ._ping import ping

if TYPE_CHECKING:
    from ..client import UDPClientService
    from ._ask import Server

__all__ = ["udpecho"]

EPILOG = (
    "Exit status: 0 answered; 1 no answer (timeout, refused, unknown host); 2 wrong usage, nothing was sent; "
    "3 the server answered with an error."
)


_VALUED: Final = frozenset({"--timeout", "--ca", "--cert", "--key"})
"""Options of ``call`` whose value is the next argument."""


class _CallCommand(click.Command):
    """``call``, which takes negative numbers as arguments of the method, where Click would see options."""

    _NUMBER = re.compile(r"-\.?\d[\d.eE+-]*")
    _MARK = "\0"
    """Stands before a protected argument; no real argument can hold it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._protected(args))

    def _protected(self, args: list[str]) -> list[str]:
        """Mark the negative numbers behind METHOD, so that -4 before it is the option and behind it a number."""
        protected: list[str] = []
        names = 0
        is_value = False
        for place, arg in enumerate(args):
            if arg == "--":
                return protected + args[place:]
            if names >= 2 and self._NUMBER.fullmatch(arg):
                protected.append(self._MARK + arg)
                continue
            names += not is_value and not arg.startswith("-")
            is_value = arg in _VALUED
            protected.append(arg)
        return protected

    @classmethod
    def unmarked(cls, args: tuple[str, ...]) -> list[str]:
        """Return the arguments as they were typed."""
        return [arg.removeprefix(cls._MARK) for arg in args]


@click.group(
    name="udpecho",
    epilog=EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="twistedudp", message="udpecho %(version)s")
@click.pass_context
def udpecho(ctx: click.Context) -> None:
    """Ask, measure and find UDP servers: echo servers (RFC 862) and MessagePack-RPC servers.

    PORT is 10000 if left out. An IPv6 address with a port is written [::1]:10000.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


@udpecho.command(epilog=EPILOG)
@server_options
@click.argument("text", required=False)
@click.option("--hex", "hexadecimal", is_flag=True, help="TEXT is bytes in hexadecimal, and so is the output.")
def send(server: Server, text: str | None, hexadecimal: bool) -> None:
    """Send TEXT to an echo server and print what comes back.

    "-" as TEXT sends the bytes of standard input, as one datagram. On a terminal, control characters in the answer are
    shown as escapes; anywhere else its bytes are written as they are.
    """
    from ._ask import ask  # noqa: PLC0415  # Twisted: only where something is asked
    from ._output import print_datagram  # noqa: PLC0415  # likewise

    if text is None:
        raise Misuse("TEXT is missing: write what to send behind the host, or - to send standard input")
    payload = datagram(text, hexadecimal=hexadecimal)

    async def question(client: UDPClientService) -> bytes:
        return await client.echo_bytes(payload)

    print_datagram(ask(server, question), hexadecimal=hexadecimal, newline=text != "-")


@udpecho.command(cls=_CallCommand, epilog=EPILOG)
@server_options
@click.argument("method")
@click.argument("args", nargs=-1, metavar="[ARG]...")
@click.option("--json", "compact", is_flag=True, help="Print the result as one line of JSON, for scripts.")
def call(server: Server, method: str, args: tuple[str, ...], compact: bool) -> None:
    """Call METHOD of an rpc server and print its result as JSON.

    Each ARG is a JSON value (2.5, true, null, '"2.5"', '[1, 2]', '{"name": "Ada"}'), and a word that is none is a text.
    -4 and -6 are options before METHOD and numbers behind it. A text that begins with "-" stands behind "--".

    \b
    What JSON has no form for is printed as:
      bytes                     {"base64": "aGVsbG8="}
      date and time             "2026-01-31T12:00:00Z"
      NaN and the infinities    "NaN", "Infinity", "-Infinity"
    """  # noqa: D301  # Click wants the control character: no wrapping below it
    from ._ask import ask  # noqa: PLC0415  # Twisted: only where something is asked
    from ._output import print_json  # noqa: PLC0415  # likewise

    parameters = [parameter(arg) for arg in _CallCommand.unmarked(args)]

    async def question(client: UDPClientService) -> object:
        return await client.call(method, *parameters)

    print_json(ask(server, question), compact=compact)


@udpecho.command(epilog=EPILOG)
@server_options
@click.option("--json", "compact", is_flag=True, help="Print the list as one line of JSON, for scripts.")
def methods(server: Server, compact: bool) -> None:
    """List the methods of an rpc server, with their parameters and what they do."""
    from ._ask import ask  # noqa: PLC0415  # Twisted: only where something is asked
    from ._output import print_json, print_methods  # noqa: PLC0415  # likewise

    async def question(client: UDPClientService) -> object:
        return await client.call("rpc.methods", idempotent=True)

    listed = ask(server, question)
    if compact:
        print_json(listed, compact=True)
    else:
        print_methods(listed)


# Their docstrings begin with sentences that are too long for the list of commands on 80 columns.
for _command, _in_short in (
    (ping, "Measure a path: loss, round trips, jitter, rates, sizes."),
    (doctor, "Say what stands between this machine and a server."),
    (discover, "Find the servers of the local networks."),
    (compare, "Tell whether two runs of ping differ."),
):
    _command.short_help = _in_short
    udpecho.add_command(_command)
