"""The messages of MessagePack-RPC as values.

Theory of operation: one message per datagram, three kinds, exactly the fields that the published specification has
(https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md). Named tuples because one is made for every datagram
and they cost half of what a frozen dataclass costs. The error codes that our own servers send stand here too, since
both sides know them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CODE_BUSY",
    "CODE_METHOD_FAILED",
    "CODE_RESULT_NOT_ENCODABLE",
    "CODE_RESULT_TOO_LARGE",
    "CODE_SERVER_STOPPING",
    "CODE_UNKNOWN_METHOD",
    "CODE_UNPROVEN_ADDRESS",
    "CODE_WRONG_PARAMETER_COUNT",
    "CODE_WRONG_PARAMETER_TYPE",
    "PROVE_METHOD",
    "TYPE_NOTIFICATION",
    "TYPE_REQUEST",
    "TYPE_RESPONSE",
    "Message",
    "Notification",
    "Request",
    "Response",
    "new_request",
    "new_response",
]

TYPE_REQUEST: Final = 0
TYPE_RESPONSE: Final = 1
TYPE_NOTIFICATION: Final = 2

CODE_BUSY: Final = "busy"
"""The server has as many requests running as it allows; it did not run this one."""
CODE_UNKNOWN_METHOD: Final = "unknown_method"
"""The server has no method of that name."""
CODE_WRONG_PARAMETER_COUNT: Final = "wrong_parameter_count"
"""The method takes fewer or more parameters."""
CODE_WRONG_PARAMETER_TYPE: Final = "wrong_parameter_type"
"""A parameter does not fit the method's annotation."""
CODE_RESULT_TOO_LARGE: Final = "result_too_large"
"""The method ran, but its result does not fit a datagram or the limits of the codec."""
CODE_RESULT_NOT_ENCODABLE: Final = "result_not_encodable"
"""The method ran, but msgpack cannot carry what it returned."""
CODE_METHOD_FAILED: Final = "method_failed"
"""The method raised an exception; the server's log has it."""
CODE_SERVER_STOPPING: Final = "server_stopping"
"""The server is stopping: it has not run the method, or it stopped while the method was running."""
CODE_UNPROVEN_ADDRESS: Final = "unproven_address"
"""The response is too large for an address that may be forged; the error's data is what proves it."""

PROVE_METHOD: Final = "rpc.prove"
"""The notification by which a client proves its address: its one parameter is the error's data."""


class Request(NamedTuple):
    """A call that wants a response."""

    msgid: int
    """The caller's number for it, 0 to 2**32 - 1."""
    method: str
    params: list[object]


class Response(NamedTuple):
    """The answer to a request: either ``error`` is ``None`` and ``result`` counts, or the other way round."""

    msgid: int
    error: object
    result: object


new_request: Final[Callable[[tuple[int, str, list[object]]], Request]] = partial(tuple.__new__, Request)
new_response: Final[Callable[[tuple[int, object, object]], Response]] = partial(tuple.__new__, Response)
"""These make one from a tuple, in a third of the time: one is made for every datagram."""


class Notification(NamedTuple):
    """A call that wants no response."""

    method: str
    params: list[object]


Message: TypeAlias = Request | Response | Notification
