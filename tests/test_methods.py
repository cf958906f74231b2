"""Classes of methods: which can be called, by which names, and with which parameters."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from twistedudp import errors
from twistedudp.methods import (
    CurrentPeer,
    Method,
    MethodDefinitionError,
    NoCurrentPeer,
    RPCMethods,
    current_peer,
    method,
    method_table,
)

BUILT_IN = {"echo", "rpc.methods", "rpc.probe"}


@dataclass
class Inner:
    """Something nested."""

    numbers: list[int]


@dataclass
class Outer:
    """Something that nests."""

    name: str
    inner: Inner
    note: str = ""


@dataclass
class Folder:
    """Something that holds bytes, and itself."""

    content: bytes
    inner: Folder | None = None


class Point(msgspec.Struct):
    """A Struct."""

    x: int
    y: int


class Methods(RPCMethods):
    """One method for each kind of signature."""

    attribute: ClassVar[Any] = "not a method"

    @method
    def none(self) -> str:
        """Take nothing."""
        return "none"

    @method
    def two(self, a: int, b: str) -> object:
        """Take two."""
        return [a, b]

    @method
    def defaults(self, a: int, b: int = 7, c: Any = None) -> object:
        """Have defaults."""
        return [a, b, c]

    @method
    def rest(self, first: str, *numbers: int) -> object:
        """Take as many as there are."""
        return [first, *numbers]

    @method
    def anything(self, *values):  # type: ignore[no-untyped-def]  # that is what is tested
        """Have no annotations."""
        return list(values)

    @method
    def nested(self, outer: Outer) -> str:
        """Take a dataclass."""
        return f"{type(outer).__name__} {type(outer.inner).__name__} {outer.inner.numbers} {outer.note!r}"

    @method
    def struct(self, point: Point) -> int:
        """Take a Struct."""
        return point.x + point.y

    @method
    def positive(self, number: Annotated[int, msgspec.Meta(gt=0)]) -> int:
        """Take a positive number."""
        return number

    @method
    def choose(self, which: Literal["a", "b"], number: int | None) -> object:
        """Choose."""
        return [which, number]

    @method
    def moments(self, when: dt.datetime, data: bytes) -> object:
        """Take what only msgpack can tell from text."""
        return [when, data]

    @method
    def floating(self, number: float) -> float:
        """Take a float."""
        return number

    @method
    def keyed(self, table: dict[Annotated[str, msgspec.Meta(max_length=2)], int]) -> object:
        """Take a map with constrained keys."""
        return table

    @method
    def optional_keyword(self, a: int, *, b: int = 1) -> int:
        """Have a parameter that the network cannot reach."""
        return a + b

    def unmarked(self) -> str:
        """Be out of reach."""
        return "secret"


class ParametersTests(SynchronousTestCase):
    """Parameters are converted to what the annotations say, or refused with an error that names the place."""

    def setUp(self) -> None:
        """Make the table."""
        self.table = method_table(Methods())

    def call(self, name: str, *params: object) -> object:
        """Call a method as the server does."""
        served = self.table[name]
        return served.call(*served.arguments_untrusted(list(params)))

    def refused(self, code: str, name: str, *params: object) -> str:
        """Return the text with which a call is refused."""
        error = self.assertRaises(errors.MethodError, self.call, name, *params)
        self.assertEqual((error.code, error.data), (code, None))
        return str(error.message)

    def test_good(self) -> None:
        """What fits is passed on."""
        now = dt.datetime(2026, 11, 22, tzinfo=dt.timezone.utc)
        for name, params, result in (
            ("none", (), "none"),
            ("two", (1, "x"), [1, "x"]),
            ("defaults", (1,), [1, 7, None]),
            ("defaults", (1, 2), [1, 2, None]),
            ("defaults", (1, 2, {"a": 1}), [1, 2, {"a": 1}]),
            ("rest", ("x",), ["x"]),
            ("rest", ("x", 1, 2, 3), ["x", 1, 2, 3]),
            ("anything", (), []),
            ("anything", (1, "x", None), [1, "x", None]),
            ("nested", ({"name": "n", "inner": {"numbers": [1, 2]}},), "Outer Inner [1, 2] ''"),
            ("struct", ({"x": 1, "y": 2},), 3),
            ("positive", (1,), 1),
            ("choose", ("a", None), ["a", None]),
            ("moments", (now, b"\x00\xff"), [now, b"\x00\xff"]),
            ("floating", (1,), 1.0),
            ("keyed", ({"ab": 1},), {"ab": 1}),
            ("optional_keyword", (1,), 2),
        ):
            self.assertEqual(self.call(name, *params), result, name)

    def test_default_is_the_methods_own(self) -> None:
        """A mutable default is not copied or checked: what is missing is left to Python."""
        default = ["shared"]

        class WithDefault(RPCMethods):
            @method
            def f(self, a: int = "not an int", b: list[str] = default) -> object:  # type: ignore[assignment]  # both on purpose
                return a, b

        served = method_table(WithDefault())["f"]
        result: Any = served.call(*served.arguments_untrusted([]))
        self.assertEqual(result[0], "not an int")
        self.assertIs(result[1], default)

    def test_wrong_count(self) -> None:
        """Too few and too many parameters are told, with the signature."""
        for name, params, text in (
            ("none", (1,), "none() -> str was given 1 parameter"),
            ("two", (), "two(a: int, b: str) -> object was given 0 parameters"),
            ("two", (1,), "was given 1 parameter"),
            ("two", (1, "x", 2), "was given 3 parameters"),
            ("defaults", (), "defaults(a: int, b: int = 7, c: Any = None) -> object was given 0 parameters"),
            ("defaults", (1, 2, 3, 4), "was given 4 parameters"),
            ("rest", (), "was given 0 parameters"),
            ("optional_keyword", (1, 2), "was given 2 parameters"),
        ):
            refused = self.refused("wrong_parameter_count", name, *params)
            self.assertIn(text, refused.replace("typing.Any", "Any"))

    def test_wrong_type(self) -> None:
        """A parameter that does not fit is told by its name, with the path inside of it."""
        for name, params, text in (
            ("two", ("x", "y"), "two(a: int, b: str) -> object, parameter a: Expected int, got str"),
            ("two", (1, 2), "parameter b: Expected str, got int"),
            ("two", (True, "x"), "parameter a: Expected int, got bool"),
            ("two", (1.0000001, "x"), "parameter a: Expected int, got float"),
            ("two", (None, "x"), "parameter a: Expected int, got null"),
            ("defaults", (1, "x"), "parameter b: Expected int, got str"),
            ("rest", (1,), "parameter first: Expected str, got int"),
            ("rest", (1, 2), "parameter first: Expected str, got int"),
            ("rest", ("x", 1, "y"), "parameter number 3: Expected int, got str"),
            ("nested", ({"name": "n", "inner": {"numbers": [1, "x"]}},), "outer.inner.numbers[1]: Expected int, got"),
            ("nested", ({"name": "n"},), "parameter outer: Object missing required field inner"),
            ("struct", ([1, 2],), "parameter point: Expected object, got array"),
            ("positive", (0,), "parameter number: Expected int >= 1"),
            ("choose", ("c", None), "parameter which: Invalid enum value 'c'"),
            ("choose", ("a", "1"), "parameter number: Expected int | null, got str"),
            ("moments", (5, b""), "parameter when: Expected datetime, got int"),
            ("keyed", ({"abc": 1},), "parameter table: Expected str of length <= 2"),
            ("keyed", ({"ab": "x"},), "parameter table[...]: Expected int, got str"),
        ):
            self.assertIn(text, self.refused("wrong_parameter_type", name, *params))

    def test_text_is_no_bytes(self) -> None:
        """Text is not taken for bytes in base64: the caller would never know that other bytes arrived."""
        now = dt.datetime(2026, 11, 22, tzinfo=dt.timezone.utc)
        text = self.refused("wrong_parameter_type", "moments", now, "aGVsbG8=")
        self.assertIn("parameter data: Expected bytes, got str", text)

    def test_bytes_inside(self) -> None:
        """Nor is it where the bytes stand inside of a type, even one that holds itself."""

        class Folders(RPCMethods):
            @method
            def keep(self, folder: Folder) -> int:
                """Count what is in a folder."""
                return len(folder.content)

        keep = method_table(Folders())["keep"]
        self.assertEqual(keep.call(*keep.arguments_untrusted([{"content": b"xy", "inner": {"content": b""}}])), 2)
        self.assertRaises(errors.MethodError, keep.arguments_untrusted, [{"content": "eHk=", "inner": None}])

    def test_no_bytes_in_messages(self) -> None:
        """What was sent does not come back in the error: it may be large, or secret."""
        self.assertNotIn("xyzzy", self.refused("wrong_parameter_type", "two", "xyzzy" * 100, "y"))


class TableTests(SynchronousTestCase):
    """Which methods there are."""

    def names(self, methods: RPCMethods) -> set[str]:
        """Return the names of the user's methods."""
        return set(method_table(methods)) - BUILT_IN

    def test_marked_only(self) -> None:
        """Only marked methods are served: no other method, no attribute, nothing of Python's own."""
        table = method_table(Methods())
        for name in ("unmarked", "attribute", "__init__", "__class__", "__dict__", "_table", "list_methods", ""):
            self.assertNotIn(name, table)
        self.assertIn("two", table)

    def test_built_in(self) -> None:
        """Every object has echo, rpc.methods and rpc.probe, none of which is harmed by running twice."""
        table = method_table(RPCMethods())
        self.assertEqual(set(table), BUILT_IN)
        self.assertEqual(table["echo"].call([1, 2]), [1, 2])
        self.assertEqual({name for name, served in table.items() if served.idempotent}, BUILT_IN)

    def test_marking_changes_nothing(self) -> None:
        """A marked method is still called as before by Python."""
        self.assertEqual(Methods().two(1, "x"), [1, "x"])

    def test_names(self) -> None:
        """A method can have another name than its own, dots included; it is then not served by its own."""

        class Named(RPCMethods):
            @method(name="math.add")
            def add(self, a: int, b: int) -> int:
                return a + b

            @method()
            def plain(self) -> None: ...

            @method
            def _private(self) -> None: ...

        self.assertEqual(self.names(Named()), {"math.add", "plain", "_private"})

    def test_listing(self) -> None:
        """rpc.methods lists name, signature, docstring and the marks, in order of name."""

        class Listed(RPCMethods):
            @method(idempotent=True)
            def look(self, at: int, *more: str) -> list[str]:
                """Look at something.

                Twice.
                """
                return [str(at), *more]

            @method(private=True)
            def change(self):  # type: ignore[no-untyped-def]  # shown as it is
                return None

        self.assertEqual(
            method_table(Listed())["rpc.methods"].call(),
            [
                {"name": "change", "signature": "()", "doc": "", "idempotent": False, "private": True},
                {
                    "name": "echo",
                    "signature": "(value: object) -> object",
                    "doc": "Return the value.",
                    "idempotent": True,
                    "private": False,
                },
                {
                    "name": "look",
                    "signature": "(at: int, *more: str) -> list[str]",
                    "doc": "Look at something.\n\nTwice.",
                    "idempotent": True,
                    "private": False,
                },
                {
                    "name": "rpc.methods",
                    "signature": "() -> list[dict[str, object]]",
                    "doc": "List the methods of this server, with their signatures and docstrings.",
                    "idempotent": True,
                    "private": False,
                },
                {
                    "name": "rpc.probe",
                    "signature": "(session: int, sequence: int, sent: int, padding: bytes) -> list[int | bytes]",
                    "doc": "Tell how many probes of a series have come, and when this one did; see docs/wire.md.",
                    "idempotent": True,
                    "private": False,
                },
            ],
        )

    def test_marks(self) -> None:
        """What a method is marked with is the served method's; without a mark it is public and has 1,024 slots."""

        class Marked(RPCMethods):
            @method(private=True, max_running=3)
            def secret(self) -> None: ...

            @method
            def plain(self) -> None: ...

        table = method_table(Marked())
        marks = {name: (table[name].private, table[name].max_running) for name in ("secret", "plain", "echo")}
        self.assertEqual(marks, {"secret": (True, 3), "plain": (False, 1024), "echo": (False, 1024)})

    def test_bad_bound(self) -> None:
        """A bound that is no positive number is refused where the method is defined."""
        for bound in (0, -1, True, 1.5, "2", None):
            error = self.assertRaises(MethodDefinitionError, method, max_running=bound)
            self.assertIn(f"max_running={bound!r}: it must be a whole number from 1 on", str(error))

    def test_inheritance(self) -> None:
        """Inherited methods are served; one that is overridden only if the new one is marked too."""

        class Base(RPCMethods):
            @method
            def kept(self) -> str:
                return "base"

            @method
            def replaced(self) -> str:
                return "base"

            @method
            def hidden(self) -> str:
                return "base"

            @method
            def removed(self) -> str:
                return "base"

        class Derived(Base):
            @method
            def replaced(self) -> str:
                return "derived"

            def hidden(self) -> str:
                return "not for the network"

            removed = None  # type: ignore[assignment]  # a way to take a method away

        table = method_table(Derived())
        self.assertEqual(set(table), {"kept", "replaced"} | BUILT_IN)
        self.assertEqual((table["kept"].call(), table["replaced"].call()), ("base", "derived"))

    def test_other_kinds(self) -> None:
        """Static and class methods work too; properties are not touched while looking for methods."""

        class Kinds(RPCMethods):
            @staticmethod
            @method
            def static(a: int) -> int:
                return a

            @classmethod
            @method
            def of_class(cls, a: int) -> str:
                return f"{cls.__name__} {a}"

            @property
            def explosive(self) -> None:
                raise RuntimeError("touched")

        table = method_table(Kinds())
        self.assertEqual(table["static"].call(*table["static"].arguments_untrusted([1])), 1)
        self.assertEqual(table["of_class"].call(*table["of_class"].arguments_untrusted([1])), "Kinds 1")
        self.assertNotIn("explosive", table)


class ProbeTests(SynchronousTestCase):
    """The parameters of rpc.probe; what it answers is the protocol's part."""

    def setUp(self) -> None:
        """Make a table."""
        self.served = method_table(RPCMethods())["rpc.probe"]

    def call(self, *params: object) -> object:
        """Call it as the server does."""
        return self.served.call(*self.served.arguments_untrusted(list(params)))

    def test_largest_and_smallest(self) -> None:
        """The numbers may be whatever their widths allow."""
        for session, sequence, sent in ((0, 0, 0), (2**64 - 1, 2**32 - 1, 2**64 - 1)):
            self.assertEqual(self.call(session, sequence, sent, b"xy"), (session, sequence, b"xy"))

    def test_out_of_range(self) -> None:
        """Another number is refused, by its parameter's name, as is padding that is no bytes."""
        for params, name in (
            ((-1, 0, 0, b""), "session"),
            ((2**64, 0, 0, b""), "session"),
            ((0, -1, 0, b""), "sequence"),
            ((0, 2**32, 0, b""), "sequence"),
            ((0, 0, -1, b""), "sent"),
            ((0, 0, 2**64, b""), "sent"),
            ((0, 0, 0, "xyzw"), "padding"),
            ((True, 0, 0, b""), "session"),
            ((0, 1.5, 0, b""), "sequence"),
        ):
            error = self.assertRaises(errors.MethodError, self.call, *params)
            self.assertEqual(error.code, "wrong_parameter_type")
            self.assertIn(f"parameter {name}: Expected", error.message)


class DefinitionErrorTests(SynchronousTestCase):
    """Methods that cannot be served are refused when the server is made, by name."""

    def refused(self, methods: type[RPCMethods]) -> str:
        """Return the text with which a class is refused."""
        error = self.assertRaises(MethodDefinitionError, method_table, methods())
        self.assertIsInstance(error, errors.LocalError)
        self.assertIsInstance(error, TypeError)
        return str(error)

    def test_reserved_names(self) -> None:
        """The names of built-in methods, and all that begin with rpc., are taken."""

        class Echo(RPCMethods):
            @method
            def echo(self) -> None: ...

        class Rpc(RPCMethods):
            @method(name="rpc.mine")
            def mine(self) -> None: ...

        class Probe(RPCMethods):
            @method(name="rpc.probe")
            def probe(self) -> None: ...

        self.assertIn("'rpc.probe' is a built-in", self.refused(Probe))
        self.assertIn("'echo' is a built-in", self.refused(Echo))
        self.assertIn("'rpc.mine' is a built-in", self.refused(Rpc))

    def test_duplicate(self) -> None:
        """Two methods of one name are one too many."""

        class Twice(RPCMethods):
            @method
            def one(self) -> None: ...

            @method(name="one")
            def two(self) -> None: ...

        self.assertIn("two methods have the name 'one'", self.refused(Twice))

    def test_by_keyword(self) -> None:
        """Requests have parameters by position, so none may be needed by keyword."""

        class Keywords(RPCMethods):
            @method
            def f(self, **options: int) -> None: ...

        class KeywordOnly(RPCMethods):
            @method
            def f(self, *, must: int) -> None: ...

        self.assertIn("'f' takes **options: int by keyword", self.refused(Keywords))
        self.assertIn("'f' takes must: int by keyword", self.refused(KeywordOnly))

    def test_unreadable(self) -> None:
        """Annotations that mean nothing at run time are told with the method's name."""

        class Unknown(RPCMethods):
            @method
            def f(self, a: NoSuchType) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # on purpose

        self.assertIn("'f' cannot be read: name 'NoSuchType'", self.refused(Unknown))

    def test_unsupported(self) -> None:
        """Annotations that msgspec cannot convert to are found when the server is made, not at the first call."""

        class Union(RPCMethods):
            @method
            def f(self, a: list[int] | set[int]) -> None: ...

        class Rest(RPCMethods):
            @method
            def f(self, *a: list[int] | set[int]) -> None: ...

        for methods in (Union, Rest):
            self.assertIn("'f'", self.refused(methods))


class CurrentPeerTests(SynchronousTestCase):
    """What a method can know of who asks; the rest is in the tests of the protocol."""

    def test_outside(self) -> None:
        """Outside of a request nobody asks."""
        error = self.assertRaises(NoCurrentPeer, current_peer)
        self.assertIsInstance(error, errors.TwistedUDPError)
        self.assertIsInstance(error, LookupError)

    def test_text(self) -> None:
        """A peer reads as people write addresses."""
        self.assertEqual(str(CurrentPeer("192.0.2.1", 7)), "192.0.2.1:7")
        self.assertEqual(str(CurrentPeer("2001:db8::1", 7)), "[2001:db8::1]:7")

    def test_slots(self) -> None:
        """A served method has the attributes that are documented and no dictionary."""
        served = Method("two", Methods().two, True)
        self.assertEqual((served.name, served.idempotent, served.doc), ("two", True, "Take two."))
        self.assertFalse(hasattr(served, "__dict__"))
