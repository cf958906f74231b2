"""A program: decode the datagrams that stand on standard input as hex lines, and write what each gave as JSON.

    decoder.py               what it decodes to, or "DecodeError"
    decoder.py --measure     CPU time, peak memory

A process of its own, for two reasons: which implementation of msgpack runs is decided at import, and what is measured
must not be traced by coverage.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import tracemalloc
from typing import Final

import msgpack  # type: ignore[import-untyped]  # it ships no annotations

from twistedudp._msgpack import decode_untrusted
from twistedudp.errors import DecodeError

REFERENCE: Final = 0.35
"""Milliseconds of :func:`calibrate` on the machine that the limits in the tests are for, idle."""

ROUNDS: Final = 40


def outcome(payload: bytes) -> str:
    """Return the decoded message as text, or ``DecodeError``."""
    try:
        return repr(decode_untrusted(payload))
    except DecodeError:
        return "DecodeError"


def calibrate() -> float:
    """Return the milliseconds of CPU time that a fixed walk over bytes takes."""
    started = time.thread_time()
    payload = bytes(8192)
    position = total = 0
    while position < 8192:
        total += payload[position]
        position += 1
    return (time.thread_time() - started) * 1e3


def cpu_time(payload: bytes) -> float:
    """Return the milliseconds of CPU time that decoding takes."""
    started = time.thread_time()
    decode_and_forget(payload)
    return (time.thread_time() - started) * 1e3


def decode_and_forget(payload: bytes) -> None:
    """Decode, whatever comes of it."""
    with contextlib.suppress(DecodeError):
        decode_untrusted(payload)


def peak_memory(payload: bytes) -> int:
    """Return how many bytes decoding has allocated at the worst moment."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        decode_and_forget(payload)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def measure(payloads: list[bytes]) -> list[dict[str, float]]:
    """Return for each datagram the peak memory in bytes and the CPU time in milliseconds of the reference machine.

    The best of several rounds, and in each of them beside the calibration, so that a machine that is slow or busy at
    the time is not taken for a slow decoder.
    """
    best = [float("inf")] * len(payloads)
    speed = float("inf")
    for _ in range(ROUNDS):
        speed = min(speed, calibrate())
        best = [min(least, cpu_time(payload)) for least, payload in zip(best, payloads, strict=True)]
    slowness = max(1.0, speed / REFERENCE)
    return [
        {"milliseconds": least / slowness, "bytes": peak_memory(payload)}
        for least, payload in zip(best, payloads, strict=True)
    ]


def main() -> None:
    """Run the program."""
    payloads = [bytes.fromhex(line) for line in sys.stdin.read().split("\n")]
    json.dump(
        {
            "pure": msgpack.Unpacker.__module__ == "msgpack.fallback",
            "results": measure(payloads) if "--measure" in sys.argv else [outcome(payload) for payload in payloads],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
