"""The ``udpecho`` command in parts, without a network; the whole of it is in integration/test_cli.py."""
