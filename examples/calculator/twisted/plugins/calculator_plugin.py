"""Makes the calculator known to ``twistd udpecho``; lives in a directory twisted/plugins on the import path."""

from twistedudp import DatagramPlugin

calculator = DatagramPlugin("calculator", "calculator:Calculator", "Adds, subtracts, multiplies, divides, averages.")
