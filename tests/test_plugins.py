"""Plugins: what a file may hold, how files are found, and how a target becomes an object."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import twisted.plugins
from twisted.internet.protocol import DatagramProtocol
from twisted.plugin import IPlugin, getCache
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twistedudp import plugins
from twistedudp.errors import LocalError, PluginError
from twistedudp.interfaces import IDatagramPlugin
from twistedudp.plugins import DatagramPlugin, InstalledPlugins, construct, installed_plugins, load_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.interfaces import IReactorTime

GOOD = """
from twistedudp.plugins import DatagramPlugin
one = DatagramPlugin({name!r}, "module_of_{name}:Class", "The protocol {name}.")
"""

HEAVY = """
from zope.interface import implementer
from twisted.plugin import IPlugin

@implementer(IPlugin)
class Foreign:
    '''A plugin for somebody else.'''

foreign = Foreign()
"""


def temporary_directory(case: SynchronousTestCase) -> Path:
    """Return a directory that is gone after the test; ``mktemp`` would leave one where pytest runs."""
    directory = tempfile.TemporaryDirectory(prefix="twistedudp-test-")
    case.addCleanup(directory.cleanup)
    return Path(directory.name).resolve()


class DatagramPluginTests(SynchronousTestCase):
    """The value that a plugin file holds."""

    def test_provides(self) -> None:
        """It is found by Twisted and by us, and keeps what it was given."""
        plugin = DatagramPlugin("chat-2.0_x", "package.module:Outer.Class", "A room.")
        verifyObject(IDatagramPlugin, plugin)
        self.assertTrue(IPlugin.providedBy(plugin))
        self.assertEqual(
            (plugin.name, plugin.target, plugin.description), ("chat-2.0_x", "package.module:Outer.Class", "A room.")
        )
        self.assertEqual(repr(plugin), "DatagramPlugin('chat-2.0_x', 'package.module:Outer.Class', 'A room.')")

    def test_wrong_arguments(self) -> None:
        """What cannot be chosen, imported or shown is refused where it is written, by name."""
        bad: list[tuple[tuple[Any, Any, Any], str]] = [
            (("", "m:C", "d"), "plugin name"),
            (("a b", "m:C", "d"), "plugin name"),
            (("-n", "m:C", "d"), "plugin name"),
            ((7, "m:C", "d"), "plugin name"),
            (("x", "m", "d"), "'module:Class'"),
            (("x", "m.C", "d"), "'module:Class'"),
            (("x", ":C", "d"), "'module:Class'"),
            (("x", "m:C:D", "d"), "'module:Class'"),
            (("x", "m:1", "d"), "'module:Class'"),
            (("x", DatagramProtocol, "d"), "'module:Class'"),
            (("x", "m:C", ""), "description"),
            (("x", "m:C", "two\nlines"), "description"),
            (("x", "m:C", None), "description"),
        ]
        for arguments, expected in bad:
            error = self.assertRaises(PluginError, DatagramPlugin, *arguments)
            self.assertIn(expected, str(error))
            self.assertEqual(error.name, str(arguments[0]))


class SearchTestCase(SynchronousTestCase):
    """Plugin directories made by the test, instead of the installed ones."""

    def setUp(self) -> None:
        """Make two directories and let Twisted's plugin package consist of them."""
        self.first, self.second = temporary_directory(self), temporary_directory(self)
        self.patch(twisted.plugins, "__path__", [str(self.first), str(self.second)])
        known = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in set(sys.modules) - known])
        self.patch(sys, "dont_write_bytecode", True)

    def write(self, directory: Path, name: str, text: str) -> str:
        """Write a plugin file, as one that was written long ago, and return its path."""
        path = directory / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        os.utime(path, (1e9, 1e9))
        return str(path)

    def names(self, installed: InstalledPlugins) -> list[tuple[str, str]]:
        """Return names and files of what was found."""
        return [(found.plugin.name, found.file) for found in installed.found]


class SearchTests(SearchTestCase):
    """Finding plugins."""

    def test_found(self) -> None:
        """Plugins of all directories are found, sorted by name, with their files; nothing else is."""
        zeta = self.write(self.first, "zeta_plugin", GOOD.format(name="zeta"))
        alpha = self.write(self.second, "alpha_plugin", GOOD.format(name="alpha"))
        self.write(self.second, "foreign_plugin", HEAVY)
        installed = installed_plugins()
        self.assertEqual(self.names(installed), [("alpha", alpha), ("zeta", zeta)])
        self.assertEqual(installed.broken, ())
        self.assertEqual(installed.named("zeta").plugin.target, "module_of_zeta:Class")

    def test_target_is_not_imported(self) -> None:
        """Searching imports plugin files only, never a target."""
        self.write(self.first, "lazy_plugin", GOOD.format(name="lazy"))
        installed_plugins().named("lazy")
        self.assertNotIn("module_of_lazy", sys.modules)

    def test_broken_file(self) -> None:
        """Whatever a file raises is reported with the file and its own traceback, and the others are found."""
        good = self.write(self.second, "fine_plugin", GOOD.format(name="fine"))
        files = {
            "a_missing": "import no_such_module_anywhere\n",
            "b_syntax": "this is no python\n",
            "c_exit": "import sys\nsys.exit('leave')\n",
            "d_value": "from twistedudp.plugins import DatagramPlugin\nx = DatagramPlugin('x', 'nowhere', 'd')\n",
        }
        paths = [self.write(self.first, name, text) for name, text in files.items()]
        installed = installed_plugins()
        self.assertEqual(self.names(installed), [("fine", good)])
        self.assertEqual([broken.file for broken in installed.broken], paths)
        reasons = [broken.reason for broken in installed.broken]
        self.assertEqual(reasons[0], "ModuleNotFoundError: No module named 'no_such_module_anywhere'")
        self.assertIn("SyntaxError", reasons[1])
        self.assertEqual(reasons[2], "SystemExit: leave")
        self.assertIn("PluginError: plugin 'x': the target 'nowhere'", reasons[3])
        for broken in installed.broken:
            self.assertIn(f'File "{broken.file}", line', broken.traceback)
            self.assertNotIn("importlib", broken.traceback)

    def test_shadowed_file(self) -> None:
        """Of two files of one name the import system sees the first; so does the search."""
        first = self.write(self.first, "same_plugin", GOOD.format(name="here"))
        self.write(self.second, "same_plugin", GOOD.format(name="there"))
        self.assertEqual(self.names(installed_plugins()), [("here", first)])

    def test_cache_spares_imports(self) -> None:
        """A file that twistd's fresh cache knows to hold nothing of ours is not imported; ours always are."""
        self.write(self.first, "foreign_plugin", HEAVY)
        self.write(self.first, "mine_plugin", GOOD.format(name="mine"))
        getCache(twisted.plugins)  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        for name in ("foreign_plugin", "mine_plugin"):
            del sys.modules[f"twisted.plugins.{name}"]
        self.assertEqual([name for name, _ in self.names(installed_plugins())], ["mine"])
        self.assertNotIn("twisted.plugins.foreign_plugin", sys.modules)

    def test_stale_cache(self) -> None:
        """A file changed after the cache was written is looked at again."""
        path = self.write(self.first, "foreign_plugin", HEAVY)
        getCache(twisted.plugins)  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        del sys.modules["twisted.plugins.foreign_plugin"]
        Path(path).write_text(GOOD.format(name="changed"), encoding="utf-8")
        later = time.time() + 10
        os.utime(path, (later, later))
        self.assertEqual([name for name, _ in self.names(installed_plugins())], ["changed"])

    def test_unusable_cache(self) -> None:
        """A cache that is damaged, or of another shape, changes nothing."""
        self.write(self.first, "mine_plugin", GOOD.format(name="mine"))
        for content in (b"", b"no pickle", pickle.dumps({"mine_plugin": 7})):
            (self.first / "dropin.cache").write_bytes(content)
            self.assertEqual([name for name, _ in self.names(installed_plugins())], ["mine"])
            self.assertEqual((self.first / "dropin.cache").read_bytes(), content)


class NamedTests(SearchTestCase):
    """Choosing one."""

    def test_unknown(self) -> None:
        """An unknown name lists the known ones, the nearest, and the files that could not be imported."""
        for name in ("calculator", "chat"):
            self.write(self.first, f"{name}_plugin", GOOD.format(name=name))
        broken = self.write(self.first, "zz_broken", "1 / 0\n")
        error = self.assertRaises(PluginError, installed_plugins().named, "calcalator")
        self.assertEqual(
            str(error),
            "there is no protocol 'calcalator' (did you mean 'calculator'?); installed: calculator, chat; "
            f"{broken} could not be imported: ZeroDivisionError: division by zero",
        )
        self.assertEqual(error.name, "calcalator")
        error = self.assertRaises(PluginError, InstalledPlugins(()).named, "x")
        self.assertEqual(str(error), "there is no protocol 'x'; installed: none")

    def test_two_of_one_name(self) -> None:
        """Two plugins of one name are an error that names both files, and only for who asks for that name."""
        one, two = sorted(
            [
                self.write(self.first, "one_plugin", GOOD.format(name="twin")),
                self.write(self.second, "two_plugin", GOOD.format(name="twin")),
            ]
        )
        self.write(self.second, "three_plugin", GOOD.format(name="single"))
        installed = installed_plugins()
        error = self.assertRaises(PluginError, installed.named, "twin")
        self.assertEqual(str(error), f"2 plugins have the name 'twin': {one} and {two}; remove or rename one")
        self.assertEqual(installed.named("single").plugin.name, "single")


class Nested:
    """Holds a class, for targets with dots."""

    class Inner:
        """A target."""


class Target:
    """A target with options of several kinds."""

    def __init__(self, size: int, ratio: float = 0.5, fast: bool = False, name: str = "x", plain: Any = None) -> None:
        self.given = (size, ratio, fast, name, plain)


class Untyped:
    """A target without annotations, with a keyword as an option, and one that only type checkers understand."""

    def __init__(self, class_="c", keep_="k", *, clock: IReactorTime | None = None) -> None:  # type: ignore[no-untyped-def]  # the point of this class
        self.given = (class_, keep_, clock)


class TakesAll:
    """A target that takes any option, by name only."""

    def __init__(self, *_: object, size: int = 1, **rest: str) -> None:
        self.given = (size, rest)


class Failing:
    """A target whose code fails."""

    def __init__(self, how: str = "") -> None:
        if how == "exit":
            raise SystemExit(7)
        if how == "local":
            raise LocalError("this cannot be")
        if how == "plugin":
            raise PluginError("inner", "the inner one")
        raise ZeroDivisionError("no")


class LoadTargetTests(SynchronousTestCase):
    """From ``module:Class`` to the class."""

    def load(self, target: str) -> Any:
        """Load a target as the protocol 'p'."""
        return load_target(target, "protocol 'p'", "p")

    def refused(self, target: str) -> PluginError:
        """Load a target that cannot be had."""
        error: PluginError = self.assertRaises(PluginError, self.load, target)
        self.assertEqual(error.name, "p")
        self.assertNotIn("\n", str(error))
        return error

    def module(self, text: str) -> str:
        """Write a module and return its name."""
        name = f"target_{self.id().rpartition('.')[2]}"
        directory = temporary_directory(self)
        (directory / f"{name}.py").write_text(text, encoding="utf-8")
        self.patch(sys, "path", [str(directory), *sys.path])
        self.addCleanup(sys.modules.pop, name, None)
        return name

    def test_loaded(self) -> None:
        """A class is found, in a class too."""
        self.assertIs(self.load(f"{__name__}:Target"), Target)
        self.assertIs(self.load(f"{__name__}:Nested.Inner"), Nested.Inner)

    def test_no_module(self) -> None:
        """A module that is not there is told apart from one that fails, and is nobody's traceback."""
        for target in ("no_such_module:C", "no_such_module.sub:C", "twistedudp.no_such:C"):
            error = self.refused(target)
            self.assertIn(f"there is no module {target.partition(':')[0]!r}", str(error))
            self.assertIsNone(error.__cause__)

    def test_no_attribute(self) -> None:
        """A class that is not in its module: the nearest is named."""
        self.assertEqual(
            str(self.refused(f"{__name__}:Targett")),
            f"protocol 'p': module '{__name__}' has no 'Targett' (did you mean 'Target'?)",
        )
        self.assertIn(f"{__name__}:Nested has no 'Outer'", str(self.refused(f"{__name__}:Nested.Outer")))

    def test_not_callable(self) -> None:
        """A target that is no class or function."""
        self.assertIn("is not a class but str", str(self.refused(f"{__name__}:GOOD")))

    def test_not_a_target(self) -> None:
        """Text that names nothing, from a plugin that is not one of our own."""
        self.assertIn("is not of the form 'module:Class'", str(self.refused("nothing")))

    def test_module_fails(self) -> None:
        """The module's own exception is the cause, and its traceback starts in the module."""
        name = self.module("def explode():\n    return {}['key']\nexplode()\n")
        error = self.refused(f"{name}:C")
        self.assertIn(f"its module {name} failed when it was imported: KeyError: 'key'", str(error))
        self.assertIsInstance(error.__cause__, KeyError)
        text = plugins.own_traceback(error.__cause__ or error)
        self.assertEqual(text.count("  File "), 2)
        self.assertNotIn("importlib", text)

    def test_module_imports_what_is_not_there(self) -> None:
        """A missing module that the target's module wants is that module's failure."""
        name = self.module("import no_such_thing\n")
        error = self.refused(f"{name}:C")
        self.assertIn("No module named 'no_such_thing'", str(error))
        self.assertIsInstance(error.__cause__, ModuleNotFoundError)

    def test_module_exits(self) -> None:
        """A module that ends the process when it is imported does not."""
        name = self.module("raise SystemExit(3)\n")
        self.assertIn("SystemExit: 3", str(self.refused(f"{name}:C")))

    def test_own_traceback_of_own_fault(self) -> None:
        """An exception that was raised in our own code shows where."""
        error = self.assertRaises(PluginError, DatagramPlugin, "", "", "")
        text = plugins.own_traceback(error.with_traceback(None))
        self.assertNotIn("  File ", text)
        try:
            load_target("nothing", "x")
        except PluginError as caught:
            frames = caught.__traceback__
            assert frames is not None
            text = plugins.own_traceback(caught.with_traceback(frames.tb_next))
        self.assertIn("_split_target", text)


class ConstructTests(SynchronousTestCase):
    """From a class and options as text to an object."""

    def given(self, target: Any, options: Mapping[str, str]) -> Any:
        """Construct a target and return what it was given."""
        made: Any = construct(target, options, "protocol 'p'", "p")
        return made.given

    def refused(self, target: Any, options: Mapping[str, str]) -> PluginError:
        """Construct a target that cannot be."""
        error: PluginError = self.assertRaises(PluginError, construct, target, options, "protocol 'p'", "p")
        self.assertNotIn("\n", str(error))
        return error

    def test_converted(self) -> None:
        """Each text becomes what the annotation asks for; text stays text."""
        options = {"size": "8", "ratio": "1", "fast": "true", "name": "8", "plain": "9"}
        self.assertEqual(self.given(Target, options), (8, 1.0, True, "8", "9"))
        self.assertEqual(self.given(Target, {"size": "1"}), (1, 0.5, False, "x", None))

    def test_wrong_value(self) -> None:
        """A value that does not fit names the option, the value and what would fit."""
        error = self.refused(Target, {"size": "big"})
        self.assertIn("protocol 'p': the option size='big' does not fit int", str(error))
        self.assertIn("the option fast='7' does not fit bool", str(self.refused(Target, {"size": "1", "fast": "7"})))
        self.assertEqual((error.name, error.__cause__), ("p", None))

    def test_unknown(self) -> None:
        """An unknown option lists the accepted ones, and the nearest."""
        self.assertEqual(
            str(self.refused(Target, {"sise": "1"})),
            "protocol 'p' takes no option 'sise' (did you mean 'size'?): it takes size, ratio, fast, name, plain",
        )
        self.assertIn("it takes none", str(self.refused(DatagramProtocol, {"sise": "1"})))
        self.assertIn("it takes none", str(self.refused(type("T", (), {"__signature__": 7}), {"sise": "1"})))

    def test_missing(self) -> None:
        """An option without default must be given."""
        self.assertEqual(
            str(self.refused(Target, {"name": "n"})),
            "protocol 'p' cannot do without the option 'size': give size=VALUE",
        )

    def test_keyword(self) -> None:
        """The option ``class`` is the parameter ``class_``; an underscore behind any other name is part of it."""
        self.assertEqual(self.given(Untyped, {"class": "a", "keep_": "b"}), ("a", "b", None))
        self.assertIn("it takes class, keep_", str(self.refused(Untyped, {"class_": "a"})))

    def test_not_an_option(self) -> None:
        """A parameter whose annotation cannot be evaluated is none of the options."""
        self.assertIn("takes no option 'clock'", str(self.refused(Untyped, {"clock": "x"})))

    def test_takes_any(self) -> None:
        """A target with ``**`` gets what it does not name as text."""
        self.assertEqual(self.given(TakesAll, {"size": "2", "other": "3"}), (2, {"other": "3"}))

    def test_target_fails(self) -> None:
        """The target's own exception is the cause; an error of ours says by itself what is wrong."""
        error = self.refused(Failing, {})
        self.assertEqual(str(error), "protocol 'p' could not be constructed: ZeroDivisionError: no")
        self.assertIsInstance(error.__cause__, ZeroDivisionError)
        self.assertIsInstance(self.refused(Failing, {"how": "exit"}).__cause__, SystemExit)
        error = self.refused(Failing, {"how": "local"})
        self.assertEqual((str(error), error.__cause__), ("protocol 'p': this cannot be", None))
        self.assertEqual(self.refused(Failing, {"how": "plugin"}).name, "inner")
