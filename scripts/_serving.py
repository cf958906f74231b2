"""Say which backend serves UDP ports here; exit status 1 if it is to be the compiled one and is not.

scripts/test runs it first, so that nobody takes a run of the other backend for one of both.
"""

from __future__ import annotations

import os
import sys

from twistedudp.transport._backend import choose_backend

choice = choose_backend()
print(f"UDP ports are served by the backend {choice.name}: {choice.reason}")
if choice.name != "mmsg" and os.environ.get("TWISTEDUDP_REQUIRE_COMPILED", "") not in ("", "0"):
    sys.exit("TWISTEDUDP_REQUIRE_COMPILED is set, so it should be the compiled one")
