"""The compiled backend: many datagrams with one system call (recvmmsg, sendmmsg), on Linux.

Importing it raises ImportError where it was not built.
"""

from __future__ import annotations

from ._backend import MmsgBackend
from ._incoming import obstacle

__all__ = ["MmsgBackend", "obstacle"]
