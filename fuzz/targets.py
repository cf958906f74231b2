"""The targets by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from twisted.logger import globalLogBeginner

from . import client_input, codec, dtls_input, probe_input, server_input, text_input
from ._seeds import client_seeds, server_seeds

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS", "Target", "stop_buffering_logs"]


class Target(NamedTuple):
    """One thing to be fuzzed."""

    invariant: str
    """The first line of its docstring."""
    play: Callable[..., None]
    """Takes one input, and perhaps a :class:`Tell`."""
    seeds: Callable[[], list[bytes]]
    """Returns inputs to begin with."""
    max_size: int
    """Bytes of the largest input that is tried."""
    short_executions: int = 10_500
    """Executions of the run that belongs to the tests; more where they cost less, so that each takes a few seconds."""
    words: tuple[str, ...] = ()
    """Bytes that inputs are made of, for libFuzzer's dictionary."""
    measures_memory: bool = False
    """Whether it looks at tracemalloc, where that runs."""


def _target(play: Callable[..., None], seeds: Callable[[], list[bytes]], max_size: int, doc: str | None) -> Target:
    return Target((doc or "").partition("\n")[0], play, seeds, max_size)


TARGETS: Final = {
    "server_input": _target(server_input.play, server_seeds, server_input.MAX_SIZE, server_input.__doc__),
    "client_input": _target(client_input.play, client_seeds, client_input.MAX_SIZE, client_input.__doc__),
    "codec": _target(codec.play, codec.seeds, codec.MAX_SIZE, codec.__doc__)._replace(
        short_executions=20_000, measures_memory=True
    ),
    "dtls_input": _target(dtls_input.play, dtls_input.seeds, dtls_input.MAX_SIZE, dtls_input.__doc__),
    "probe_input": _target(probe_input.play, probe_input.seeds, probe_input.MAX_SIZE, probe_input.__doc__)._replace(
        short_executions=20_000
    ),
    "text_input": _target(text_input.play, text_input.seeds, text_input.MAX_SIZE, text_input.__doc__)._replace(
        short_executions=100_000, words=text_input.WORDS
    ),
}


def stop_buffering_logs() -> None:
    """Let what is logged go nowhere: until logging begins, twisted keeps the last 65,536 events."""
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
