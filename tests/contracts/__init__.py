"""One contract for everything that calls itself a UDP port, and the ports that are held to it."""
