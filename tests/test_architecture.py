"""What holds for the package as a whole: its public names, its budgets, and what importing it may cost.

The direction of imports is import-linter's part (pyproject.toml); scripts/test runs it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

import twistedudp
from tests.checkout import PACKAGE, ROOT, package_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC_NAMES = {
    "AdmissionPolicy",
    "DatagramPlugin",
    "DiscoveryAnswer",
    "IDatagramPlugin",
    "RPCMethods",
    "UDPClientService",
    "UDPServerService",
    "current_peer",
    "discover",
    "errors",
    "listen",
    "method",
}

MODULE_LINES = 400
FUNCTION_LINES = 40
INSTANCE_ATTRIBUTES = 12

CYTHON_FUNCTION = re.compile(r"(?P<indent> *)(?:def|cpdef|cdef(?! class))\b[^=]*?(?P<name>\w+)\(")
"""How a function begins in Cython, which Python's parser cannot read."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def imported_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after a statement."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {statement}; print(*sys.modules)"],
        # Where this process found the package, so that it need not be installed to be looked at.
        env={"PYTHONPATH": str(Path(twistedudp.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split())


def functions(tree: ast.AST) -> Iterator[FunctionNode]:
    """Yield all functions and methods, also those inside of others."""
    return (node for node in ast.walk(tree) if isinstance(node, FunctionNode))


def code_lines(function: FunctionNode) -> int:
    """Count the lines of a function without its docstring, which is to be as long as it needs to be."""
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    documentation = (first.end_lineno or 0) - first.lineno + 1 if is_docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - documentation


def instance_attributes(node: ast.ClassDef) -> set[str]:
    """Return the attributes that the methods of a class assign to ``self``."""
    return {
        target.attr
        for function in functions(node)
        for target in ast.walk(function)
        if isinstance(target, ast.Attribute)
        and isinstance(target.ctx, ast.Store)
        and isinstance(target.value, ast.Name)
        and target.value.id == "self"
    }


def cython_sources(*suffixes: str) -> dict[str, list[str]]:
    """Return the lines of each Cython source of the package by its path below the checkout."""
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").splitlines()
        for path in sorted(PACKAGE.rglob("*"))
        if path.suffix in suffixes
    }


def cython_functions(lines: list[str]) -> Iterator[tuple[str, int, int]]:
    """Yield each function's name, first line and number of lines without its docstring, going by indentation."""
    for start, line in enumerate(lines):
        match = CYTHON_FUNCTION.match(line)
        if match is None:
            continue
        opening = next((at for at in range(start, len(lines)) if lines[at].endswith(":")), None)
        if opening is None or any(not part.strip() for part in lines[start:opening]):
            continue  # a declaration, without a body
        deeper = match["indent"] + " "
        end = opening + 1
        while end < len(lines) and (not lines[end].strip() or lines[end].startswith(deeper)):
            end += 1
        code = re.sub(r'(?s)\A\s*"""(.*?)"""\n?', "", "\n".join(lines[opening + 1 : end])).rstrip()
        yield match["name"], start + 1, opening - start + 1 + (len(code.splitlines()) if code.strip() else 0)


def top_level_imports(tree: ast.Module) -> Iterator[str]:
    """Yield what a module imports when it is imported itself: all imports outside of functions."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)
        elif not isinstance(node, FunctionNode):
            waiting.extend(ast.iter_child_nodes(node))


class PublicNamesTests(SynchronousTestCase):
    """The package offers the documented names, and its import costs next to nothing."""

    def test_all(self) -> None:
        """The list of public names is the documented one: other programs are written against it."""
        self.assertEqual(set(twistedudp.__all__), PUBLIC_NAMES)

    def test_each_can_be_had(self) -> None:
        """Each public name leads to an object, which knows itself by that name."""
        for name in PUBLIC_NAMES:
            value = getattr(twistedudp, name)
            self.assertEqual(value.__name__.removeprefix("twistedudp."), name)

    def test_dir(self) -> None:
        """dir() lists the public names, although they are not imported yet, for shells that complete names."""
        self.assertLessEqual(PUBLIC_NAMES, set(dir(twistedudp)))

    def test_unknown_name(self) -> None:
        """Another name is an AttributeError as with any module, and hasattr() works."""
        with self.assertRaisesRegex(AttributeError, "module 'twistedudp' has no attribute 'serve'"):
            twistedudp.serve  # noqa: B018  # looking it up is the test
        self.assertFalse(hasattr(twistedudp, "__wrapped__"))

    def test_import_is_light(self) -> None:
        """Importing the package imports no other module of it, no Twisted and no msgpack."""
        loaded = imported_by("import twistedudp")
        heavy = {name for name in loaded if name.split(".")[0] in {"twisted", "msgpack", "msgspec", "click", "rich"}}
        self.assertEqual(heavy, set())
        self.assertEqual({name for name in loaded if name.startswith("twistedudp")}, {"twistedudp"})

    def test_no_name_installs_a_reactor(self) -> None:
        """Not even importing all public names installs a reactor: which one runs is the program's choice."""
        loaded = imported_by("from twistedudp import *")
        self.assertNotIn("twisted.internet.reactor", loaded)
        self.assertIn("twistedudp.client", loaded)

    def test_command_line_help_is_light(self) -> None:
        """The parser of udpecho needs neither Twisted nor Rich nor msgpack, so that --help is quick."""
        loaded = {name.split(".")[0] for name in imported_by("import twistedudp.cli._program")}
        self.assertEqual(loaded & {"twisted", "msgpack", "msgspec", "rich"}, set())
        self.assertIn("click", loaded)


class BudgetTests(SynchronousTestCase):
    """Nothing grows beyond what a reader can hold."""

    maxDiff = None

    def test_modules(self) -> None:
        """No module has more than 400 lines, in Python and in Cython."""
        lengths = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in package_modules()}
        lengths |= {path: len(lines) for path, lines in cython_sources(".pyx", ".pxd", ".pyi").items()}
        self.assertEqual({path: length for path, length in lengths.items() if length > MODULE_LINES}, {})
        self.assertLessEqual({"twistedudp/errors.py", "twistedudp/transport/_mmsg/_backend.pyx"}, set(lengths))

    def test_functions(self) -> None:
        """No function has more than 40 lines besides its docstring."""
        long = {
            f"{path}:{function.lineno} {function.name}": code_lines(function)
            for path, tree in package_modules().items()
            for function in functions(tree)
            if code_lines(function) > FUNCTION_LINES
        }
        long |= {
            f"{path}:{number} {name}": length
            for path, lines in cython_sources(".pyx").items()
            for name, number, length in cython_functions(lines)
            if length > FUNCTION_LINES
        }
        self.assertEqual(long, {})

    def test_instance_attributes(self) -> None:
        """No class has more than 12 instance attributes, unless a comment '# budget:' on its line gives the reason."""
        wide = {}
        for path, tree in package_modules().items():
            lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
            for node in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
                attributes = instance_attributes(node)
                excused = re.search(r"# budget: \S", lines[node.lineno - 1])
                if len(attributes) > INSTANCE_ATTRIBUTES and not excused:
                    wide[f"{path}:{node.lineno} {node.name}"] = len(attributes)
        self.assertEqual(wide, {})

    def test_counting(self) -> None:
        """The counts are right for a small class, so that the tests above can fail."""
        tree = ast.parse(
            'class A:\n    def f(self):\n        """One.\n\n        Two.\n        """\n        self.a, self.b = 1, 2\n'
            "        async def g():\n            self.c: int = 3\n            other.d = self.e\n"
        )
        (node,) = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
        self.assertEqual(instance_attributes(node), {"a", "b", "c"})
        self.assertEqual({function.name: code_lines(function) for function in functions(tree)}, {"f": 5, "g": 3})

    def test_cython_functions(self) -> None:
        """Functions of all kinds are found in Cython, with the right numbers of lines, and declarations are none."""
        text = """
cdef struct Arena:
    char bytes[3]

cdef int declared(int a) except -1

cdef inline int one(
    int a,
) noexcept nogil:
    '''Two.

    Lines.
    '''
    if a:

        return a
    return 1

cdef object _seed = compute(1)

cdef class Peer(Base):
    cpdef object two(self):
        return 1

    def three(self, a=None):
        '''One.'''
"""
        lines = text.replace("'''", '"""').splitlines()
        self.assertEqual(list(cython_functions(lines)), [("one", 7, 7), ("two", 22, 2), ("three", 25, 1)])


class ImportTests(SynchronousTestCase):
    """What modules may import when they are imported."""

    def test_no_global_reactor(self) -> None:
        """No module imports the global reactor at its top level, which would choose it for the program."""
        guilty = [
            path
            for path, tree in package_modules().items()
            for name in top_level_imports(tree)
            if name.startswith("twisted.internet.reactor")
        ]
        self.assertEqual(guilty, [])

    def test_top_level_imports(self) -> None:
        """The look-out sees imports in classes and conditions, and none in functions."""
        tree = ast.parse(
            "import a.b\nif x:\n    from c import d\nclass E:\n    import f\n    def g(self):\n        import h\n"
            "async def i():\n    import j\n"
        )
        self.assertEqual(set(top_level_imports(tree)), {"a.b", "c.d", "f"})

    def test_relative_imports(self) -> None:
        """Inside the package, imports are relative: a renamed or vendored copy never imports another one's modules."""
        guilty = [
            f"{path}:{node.lineno}"
            for path, tree in package_modules().items()
            for node in ast.walk(tree)
            if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("twistedudp"))
            or (isinstance(node, ast.Import) and any(alias.name.startswith("twistedudp") for alias in node.names))
        ]
        guilty += [
            f"{path}:{number}"
            for path, lines in cython_sources(".pyx", ".pxd", ".pyi").items()
            for number, line in enumerate(lines, 1)
            if re.match(r"\s*(from|import|cimport)\s+twistedudp\b", line)
        ]
        self.assertEqual(guilty, [])
