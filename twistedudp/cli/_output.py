r"""Answers as text that is safe on a terminal.

Theory of operation: what a server sends is not trusted. Control characters in it could move the cursor, colour the
screen, set the window's title or type for the user, and marks of writing direction could show a text as what it is
not; both are printed as the escapes that JSON has for them (``\u001b``), so that JSON stays the same JSON. What has a
form in JSON is printed in it; bytes, times and the numbers that JSON lacks get one (see ``udpecho call --help``).
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import re
import sys
import unicodedata
from typing import TYPE_CHECKING, TextIO, cast

import click

from ..errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["escaped", "json_text", "one_line", "print_datagram", "print_json", "print_methods"]

_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
"""Of category Cf, but harmless, and scripts and emoji need them."""


def escaped(text: str, *, keep: str = "") -> str:
    """Return a text whose characters that could steer a terminal are JSON escapes; those in ``keep`` stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escape(character)
        if unicodedata.category(character) in _UNSAFE_CATEGORIES and character not in _JOINERS + keep
        else character
        for character in text
    )


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"


def one_line(text: str) -> str:
    """Return a text as one line without anything that could steer a terminal."""
    return escaped(re.sub(r"\s*[\r\n]\s*", " ", text.strip()))


def is_open(stream: TextIO | None) -> bool:
    """Tell whether there is a stream: Python has none where the shell has closed it (``>&-``)."""
    return stream is not None and not stream.closed


def is_terminal() -> bool:
    """Tell whether standard output is a terminal."""
    return is_open(sys.stdout) and sys.stdout.isatty()


def print_datagram(payload: bytes, *, hexadecimal: bool, newline: bool) -> None:
    """Print a datagram: its bytes as they are, and on a terminal what can be shown of them.

    Args:
        payload: The datagram.
        hexadecimal: Print its bytes as hexadecimal digits.
        newline: End the output with a line feed also where it is no terminal.
    """
    if hexadecimal:
        click.echo(payload.hex())
    elif is_terminal():
        click.echo(escaped(payload.decode("utf-8", "backslashreplace"), keep="\n\t"))
    else:
        click.echo(payload, nl=newline)


def print_json(value: object, *, compact: bool) -> None:
    """Print a value as JSON: in one line, or indented and on a terminal in colours."""
    text = json_text(value, compact=compact)
    if compact or not is_terminal():
        click.echo(text)
        return
    from rich.console import Console  # noqa: PLC0415  # slow to import: only for people
    from rich.highlighter import JSONHighlighter  # noqa: PLC0415  # likewise

    # Not Console.print_json, which would read the text and write it again, without our escapes.
    Console().print(JSONHighlighter()(text), soft_wrap=True)


def json_text(value: object, *, compact: bool) -> str:
    """Return a value as JSON text, pure ASCII where standard output cannot show more."""
    encoding = sys.stdout.encoding if is_open(sys.stdout) else None
    ascii_only = not (encoding or "").lower().startswith("utf")
    text = json.dumps(
        _with_json_form(value),
        ensure_ascii=ascii_only,
        allow_nan=False,
        indent=None if compact else 2,
        separators=(",", ":") if compact else None,
    )
    # Line feeds outside of texts are json's own layout; inside of texts it has escaped them.
    return escaped(text, keep="\n")


def _with_json_form(value: object) -> object:
    if isinstance(value, dict):
        return {key: _with_json_form(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_json_form(item) for item in value]
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.timezone.utc).isoformat().replace("+00:00", "Z")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def print_methods(listed: object) -> None:
    """Print what ``rpc.methods`` returned as a table.

    Raises:
        DecodeError: A server of another make returned something else under that name.
    """
    rows = [_checked(entry) for entry in listed] if isinstance(listed, list) else [_checked(listed)]
    from rich.console import Console  # noqa: PLC0415  # slow to import: only for this table
    from rich.table import Table  # noqa: PLC0415  # likewise
    from rich.text import Text  # noqa: PLC0415  # likewise

    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column("METHOD", style="bold", overflow="fold")
    table.add_column("WHAT IT DOES", overflow="fold")
    for entry in rows:
        doc = escaped(str(entry.get("doc") or "").strip(), keep="\n")
        mark = " (idempotent)" if entry.get("idempotent") else ""
        # As Text, for in a plain str Rich would see markup such as [bold].
        table.add_row(Text(_signature(entry)), Text(doc + mark))
    # No wrapping where no person reads: a program wants a method on one line.
    console = Console() if is_terminal() else Console(width=1_000_000)
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _checked(entry: object) -> Mapping[str, object]:
    if isinstance(entry, dict) and isinstance(entry.get("name"), str):
        return cast("Mapping[str, object]", entry)
    raise DecodeError(
        "the server's rpc.methods returned no list of methods; 'udpecho methods --json' shows what it did"
    )


def _signature(entry: Mapping[str, object]) -> str:
    return one_line(f"{entry['name']}{entry.get('signature') or ''}")
