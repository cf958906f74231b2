"""Fuzz targets: what must hold for every input, searched for counterexamples by atheris, Google's fuzzer for Python.

Theory of operation: a target is a module with one invariant, which its docstring states. It has a function ``play``
that takes the bytes of one input and raises if the invariant does not hold; its seeds are inputs to begin with, made of
real messages. The fuzzer changes inputs and keeps those that reach code or states not reached before; ``corpus/`` holds
the fewest that reach all the code that was reached so far. An input is read byte by byte by :class:`Source` and not by
atheris' own FuzzedDataProvider, so that it means the same without atheris: the unit tests replay the whole corpus on
every Python. What a bug was found by goes to ``regressions/`` and stays there.

Only ``__main__`` imports atheris. Run it by ``scripts/fuzz``.
"""

from __future__ import annotations
