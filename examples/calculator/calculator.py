"""A calculator that is called over UDP: the smallest useful class of methods.

Serve it from the top of the checkout with the plugin file beside it, and call it::

    PYTHONPATH=examples/calculator twistd -n udpecho --protocol calculator
    udpecho call 127.0.0.1 divide 22 7

Parameters are checked against the annotations before a method runs, so none of them has to look whether it was given
numbers. A :class:`MethodError` becomes the caller's error, code and text; any other exception would tell the caller
nothing but ``method_failed`` and stand in the server's log.
"""

from __future__ import annotations

import math

from twistedudp import RPCMethods, method
from twistedudp.errors import MethodError


class Calculator(RPCMethods):
    """Arithmetic over UDP. Every method may be asked again without harm: all are idempotent."""

    @method(idempotent=True)
    def add(self, a: float, b: float) -> float:
        """Return a + b."""
        return a + b

    @method(idempotent=True)
    def subtract(self, a: float, b: float) -> float:
        """Return a - b."""
        return a - b

    @method(idempotent=True)
    def multiply(self, a: float, b: float) -> float:
        """Return a * b."""
        return a * b

    @method(idempotent=True)
    def divide(self, a: float, b: float) -> float:
        """Return a / b; the error ``division_by_zero`` where b is 0."""
        if b == 0:
            raise MethodError("division_by_zero", f"{a:g} cannot be divided by zero")
        return a / b

    @method(idempotent=True)
    def mean(self, numbers: list[float]) -> float:
        """Return the arithmetic mean; the error ``no_numbers`` for an empty list."""
        if not numbers:
            raise MethodError("no_numbers", "the mean of no numbers does not exist")
        return math.fsum(numbers) / len(numbers)
