"""Discovery: its parts without I/O, and all of it on the simulated network."""
