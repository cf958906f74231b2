"""What must hold of the programs' tables whenever no program is running: looked at between any two delayed calls.

Theory of operation: what is counted twice must be equal. The ledger knows how many calls of a client wait, and so does
its core; each server's window counts what is in flight, and so can anybody who goes through the waiting calls. As
nothing of this changes without one of a few counters, all of it is worked out only when one of them has moved.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from tests.simulated.ledger import Violation
from twistedudp.core import Kind
from twistedudp.core._deadlines import _MIN_REBUILD
from twistedudp.core._recent import MAX_RECENT

if TYPE_CHECKING:
    from tests.simulated.ledger import ClientLife, Ledger, ServerLife
    from tests.simulated.world import World
    from twistedudp.core import PendingRequest, Requester

__all__ = ["HAIR", "Tables"]

HAIR: Final = 1e-6
"""Seconds: what adding up times in floats may lose."""

_LARGEST_ENTRY: Final = 16_384
"""Bytes that an entry of a response cache has at most here: no datagram of the simulation is half as large."""


class Tables:
    """Looks at the tables of a world's programs.

    Args:
        world: The world.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._ledger: Ledger = world.ledger
        self._clients: list[ClientLife] = []
        self._seen: dict[object, tuple[int, ...]] = {}
        self._taken = 0

    def check(self) -> None:
        """Look at all that has changed.

        Raises:
            Violation: Something does not hold.
        """
        lives = self._ledger.client_lives
        if len(lives) > self._taken:
            self._clients += lives[self._taken :]
            self._taken = len(lives)
        for life in self._clients:
            requester = life.requester
            stats = requester.stats
            state = (len(requester), life.waiting, stats.transmitted, stats.requests, life.stopping, life.closed)
            if self._seen.get(life) != state:
                self._seen[life] = state
                self._check_client(life)
                if life.closed:
                    self._clients = [other for other in self._clients if other is not life]
        for host in self._world.servers:
            server = host.life
            if server is not None:
                responder = server.protocol._responder
                counts = (server.number, len(responder), len(responder._cache), responder._cache.size)
                if self._seen.get(host) != counts:
                    self._seen[host] = counts
                    self._check_server(server)

    def _check_client(self, life: ClientLife) -> None:
        requester = life.requester
        if len(requester) != life.waiting:
            raise Violation("all that waits is known", f"{life.waiting} Deferreds wait, and {len(requester)} requests")
        if life.stopping and life.waiting:
            raise Violation("a stop ends all", f"{life.waiting} calls of client {life.client} wait after its stop")
        waiting = list(requester._waiting.values())
        self._check_bounds(requester, waiting)
        client = self._world.plan.clients[life.client]
        self._check_windows(requester, waiting, alone=len(client.servers) == 1 and not client.by_name)
        self._check_round_trips(life)
        self._check_sockets(life, waiting)
        raw = [request for request in waiting if request.kind is Kind.RAW]
        if len(requester._echoes) != len(raw) or sum(requester._echoes._users.values()) != len(raw):
            raise Violation("echoes are exact", f"{len(requester._echoes)} entries for {len(raw)} raw echoes")

    def _check_bounds(self, requester: Requester, waiting: list[PendingRequest]) -> None:
        settings, dispatch = requester.settings, requester._dispatch
        used = sum(len(request.retry_sockets) for request in waiting)
        if used != dispatch._retry_sockets or used > settings.max_retry_ports:
            raise Violation("retry ports are counted", f"{used} in use, {dispatch._retry_sockets} counted")
        if len(waiting) > settings.max_outstanding:
            raise Violation("calls are bounded", f"{len(waiting)} wait")
        if len(requester._recent) > 2 * MAX_RECENT:
            raise Violation("what is remembered is bounded", f"{len(requester._recent)} ended calls")
        if len(requester._notifications) > settings.max_queued_notifications:
            raise Violation("notifications are bounded", f"{len(requester._notifications)} wait")
        for name, entries in (("deadlines", len(dispatch.deadlines)), ("queue", len(dispatch.queue))):
            if entries > max(_MIN_REBUILD, 5 * len(waiting)) + 1:
                raise Violation("stale entries are bounded", f"{entries} in the {name} for {len(waiting)} calls")

    def _check_windows(self, requester: Requester, waiting: list[PendingRequest], *, alone: bool) -> None:
        known = {id(server): server for server in requester._servers._servers}
        known |= {id(request.server): request.server for request in waiting if request.server is not None}
        in_flight = Counter(id(request.server) for request in waiting if not request.put_off)
        for key, server in known.items():
            if server.window.in_flight != in_flight[key]:
                text = f"{server.address}: {in_flight[key]} calls are in flight, {server.window.in_flight} are counted"
                raise Violation("windows are exact", text)
            # A call that moves needs no room, so the bound is exact only where there is nowhere to move.
            if alone and server.window.fixed and server.window.in_flight > server.window.size:
                raise Violation("windows are kept", f"{server.window.in_flight} in a window of {server.window.size}")
        line = [request for request in requester._dispatch.queue if not request.done]
        queued = sum(not request.put_off for request in line)
        if queued != in_flight[id(None)] or len(set(map(id, line))) != len(line):
            raise Violation("the queue is exact", f"{queued} queued, {in_flight[id(None)]} wait for their turn")
        if queued and len(requester._servers) and not any(server.window.is_full() for server in known.values()):
            raise Violation("the queue is drained", f"{queued} calls wait for a turn, and no window is full")

    def _check_round_trips(self, life: ClientLife) -> None:
        if self._world.plan.clients[life.client].echo:
            return  # raw echoes have no id: the answer to one that has been given up may be taken for the next one's
        for server in life.requester._servers._servers:
            trip, host = server.round_trip, self._world.server_of(server.address)
            assert host is not None
            shortest = self._world.shortest[life.client, host.number]
            if trip.smoothed is not None and trip.smoothed < shortest - HAIR:
                text = f"{server.address} is {trip.smoothed:.6f} s away for its client, and {shortest:.6f} s at least"
                raise Violation("round trips are possible", text)

    def _check_sockets(self, life: ClientLife, waiting: list[PendingRequest]) -> None:
        wanted = {0} | {request.socket for request in waiting}
        for request in waiting:
            wanted.update(request.retry_sockets)
        open_ = {socket for socket, _ in life.pump._ports}
        if not open_ <= wanted:
            raise Violation("ports are closed", f"client {life.client} holds {open_ - wanted} for no call")

    def _check_server(self, life: ServerLife) -> None:
        responder = life.protocol._responder
        settings, cache = responder.settings, responder._cache
        if len(responder) > settings.max_running + len(life.protocol._table):  # one that holds no slot is let in
            raise Violation("runs are bounded", f"{len(responder)} of {settings.max_running}")
        if (
            len(cache) > settings.cache_entries
            or cache.size > settings.cache_size + len(responder) * 70_000 + _LARGEST_ENTRY
        ):
            raise Violation("the cache is bounded", f"{len(cache)} entries, {cache.size} bytes of {settings}")
        size = sum(len(payload) + len(entry.response or b"") for (_, payload), entry in cache._entries.items())
        if size != cache.size:
            raise Violation("the cache's size is exact", f"{size} bytes are kept, {cache.size} are counted")
