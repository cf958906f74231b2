"""The answers to probes, which an rpc server makes at the end of a batch.

Theory of operation: each answer tells when its probe arrived, by the kernel if the port knows, and when the answer was
made; so they are made just before they leave. A probe that came alone, as a notification does, is answered at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .probing._answer import ProbeAnswer, encode_answer
from .probing._sessions import ProbeSessions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .address import Address
    from .core import IncomingRequest, Responder
    from .probing._answer import Probe
    from .probing._sessions import ProbeCounts

__all__ = ["ProbeAnswers"]


class ProbeAnswers:
    """The probes of a batch, and what is remembered of their series.

    Args:
        responder: Who sends the answers.
        clock: Returns seconds and does not go back.
        wall_clock: Returns nanoseconds since the epoch.

    Attributes:
        sessions: The series of probes that are counted.
        waiting: The probes of this batch.
    """

    __slots__ = ("_clock", "_responder", "_wall_clock", "sessions", "waiting")

    def __init__(self, responder: Responder, clock: Callable[[], float], wall_clock: Callable[[], int]) -> None:
        self.sessions = ProbeSessions()
        self.waiting: list[tuple[IncomingRequest, bytes, Probe, ProbeCounts]] = []
        self._responder = responder
        self._clock = clock
        self._wall_clock = wall_clock

    def take(self, incoming: IncomingRequest, datagram: bytes, probe: Probe) -> None:
        """Count a probe, and leave its answer to the end of the batch, if it came in one."""
        counts = self.sessions.probe_received(incoming.peer, probe.session, probe.sequence, now=self._clock())
        if incoming.msgid is None:
            now_ns = self._wall_clock()
            answer = ProbeAnswer(probe.sequence, *counts, now_ns, now_ns)
            self._responder.respond(incoming, answer.result(probe.padding))
        else:
            self.waiting.append((incoming, datagram, probe, counts))

    def answer(self, datagrams: Sequence[tuple[bytes, Address]], arrival_times: Sequence[int], began: float) -> None:
        """Answer the probes of a batch.

        Args:
            datagrams: The batch.
            arrival_times: When each of it came, in nanoseconds since the epoch; empty where the port does not tell.
            began: When it was taken, which then stands for that, by the steady clock.
        """
        waiting, self.waiting = self.waiting, []
        departed_ns = self._wall_clock()
        began_ns = departed_ns - round((self._clock() - began) * 1e9)
        position = 0
        for incoming, datagram, probe, counts in waiting:
            while datagrams[position][0] is not datagram:
                position += 1
            arrived_ns = arrival_times[position] if arrival_times else began_ns
            position += 1
            assert incoming.msgid is not None  # noqa: S101  # see take()
            answer = ProbeAnswer(probe.sequence, *counts, arrived_ns, departed_ns)
            payload = encode_answer(incoming.msgid, answer, probe.padding, len(datagram))
            self._responder.respond_encoded(incoming, payload)
