"""Measuring a path by probes."""
