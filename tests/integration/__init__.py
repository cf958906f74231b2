"""Tests with real sockets and real processes, on the installed package."""
