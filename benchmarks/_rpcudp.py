"""rpcudp: MessagePack between asyncio programs, without retransmission."""

from __future__ import annotations

import asyncio
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from _session import Loop, texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from _session import Session

__all__ = ["ask", "serve"]


def _protocol() -> Any:
    """Return the protocol of both sides; by its name, since whether it is installed is not known."""
    base: Any = import_module("rpcudp.protocol").RPCProtocol

    class Echo(base):  # type: ignore[misc]  # a class without known type
        """One method."""

        def rpc_repeat(self, _: object, text: str) -> str:
            """Return the text."""
            return text

    return Echo()


async def _listen() -> tuple[Any, Any]:
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(_protocol, local_addr=("127.0.0.1", 0))


def serve(_: str, ready: Callable[[int], None]) -> None:
    """Serve for ever."""

    async def main() -> None:
        transport, _ = await _listen()
        ready(transport.get_extra_info("sockname")[1])
        await asyncio.get_running_loop().create_future()

    asyncio.run(main())


def ask(_: str, session: Session) -> None:
    """Make the calls of a session."""

    async def main() -> None:
        transport, protocol = await _listen()
        call = partial(protocol.repeat, ("127.0.0.1", session.port))
        # It fires with whether a reply came, and the reply.
        expected = [(True, text) for text in texts()]
        loop = Loop(call, texts(), expected, lambda running: asyncio.gather(*running), session.in_flight)
        await session.measure(loop.run)
        transport.close()

    asyncio.run(main())
