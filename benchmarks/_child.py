"""A process of ``benchmarks/rpc``: one side of one contestant.

    python _child.py serve NAME MODULE CORE
    python _child.py ask NAME MODULE CORE CALLS WARM_UP IN_FLIGHT PORT

CORE is the number of the core to run on, or ``-`` for any. What it is told and what it tells stands in _session.py.
"""

from __future__ import annotations

import sys
from importlib import import_module

from _session import Session, answer_marks, pin, tell


def main(side: str, name: str, module: str, core: str, *numbers: str) -> None:
    """Be the server until standard input ends, or the client until its session has ended."""
    # Before anything is imported, so that memory and caches are that core's.
    pin(None if core == "-" else int(core))
    contestant = import_module(module)
    if side == "serve":
        answer_marks()
        contestant.serve(name, lambda port: tell(port=port))
    else:
        calls, warm_up, in_flight, port = map(int, numbers)
        contestant.ask(name, Session(calls, warm_up, in_flight, port))


if __name__ == "__main__":
    main(*sys.argv[1:])
