"""Tests of the core: no I/O, no clock, no randomness but what the tests hand in."""
