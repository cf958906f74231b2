"""Handshakes over links that lose datagrams. OpenSSL's timers go by the real clock (G12), so these tests wait."""

from __future__ import annotations

import pytest

from tests.dtls.world import Lose, World, notes
from twistedudp.impairment import Loss


class LossTests(World):
    """Many clients at once; each has a port of its own."""

    def shake_hands(self, clients: int, loss: float, seconds: float) -> int:
        """Have clients shake hands, check that nothing but loss hindered them, and return how many have a session."""
        endpoint = self.serve(half_open=clients, half_open_per_host=clients)
        self.network.impair(self.here, self.there, lambda: [Loss(loss)])
        opening = [self.client() for _ in range(clients)]
        for client in opening:
            client.open(seconds).addErrback(lambda _: None)
        self.real_time(seconds - 0.5, lambda: all(client.state == "open" for client in opening))
        opened = [client for client in opening if client.state == "open"]
        for client in opening:
            self.assertEqual(client.stats.failed.keys() - {"deadline"}, set())
        self.assertEqual(endpoint.stats.failed.keys() - {"restarted", "deadline"}, set())
        self.assertEqual(sum(client.stats.callback_errors for client in opening), 0)
        self.network.link(self.here, self.there).clear()
        self.network.link(self.there, self.here).clear()
        for client in opened:
            client.write(b"through")
        self.settle()
        self.assertEqual([notes(client).payloads for client in opened], [[b"through"]] * len(opened))
        for client in opening:
            client.stopListening()
        self.settle()
        return len(opened)

    def test_a_fifth_each_way(self) -> None:
        """With 20 % lost each way many of 24 clients have a session within 6 s, and none breaks."""
        self.assertGreaterEqual(self.shake_hands(24, 0.2, 6.5), 8)

    @pytest.mark.slow
    def test_a_third_each_way(self) -> None:
        """With 30 % lost each way all of 200 clients have one in the end."""
        self.assertEqual(self.shake_hands(200, 0.3, 90.0), 200)


class RetransmissionTests(World):
    """One flight lost on purpose."""

    def test_g13_last_flight_with_real_connections(self) -> None:
        """The client's timer goes off after a second; the server, whose session is open, repeats its last flight."""
        endpoint = self.serve()
        final = Lose(lambda datagram: datagram[0] == 20 and not final.lost)
        self.network.link(self.there, self.here).add(final)
        client = self.client()
        waiting = client.open(5.0)
        self.real_time(0.8, lambda: waiting.called)
        self.assertEqual((waiting.called, len(final.lost), endpoint.sessions), (False, 1, 1))
        self.real_time(1.0, lambda: waiting.called)
        self.successResultOf(waiting)
        self.assertEqual((client.stats.retransmissions, endpoint.stats.opened), (1, 1))
