"""Tests of twistedudp.impairment."""
