"""Tests of the daemon that probes: pure parts by themselves, the watcher on a simulated network."""
