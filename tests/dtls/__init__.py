"""Tests of DTLS: its tables and states on fakes, and real Connections in memory."""

from __future__ import annotations

from unittest import SkipTest

from twistedudp.errors import DTLSUnavailable

try:
    import twistedudp.dtls  # noqa: F401  # whether it can be had
except DTLSUnavailable as error:
    raise SkipTest(str(error)) from error
