"""The ``udpecho`` command."""
