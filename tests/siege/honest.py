"""A program that calls as honest users do, and tells how that went.

    python honest.py '{"host": "198.18.0.1", "port": 10000, "kind": "rpc", "rate": 50, "seconds": 10, "timeout": 2}'

The kinds are ``rpc`` (a method that must run once), ``idempotent`` (one that may run again), ``large`` (a response of
many bytes) and ``echo`` (bytes that an echo server sends back). Calls begin at even intervals, whatever became of those
before. It prints "begun" when the first has ended, and at the end one line of JSON: calls, answered, wrong (another
result than the right one: a forged reply that was taken), failed by the error's name, the times of those answered in
milliseconds, and what the client sent.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from typing import Any

from twisted.internet import defer, task
from twisted.internet import reactor as installed

from twistedudp import UDPClientService

reactor: Any = installed


class Caller:
    """Makes the calls.

    Args:
        wanted: What the command line says.
    """

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        self.calls = self.answered = self.wrong = 0
        self.failed: Counter[str] = Counter()
        self.times: list[float] = []
        self.clients = [
            UDPClientService(reactor, wanted["host"], wanted["port"], timeout=wanted["timeout"])
            for _ in range(wanted.get("clients", 1))
        ]

    async def run(self) -> None:
        """Call for as long as is wanted, and wait for the last."""
        for client in self.clients:
            client.startService()
        await self.call()
        self.calls = self.answered = 0
        self.failed.clear()
        self.times.clear()
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        began, waiting = reactor.seconds(), []
        for number in range(int(self.wanted["rate"] * self.wanted["seconds"])):
            due = began + number / self.wanted["rate"] - reactor.seconds()
            if due > 0:
                await task.deferLater(reactor, due)
            waiting.append(defer.ensureDeferred(self.call()))
        await defer.gatherResults(waiting)
        for client in self.clients:
            await client.stopService()

    async def call(self) -> None:
        """Make one call and note what became of it."""
        client = self.clients[self.calls % len(self.clients)]
        number = self.calls
        self.calls += 1
        began = reactor.seconds()
        try:
            if self.wanted["kind"] == "echo":
                payload = number.to_bytes(8, "big") + os.urandom(24)
                right = await client.echo_bytes(payload) == payload
            elif self.wanted["kind"] == "large":
                right = await client.call("large", 4000) == "x" * 4000
            else:
                method = "add" if self.wanted["kind"] == "idempotent" else "count"
                right = await client.call(method, number, 1) == number + 1
        except Exception as error:  # noqa: BLE001  # whatever it is, it is counted by its name
            self.failed[type(error).__name__] += 1
            return
        self.answered += right
        self.wrong += not right
        self.times.append(1000 * (reactor.seconds() - began))

    def figures(self) -> dict[str, Any]:
        """Return what is to be told."""
        times = sorted(self.times) or [0.0]
        return {
            "calls": self.calls,
            "answered": self.answered,
            "wrong": self.wrong,
            "failed": dict(self.failed),
            "p50": times[len(times) // 2],
            "p99": times[len(times) * 99 // 100],
            "most": times[-1],
            "transmitted": sum(client.stats.transmitted for client in self.clients),
            "retransmitted": sum(client.stats.retransmitted for client in self.clients),
            "rejected": sum(sum(client.stats.rejected.values()) for client in self.clients),
        }


async def main(_: object) -> None:
    """Call, and print the figures."""
    caller = Caller(json.loads(sys.argv[1]))
    await caller.run()
    sys.stdout.write(json.dumps(caller.figures()) + "\n")


if __name__ == "__main__":
    task.react(lambda running: defer.ensureDeferred(main(running)))
