"""A class of methods that can be called from the network.

Theory of operation: a user derives from :class:`RPCMethods` and marks methods with :func:`method`; nothing else of the
object can be reached. When a server is made, each method's signature is turned into one msgspec Struct, so that the
number and the types of a request's parameters are checked by a single call in C. What a method may be annotated with
is therefore what msgspec converts: base types, datetimes, dataclasses, ``list[int]``, ``Literal``, unions, constraints
by ``Annotated[int, msgspec.Meta(gt=0)]``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints, overload

import msgspec
import msgspec.inspect

from .address import format_address
from .core import METHOD_SLOTS
from .errors import LocalError, MethodError
from .messages import CODE_WRONG_PARAMETER_COUNT, CODE_WRONG_PARAMETER_TYPE
from .probing import PROBE_METHOD
from .probing._answer import Probe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .address import Address

__all__ = ["CurrentPeer", "Method", "MethodDefinitionError", "NoCurrentPeer", "RPCMethods", "current_peer", "method"]

_F = TypeVar("_F", bound=Callable[..., object])

_MARK: Final = "_twistedudp_method"
_RESERVED: Final = "rpc."

calling_peer: ContextVar[Address] = ContextVar("calling_peer")
"""Who sent the request that is running; the server's protocol sets it, methods read it by :func:`current_peer`."""


class MethodDefinitionError(LocalError, TypeError):
    """A method is declared in a way that cannot be served; the text names it and says what to change."""


class NoCurrentPeer(LocalError, LookupError):
    """``current_peer()`` was called outside of a method that is answering a request."""


@dataclass(frozen=True)
class CurrentPeer:
    """Who asks, as far as a datagram's source address tells: without DTLS it can be forged.

    Attributes:
        host: The numeric IPv4 or IPv6 address.
        port: The UDP port.
        certificate_name: The name in the certificate that the peer has shown, verified; ``None`` without DTLS, and
            where the server asks for no certificates.
    """

    host: str
    port: int
    certificate_name: str | None = None

    def __str__(self) -> str:
        return format_address((self.host, self.port))


def current_peer() -> CurrentPeer:
    """Return who sent the request that is being answered.

    It works in a method and in what it calls, also after an ``await`` in a coroutine method. In the callbacks of a
    Deferred that a plain method returns it does not: call it before.

    Raises:
        NoCurrentPeer: No request is being answered here.
    """
    try:
        peer = calling_peer.get()
    except LookupError:
        raise NoCurrentPeer("current_peer() is known only while a method answers a request") from None
    return CurrentPeer(peer[0], peer[1], getattr(peer, "certificate_name", None))


@dataclass(frozen=True)
class _Mark:
    name: str | None
    idempotent: bool
    private: bool
    max_running: int


@overload
def method(function: _F, /) -> _F: ...
@overload
def method(
    *, name: str | None = None, idempotent: bool = False, private: bool = False, max_running: int = METHOD_SLOTS
) -> Callable[[_F], _F]: ...
def method(
    function: _F | None = None,
    /,
    *,
    name: str | None = None,
    idempotent: bool = False,
    private: bool = False,
    max_running: int = METHOD_SLOTS,
) -> _F | Callable[[_F], _F]:
    """Let a method of an :class:`RPCMethods` class be called from the network.

    The method may return a value, a Deferred or a coroutine. It is given the request's parameters by position; they
    are checked against its annotations. An exception it raises is logged, and the caller gets the error
    ``method_failed``; to send an error of its own it raises :class:`twistedudp.errors.MethodError`.

    Args:
        function: The method, where this is used without parentheses.
        name: The name that callers use, where it is not the method's own.
        idempotent: Promise that running it twice does no harm; ``rpc.methods`` tells callers.
        private: What it is given or returns must not cross an open network in plain text: on a public address it is to
            be served over DTLS only, which ``twistd udpecho --public`` sees to. A mark only; ``rpc.methods`` tells
            callers.
        max_running: How many Deferreds or coroutines of this method may be waited for at once; more calls are answered
            ``busy``, with the seconds after which to come back. Choose it by what a run holds: memory, connections.

    Raises:
        MethodDefinitionError: ``max_running`` is no positive number.
    """
    if type(max_running) is not int or max_running < 1:
        text = f"max_running={max_running!r}: it must be a whole number from 1 on, of runs that may go on at once"
        raise MethodDefinitionError(text)

    def mark(function: _F) -> _F:
        setattr(function, _MARK, _Mark(name, idempotent, private, max_running))
        return function

    return mark if function is None else mark(function)


class RPCMethods:
    """Methods that can be called from the network; not an ``IService``: serve it by :class:`UDPServerService`.

    Derive from it and mark methods with :func:`method`. Every server adds ``echo``, which returns its parameter,
    ``rpc.methods``, which lists what there is, and ``rpc.probe``, by which ``udpecho ping`` measures.
    """


class _BuiltInMethods(RPCMethods):
    """What every rpc server answers beside its user's methods."""

    def __init__(self, table: dict[str, Method]) -> None:
        self._table = table

    @method(idempotent=True)
    def echo(self, value: object) -> object:
        """Return the value."""
        return value

    @method(name="rpc.methods", idempotent=True)
    def list_methods(self) -> list[dict[str, object]]:
        """List the methods of this server, with their signatures and docstrings."""
        return [
            {
                "name": name,
                "signature": served.signature,
                "doc": served.doc,
                "idempotent": served.idempotent,
                "private": served.private,
            }
            for name, served in sorted(self._table.items())
        ]

    @method(name=PROBE_METHOD, idempotent=True)
    def probe(self, session: int, sequence: int, sent: int, padding: bytes) -> list[int | bytes]:
        """Tell how many probes of a series have come, and when this one did; see docs/wire.md."""
        for name, number, bits in (("session", session, 64), ("sequence", sequence, 32), ("sent", sent, 64)):
            if not 0 <= number < 1 << bits:
                text = f"{PROBE_METHOD}, parameter {name}: Expected an unsigned number of {bits} bits"
                raise MethodError(CODE_WRONG_PARAMETER_TYPE, text)
        # The protocol makes the list of it: it knows when the request came, from whom, and how large it was.
        return Probe(session, sequence, padding)  # type: ignore[return-value]  # see above


class Method:
    """One method as it is served.

    Attributes:
        name: What callers call it.
        call: The bound method.
        signature: Its parameters and result as text: ``(a: int, b: int = 0) -> int``.
        doc: Its docstring, cleaned; empty where there is none.
        idempotent: Whether it is marked so.
        private: Whether it is marked so.
        max_running: How many of its runs may go on at once.
    """

    __slots__ = (
        "_convert", "_names", "_rest", "_struct", "call", "doc", "idempotent", "max_running", "name", "private",
        "signature",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        call: Callable[..., object],
        idempotent: bool,
        private: bool = False,
        max_running: int = METHOD_SLOTS,
    ) -> None:
        self.name = name
        self.call = call
        self.doc = inspect.getdoc(call) or ""
        self.idempotent = idempotent
        self.private = private
        self.max_running = max_running
        signature, hints = _annotations(name, call)
        self.signature = str(signature)
        self._names: list[str] = []
        self._rest: Any = None
        fields: list[tuple[Any, ...]] = []
        for parameter in signature.parameters.values():
            kind = hints.get(parameter.name, Any)
            if parameter.kind is parameter.VAR_POSITIONAL:
                self._rest = list[kind]  # type: ignore[valid-type]  # a type made at run time
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                field = (f"p{len(fields)}", kind)
                # The default is only a mark here: what is missing is left to the method's own default.
                fields.append(field if parameter.default is parameter.empty else (*field, msgspec.UNSET))
                self._names.append(parameter.name)
            elif parameter.default is parameter.empty:
                raise MethodDefinitionError(
                    f"the method {name!r} takes {parameter} by keyword; requests have parameters by position only"
                )
        self._struct = msgspec.defstruct(f"Parameters of {name}", fields, array_like=True, forbid_unknown_fields=True)
        checked = tuple[self._struct, self._rest]  # type: ignore[name-defined]  # made at run time
        try:
            msgspec.msgpack.Decoder(checked)
        except TypeError as error:
            raise MethodDefinitionError(f"the parameters of the method {name!r} cannot be checked: {error}") from error
        self._convert = _convert_with_bytes if _mentions_bytes(checked) else msgspec.convert

    def arguments_untrusted(self, params: list[object]) -> Sequence[object]:
        """Return a request's parameters as the method's annotations want them.

        Raises:
            MethodError: There are too few, too many, or one is of the wrong type; it says which.
        """
        given, count = len(params), len(self._names)
        rest: Sequence[object] = ()
        offset = 0
        try:
            if self._rest is None or given <= count:
                values = _astuple(self._convert(params, self._struct))
                if given == count:
                    return values
            else:
                values = _astuple(self._convert(params[:count], self._struct))
                offset = count
                rest = self._convert(params[count:], self._rest)
        except msgspec.ValidationError as error:
            raise self._wrong(given, offset, str(error)) from None
        return (*values, *rest) if given >= count else values[:given]

    def _wrong(self, given: int, offset: int, reason: str) -> MethodError:
        place = re.search(r" - at `(?:key` in `)?\$\[(\d+)\](.*)`$", reason)
        if place is None:
            parameters = "1 parameter" if given == 1 else f"{given} parameters"
            return MethodError(CODE_WRONG_PARAMETER_COUNT, f"{self.name}{self.signature} was given {parameters}")
        at = int(place[1]) + offset
        name = self._names[at] if at < len(self._names) else f"number {at + 1}"
        what = reason[: place.start()].replace("`", "")
        return MethodError(
            CODE_WRONG_PARAMETER_TYPE, f"{self.name}{self.signature}, parameter {name}{place[2]}: {what}"
        )


def _annotations(name: str, call: Callable[..., object]) -> tuple[inspect.Signature, dict[str, Any]]:
    """Return what a method takes, and of which types.

    Raises:
        MethodDefinitionError: That cannot be read.
    """
    try:
        return inspect.signature(call, eval_str=True), get_type_hints(call, include_extras=True)
    except Exception as error:
        raise MethodDefinitionError(f"the annotations of the method {name!r} cannot be read: {error}") from error


_astuple: Final = msgspec.structs.astuple

# msgpack tells bytes from text, but msgspec would take text for base64 where bytes are wanted. Saying so costs as much
# as the whole conversion, so it is said only where it matters.
_convert_with_bytes: Final = partial(msgspec.convert, builtin_types=(bytes, bytearray, memoryview))


def _mentions_bytes(kind: Any) -> bool:
    described = repr(msgspec.inspect.type_info(kind))
    return any(name in described for name in ("BytesType", "ByteArrayType", "MemoryViewType"))


def method_table(methods: RPCMethods) -> dict[str, Method]:
    """Return what an object serves by name, the built-in methods included.

    Raises:
        MethodDefinitionError: A method cannot be served; two have one name; a name is reserved.
    """
    table: dict[str, Method] = {}
    for name, call, mark in _marked(methods):
        if name == "echo" or name.startswith(_RESERVED):
            raise MethodDefinitionError(f"the name {name!r} is a built-in method's; give the method another")
        if name in table:
            raise MethodDefinitionError(f"two methods have the name {name!r}; rename one")
        table[name] = Method(name, call, mark.idempotent, mark.private, mark.max_running)
    for name, call, mark in _marked(_BuiltInMethods(table)):
        table[name] = Method(name, call, mark.idempotent, mark.private, mark.max_running)
    return table


def _marked(methods: RPCMethods) -> Iterator[tuple[str, Callable[..., object], _Mark]]:
    for attribute in dir(type(methods)):
        mark = getattr(getattr(type(methods), attribute), _MARK, None)
        if isinstance(mark, _Mark):
            yield mark.name or attribute, getattr(methods, attribute), mark
