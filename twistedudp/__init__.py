"""Run and call UDP services on Twisted."""
