"""aiocoap: CoAP (RFC 7252) between asyncio programs, here by confirmable POST, which runs once as our calls do.

Configured for what is measured: one transport, no assembly of blocks on either side, the peer's address looked up once.
It has one request in flight at each peer (NSTART of RFC 7252), which cannot be changed; the others wait in its queue.
Message ids have 16 bits and are not used again for 247 s, so that a process can make at most 65,536 calls in this time.
"""

from __future__ import annotations

import asyncio
import socket
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from _session import Loop, texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from _session import Session

__all__ = ["ask", "serve"]

_TRANSPORTS: Final = ["udp6"]  # its default on Linux


def serve(_: str, ready: Callable[[int], None]) -> None:
    """Serve for ever."""
    aiocoap: Any = import_module("aiocoap")
    resource: Any = import_module("aiocoap.resource")

    class Echo(resource.Resource):  # type: ignore[misc]  # a class without known type
        """One resource."""

        async def needs_blockwise_assembly(self, request: Any) -> bool:  # noqa: ARG002  # its interface
            """Tell that a request is one message."""
            return False

        async def render_post(self, request: Any) -> Any:
            """Return the payload."""
            return aiocoap.Message(payload=request.payload)

    async def main() -> None:
        site = resource.Site()
        site.add_resource(["repeat"], Echo())
        # It takes port 0 for CoAP's own, so a free one is looked for before.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        await aiocoap.Context.create_server_context(site, bind=("127.0.0.1", port), transports=_TRANSPORTS)
        ready(port)
        await asyncio.get_running_loop().create_future()

    asyncio.run(main())


def ask(_: str, session: Session) -> None:
    """Make the calls of a session."""
    aiocoap: Any = import_module("aiocoap")

    async def main() -> None:
        context = await aiocoap.Context.create_client_context(transports=_TRANSPORTS)
        uri = f"coap://127.0.0.1:{session.port}/repeat"
        first = aiocoap.Message(code=aiocoap.POST, uri=uri, payload=b"")
        await context.find_remote_and_interface(first)
        remote = first.remote

        async def call(payload: bytes) -> bytes:
            request = aiocoap.Message(code=aiocoap.POST, mtype=aiocoap.CON, payload=payload, uri_path=["repeat"])
            request.remote = remote
            response = await context.request(request, handle_blockwise=False).response
            answered: bytes = response.payload
            return answered

        payloads = [text.encode() for text in texts()]
        loop = Loop(call, payloads, payloads, lambda running: asyncio.gather(*running), session.in_flight)
        await session.measure(loop.run)
        await context.shutdown()

    asyncio.run(main())
