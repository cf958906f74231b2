"""The client in pytest with pytest-twisted: fixtures and coroutine tests on the real reactor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import maybeDeferred

from tests.pytest_style.decorators import async_fixture, coroutine_test, generator_test
from twistedudp import RPCMethods, UDPClientService, UDPServerService, errors, method

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from twistedudp.address import Address


class Counter(RPCMethods):
    """Counts, so that a test can see how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    @method
    def count(self, step: int) -> int:
        """Add to the count and return it."""
        self.calls += step
        return self.calls


@pytest.fixture
def reactor() -> Any:
    """The reactor that pytest-twisted installed."""
    from twisted.internet import reactor  # noqa: PLC0415  # pytest-twisted installs it first

    return reactor


@async_fixture
async def server(reactor: Any) -> AsyncGenerator[Address, None]:
    """The address of a server that runs for one test."""
    service = UDPServerService(reactor, 0, Counter())
    service.startService()
    assert service.address is not None
    yield service.address
    await maybeDeferred(service.stopService)


@async_fixture
async def client(reactor: Any, server: Address) -> AsyncGenerator[UDPClientService, None]:
    """A client of the server that runs for one test."""
    async with UDPClientService(reactor, *server, timeout=30.0) as running:
        yield running


@coroutine_test
async def test_call(client: UDPClientService) -> None:
    """A coroutine test calls a method through fixtures, and its state lives for the test."""
    assert await client.call("count", 2) == 2
    assert await client.call("count", 3) == 5


@generator_test
def test_inline_callbacks(client: UDPClientService) -> Any:
    """The same works in the older style."""
    value = [3.14159, {"nested": True}]
    echoed = yield client.echo(value)
    assert echoed == value


@coroutine_test
async def test_error_reply(client: UDPClientService) -> None:
    """A method's refusal is an exception that pytest.raises catches."""
    with pytest.raises(errors.ErrorReplyReceived, match="wrong_parameter_type"):
        await client.call("count", "two")


@coroutine_test
async def test_unreachable(reactor: Any, client: UDPClientService, server: Address) -> None:
    """A client of a port that nobody has any more is told at once."""
    gone = UDPServerService(reactor, 0, Counter())
    gone.startService()
    assert gone.address is not None
    address = gone.address
    await maybeDeferred(gone.stopService)
    async with UDPClientService(reactor, *address, timeout=30.0) as other:
        with pytest.raises(errors.PeerUnreachable):
            await other.call("count", 1)
    assert address != server
    assert await client.call("count", 1) == 1
