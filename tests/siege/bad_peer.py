"""A program that begins handshakes of DTLS from addresses that it really has, and goes on with none of them.

    python bad_peer.py '{"host": "198.18.0.1", "port": 10000, "sources": "10.6.0.0/24", "rate": 50, "seconds": 10,
                         "hello": ["16fe...", "16fe..."], "random_at": 27}'

It returns the server's cookie, so that the server makes a session, and is silent from then on. Each handshake has a
socket of its own, which stays open for a while, so that what the server sends again is not refused by the kernel. It
prints one line of JSON: sent (datagrams), bytes, left (handshakes of which the server's flight has begun), seconds.
"""

from __future__ import annotations

import ipaddress
import json
import os
import selectors
import socket
import sys
import time
from collections import deque
from typing import Any

OPEN_SOCKETS = 512
RANDOM, COOKIE_AFTER = 32, 34
HELLO_VERIFY_REQUEST, COOKIE_AT = 3, 28


def main() -> None:
    """Do what the argument says."""
    wanted: dict[str, Any] = json.loads(sys.argv[1])
    server = wanted["host"], wanted["port"]
    first, second = (bytes.fromhex(hello) for hello in wanted["hello"])
    random_at, hosts = wanted["random_at"], list(ipaddress.ip_network(wanted["sources"]).hosts())
    figures = {"sent": 0, "bytes": 0, "left": 0}
    selector, sockets = selectors.DefaultSelector(), deque[socket.socket]()
    began = time.monotonic()

    def send(peer: socket.socket, hello: bytes) -> None:
        peer.sendto(hello, server)
        figures["sent"] += 1
        figures["bytes"] += len(hello)

    def begin(number: int) -> None:
        peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        peer.setblocking(False)
        peer.bind((str(hosts[number % len(hosts)]), 0))
        random = os.urandom(RANDOM)
        selector.register(peer, selectors.EVENT_READ, random)
        sockets.append(peer)
        send(peer, first[:random_at] + random + first[random_at + RANDOM :])
        if len(sockets) > OPEN_SOCKETS:
            oldest = sockets.popleft()
            selector.unregister(oldest)
            oldest.close()

    begun = 0
    while (now := time.monotonic()) < began + wanted["seconds"]:
        if now >= began + begun / wanted["rate"]:
            begin(begun)
            begun += 1
        for key, _ in selector.select(max(0.0, began + begun / wanted["rate"] - time.monotonic())):
            peer: Any = key.fileobj
            datagram = peer.recv(65535)
            if len(datagram) == COOKIE_AT + RANDOM and datagram[13] == HELLO_VERIFY_REQUEST:
                middle = random_at + COOKIE_AFTER
                hello = second[:random_at] + key.data + second[random_at + RANDOM : middle]
                send(peer, hello + datagram[COOKIE_AT:] + second[middle + RANDOM :])
            elif datagram[13] == 2:  # ServerHello, which begins its flight
                figures["left"] += 1
    sys.stdout.write(json.dumps({**figures, "seconds": time.monotonic() - began}) + "\n")


if __name__ == "__main__":
    main()
