"""What a simulated port does not take: the real one's admission on virtual time, and its limit of size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._trace import Fate

if TYPE_CHECKING:
    from ..admission import AdmissionStats
    from ..impairment._link import Datagram
    from ..transport._admitting import PortAdmission
    from ..transport._stats import DatagramStats

__all__ = ["SimulatedAdmission"]


class SimulatedAdmission:
    """The part of a simulated port that decides what is let in.

    Attributes:
        admission: Who is let in, None for everybody; ``listen(admission=...)`` sets it.
    """

    admission: PortAdmission | None = None
    stats: DatagramStats
    max_datagram_size: int

    @property
    def admission_stats(self) -> AdmissionStats | None:
        """What admission has refused; None where everybody is let in."""
        return None if self.admission is None else self.admission.stats

    def refusal(self, datagram: Datagram) -> Fate | None:
        """Count a datagram that the port does not take, and return what becomes of it; None for one that it takes."""
        size = len(datagram.payload)
        if self.admission is not None and not self.admission.admits(datagram.source[0], size):
            return Fate.NOT_ADMITTED
        if size <= self.max_datagram_size:
            return None
        self.stats.truncated += 1
        return Fate.TOO_LARGE

    def end_admission(self) -> None:
        """Log how many refusals were not logged."""
        if self.admission is not None:
            self.admission.close()
