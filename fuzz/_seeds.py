"""Conversations to begin with: what clients and servers say to each other, and what networks do to it."""

from __future__ import annotations

import datetime as dt

from twistedudp import _msgpack

from . import client_input, server_input
from ._methods import NAMES
from ._source import chunk

__all__ = ["client_seeds", "server_seeds"]


def client_seeds() -> list[bytes]:
    """Return conversations of a client."""
    step = client_input.Step
    usual, closes, unresolved = bytes([0, 1, 0, 0, 0]), bytes([8, 2, 0, 0, 0]), bytes([4, 3, 0, 0, 0])
    repeating, narrow = bytes([32, 4, 0, 0, 0]), bytes([0, 5, 1, 2, 1])
    few, stubborn, lan = bytes([1, 1, 0, 0, 0]), bytes([2, 1, 0, 0, 0]), bytes([16, 6, 2, 2, 0])
    call, echo = bytes([step.CALL, 0, 0, 7]), bytes([step.ECHO, 2, 0])
    empty, short = bytes([step.ECHO, 0, 1]), bytes([step.ECHO, 1, 1])
    idempotent, by_method = bytes([step.CALL, 2, 3, 7]), bytes([step.CALL, 1, 0, 7])
    too_large, no_value = bytes([step.CALL, 0xF0, 0, 0]), bytes([step.CALL, 0xE0, 0, 0])
    timer, late, never = bytes([step.TIME, 0]), bytes([step.TIME, 5]), bytes([step.TIME, 6])
    resolved, elsewhere = bytes([step.RESOLVED, 1]), bytes([step.RESOLVED, 3])
    notify, cancel, unsendable = bytes([step.NOTIFICATION, 1]), bytes([step.CANCEL, 0]), bytes([step.SEND_FAILED, 0])

    def response(request: int = 0, peer: int = 0, error: int = 0, off: int = 0, damage: int = 0) -> bytes:
        return bytes([step.RESPONSE, request, peer, 0, error, 42, off, damage])

    def reflection(request: int = 0, peer: int = 0, socket: int = 0, damage: int = 0) -> bytes:
        return bytes([step.REFLECTION, request, peer, socket, damage])

    def icmp(request: int = 0, peer: int = 0, quoted: int = 11, then: int = 0) -> bytes:
        return bytes([step.ICMP, request, peer, 0, then, quoted])

    def datagram(payload: bytes) -> bytes:
        return bytes([step.DATAGRAM, 0, 0]) + chunk(payload)

    wrong = response(peer=3) + response(peer=4) + response(off=1) + response(damage=0x83) + response(damage=5)
    request, notification = _msgpack.encode_request(1, "m", []), _msgpack.encode_notification("m", [])
    return [
        usual + call + response() + response(),
        narrow + call + call + cancel + response(1),
        usual + call + response(error=2) + response(error=1),
        *(usual + call + response(error=error) for error in range(3, len(client_input.ERRORS))),
        usual + call + wrong + response(),
        usual + call + timer * 3 + response() + call + timer + response(1),
        usual + call + call + timer * 9,
        closes + call + echo + by_method + idempotent + notify,
        usual + by_method + reflection(damage=10) + reflection() + call + reflection(1, damage=0x83) + reflection(1),
        usual + echo + echo + reflection(1) + reflection(socket=1) + reflection(),
        usual + empty + datagram(b"") + short + reflection(1, peer=3),
        repeating + call + response() + response(1) + icmp(2) + icmp(2, peer=1),
        repeating + echo + echo + reflection(1, socket=1) + reflection() + timer * 4,
        narrow + call * 3 + response() + timer * 5 + response(1) + call + late + call + response(4),
        narrow + idempotent * 2 + timer * 7 + cancel + response(1, peer=1) + call + idempotent + timer * 3,
        lan + call * 4 + timer * 8 + never + call + late + call + response(4),
        usual + idempotent + timer * 4 + response(peer=1) + idempotent + response(1, peer=1),
        usual + call + icmp(quoted=0x8B) + icmp() + icmp(peer=1, quoted=8) + response(),
        usual + echo + icmp(quoted=8) + icmp(peer=1, quoted=7) + icmp(peer=1, quoted=13),
        stubborn + call + icmp() * 3 + timer * 9,
        usual
        + call
        + call
        + echo
        + icmp(0, then=1, quoted=20)
        + icmp(1, peer=1, then=0, quoted=22)
        + response(0, peer=1),
        usual + call + bytes([step.ICMP_OF_ANY, 0, 0]) + chunk(b"\x94\x00\xce") + icmp(peer=3) + cancel + cancel,
        unresolved + call + echo + notify * 3 + resolved + response(),
        unresolved + call + notify + bytes([step.NOT_RESOLVED]) + call + late,
        usual + call + elsewhere + timer + response() + call + unsendable,
        few + call * 5 + too_large + no_value + never,
        usual + call + datagram(request) + datagram(notification),
    ]


def server_seeds() -> list[bytes]:
    """Return conversations with a server."""
    step, names = server_input.Step, NAMES

    def request(name: str, *params: object, peer: int = 0, msgid: int = 1) -> bytes:
        packed = _msgpack.encode_notification("m", params)[5:]  # behind the head of the list of parameters
        return bytes([step.REQUEST, peer, msgid, names.index(name), len(params)]) + chunk(packed)

    def datagram(payload: bytes, peer: int = 0) -> bytes:
        return bytes([step.DATAGRAM, peer]) + chunk(payload)

    def finish(which: int, how: int) -> bytes:
        return bytes([step.FINISH, which, how])

    def wait(how_long: int) -> bytes:
        return bytes([step.WAIT, how_long])

    usual, narrow = bytes(3), bytes([0, 1, 0])
    again, by_another = bytes([step.AGAIN, 0, 0]), bytes([step.AGAIN, 1, 0])
    restart, lost, too_long = bytes([step.RESTART]), bytes([step.UNWRITABLE, 0]), bytes([step.UNWRITABLE, 1])
    notification = bytes([step.NOTIFICATION, 0, names.index("end"), 1]) + chunk(b"\x0b")
    place = {"x": 1.5, "name": "here", "tags": ["a"], "when": dt.datetime(2026, 11, 22, tzinfo=dt.timezone.utc)}
    waiting = b"".join(request("wait", msgid=msgid) for msgid in range(6))
    encoded = datagram(_msgpack.encode_request(2**31, "add", [1, 2])) + datagram(
        _msgpack.encode_notification("add", [1])
    )
    return [
        usual + request("add", 2, 3) + again + wait(3) + again + wait(5) + again,
        usual + request("add", 2**63, 2**63) + request("add", "two") + request("add") + request("place", place, "far"),
        usual + request("place", {**place, "x": "no"}) + request("nothing") + request("_run") + request("rpc.methods"),
        *(usual + request("end", how, ["value"], msgid=how) for how in range(13)),
        usual + request("wait") + again + by_another + finish(0, 0) + again,
        usual + request("pause") + request("wait", msgid=2) + finish(1, 11) + finish(0, 8) + again,
        usual + request("share") + request("share", peer=1) + request("share", peer=3) + finish(0, 1),
        usual + waiting + restart + request("echo", 1),
        narrow + request("add", 1) + request("add", 2) + request("look", 3) + wait(6) + request("add", 4),
        usual + notification + again,
        usual + lost + request("echo", "lost") + too_long + request("add", 1) + again,
        usual + datagram(_msgpack.encode_response(1, None, 1)) + datagram(b"") + datagram(b"hello", 4),
        usual + request("add", 1, peer=4) + encoded,
        usual + request("look", "x" * 240) + request("look", "x" * 260),
    ]
