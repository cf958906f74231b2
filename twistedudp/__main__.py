"""``python -m twistedudp`` is the ``udpecho`` command, for where the environment's ``bin`` is not on the path."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
