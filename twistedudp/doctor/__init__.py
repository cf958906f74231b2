"""Finding out why UDP does not get through, or how far it does.

Theory of operation: :func:`examine` asks a server from here, as any client would, and looks at all that comes back:
answers, ICMP errors, the own kernel's refusals, and silence. ``examine_local`` looks at a server's port on its own
machine. Both return findings (:mod:`._findings`); docs/doctor.md explains each.
"""

from __future__ import annotations

from ._examine import Thoroughness, examine
from ._findings import CODES, FINDINGS_FORMAT, Finding, findings_as_json
from ._local import examine_local

__all__ = ["CODES", "FINDINGS_FORMAT", "Finding", "Thoroughness", "examine", "examine_local", "findings_as_json"]
