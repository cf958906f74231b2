"""A program that calls as honest users do, and tells how that went.

    python honest.py '{"host": "198.18.0.1", "port": 10000, "kind": "rpc", "rate": 50, "seconds": 10, "timeout": 2}'

The kinds are ``rpc`` (a method that must run once), ``idempotent`` (one that may run again), ``large`` (a response of
many bytes) and ``echo`` (bytes that an echo server sends back). With ``dtls``, which names the files ``ca``,
``certificate`` and ``key``, all go through DTLS; with ``anew`` each call has a client, and so a handshake, of its own.
Calls begin at even intervals, whatever became of those before. It prints "begun" and the clients' ports when the first
call of each has ended, and at the end one line of JSON: calls, answered, wrong (another result than the right one: a
forged reply that was taken), failed by the error's name, the times of those answered in milliseconds, what the clients
sent, and how many of the ports are still theirs: over DTLS each session has a port of its own.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
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
        self.sums: Counter[str] = Counter()
        self.ports: list[int] = []
        self.kept = 0
        self.options: dict[str, Any] = {"timeout": wanted["timeout"]}
        if wanted.get("dtls"):
            from twistedudp.dtls import DTLSContext  # noqa: PLC0415  # it may not be installed

            files: dict[str, Any] = {name: Path(path) for name, path in wanted["dtls"].items()}
            self.options["dtls"] = DTLSContext.client(**files)
        self.clients = [] if wanted.get("anew") else [self.client() for _ in range(wanted.get("clients", 1))]

    def client(self) -> UDPClientService:
        """Return a new client."""
        client = UDPClientService(reactor, self.wanted["host"], self.wanted["port"], **self.options)
        client.startService()
        return client

    async def end(self, client: UDPClientService) -> None:
        """End a client, and note what it has sent."""
        stats = client.stats
        self.sums["transmitted"] += stats.transmitted
        self.sums["retransmitted"] += stats.retransmitted
        self.sums["rejected"] += sum(stats.rejected.values())
        await client.stopService()

    async def run(self) -> None:
        """Call for as long as is wanted, and wait for the last."""
        for _ in range(max(1, len(self.clients))):
            await self.call()
        self.calls = self.answered = 0
        self.failed.clear()
        self.times.clear()
        self.ports = udp_ports()
        sys.stdout.write(f"begun {' '.join(map(str, self.ports))}\n")
        sys.stdout.flush()
        began, waiting = reactor.seconds(), []
        for number in range(int(self.wanted["rate"] * self.wanted["seconds"])):
            due = began + number / self.wanted["rate"] - reactor.seconds()
            if due > 0:
                await task.deferLater(reactor, due)
            waiting.append(defer.ensureDeferred(self.call()))
        await defer.gatherResults(waiting)
        self.kept = len(set(self.ports).intersection(udp_ports()))
        for client in self.clients:
            await self.end(client)

    async def call(self) -> None:
        """Make one call and note what became of it."""
        client = self.clients[self.calls % len(self.clients)] if self.clients else self.client()
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
        finally:
            if not self.clients:
                await self.end(client)
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
            **{name: self.sums[name] for name in ("transmitted", "retransmitted", "rejected")},
            "ports": len(self.ports),
            "kept": self.kept,
        }


def udp_ports() -> list[int]:
    """Return the ports of this process's own UDP sockets over IPv4."""
    own = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    rows = [line.split() for line in Path("/proc/self/net/udp").read_text(encoding="ascii").splitlines()[1:]]
    return sorted(int(row[1].partition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in own)


async def main(_: object) -> None:
    """Call, and print the figures."""
    caller = Caller(json.loads(sys.argv[1]))
    await caller.run()
    sys.stdout.write(json.dumps(caller.figures()) + "\n")


if __name__ == "__main__":
    task.react(lambda running: defer.ensureDeferred(main(running)))
