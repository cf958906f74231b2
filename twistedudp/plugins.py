"""Protocols as plugins: what a plugin file holds, how the installed ones are found, and how a target becomes an object.

Theory of operation: a plugin *file* is a module in ``twisted/plugins`` on the import path (Twisted's own place for
plugins). It is imported while options are parsed, perhaps as root, so it must be trusted and light: it holds
:class:`DatagramPlugin` values, which name their code as text. The *target* of the chosen plugin alone is imported,
by :func:`load_target`, and called, by :func:`construct`; the server does both after ``--uid`` took effect.

Twisted's ``getPlugins`` is not used for the search, because it can tell neither which file an object came from nor
which file failed to import: it logs a nameless traceback for each. The files are the same and so are the rules, also
those of ``dropin.cache``, which is read here and never written: a file that it knows to hold nothing of ours is not
imported, so that somebody else's heavy plugin does not slow the start.
"""

from __future__ import annotations

import importlib
import inspect
import keyword
import pickle
import re
import sys
import traceback
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, get_type_hints

import twisted
from twisted.plugin import IPlugin
from twisted.python.modules import getModule
from zope.interface import implementer

from .errors import LocalError, PluginError
from .interfaces import IDatagramPlugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from twisted.python.filepath import FilePath
    from twisted.python.modules import PythonModule

__all__ = [
    "BrokenPluginFile",
    "DatagramPlugin",
    "InstalledPlugin",
    "InstalledPlugins",
    "construct",
    "installed_plugins",
    "load_target",
    "nearest",
    "own_traceback",
]

_PACKAGE = "twisted.plugins"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@implementer(IPlugin, IDatagramPlugin)
class DatagramPlugin:
    """A protocol that ``twistd udpecho --protocol NAME`` can serve; put one into a file in ``twisted/plugins``.

    Attributes:
        name: The name that users type; letters, digits, ``.``, ``_`` and ``-``, unique among the installed plugins.
        target: ``"module:Class"``, a ``DatagramProtocol`` or an ``RPCMethods``, or a callable that returns one;
            imported only when chosen, and after ``--uid`` took effect. Its parameters are the protocol's options.
        description: One line that ``--list-protocols`` shows.
        amplifies: Whether it may send a peer more than three times the bytes that came from there, so that ``--public``
            refuses it in plaintext; ``None`` leaves the answer to an attribute of that name of the protocol.

    Raises:
        PluginError: An argument is none of these.
    """

    def __init__(self, name: str, target: str, description: str, *, amplifies: bool | None = None) -> None:
        if not _is_text(name) or not _NAME.fullmatch(name):
            raise PluginError(str(name), f"{name!r} is no plugin name: use letters, digits, '.', '_' and '-'")
        if not _is_text(target):
            raise PluginError(name, f"plugin {name!r}: the target must be the text 'module:Class', not {target!r}")
        _split_target(target, f"plugin {name!r}", name)
        if not _is_text(description) or not description.strip() or not description.isprintable():
            raise PluginError(name, f"plugin {name!r}: the description must be one line of text, not {description!r}")
        self.name = name
        self.target = target
        if amplifies not in (None, True, False):
            raise PluginError(name, f"plugin {name!r}: amplifies must be True, False or None, not {amplifies!r}")
        self.description = description
        self.amplifies = amplifies

    def __repr__(self) -> str:
        return f"DatagramPlugin({self.name!r}, {self.target!r}, {self.description!r})"


def _is_text(value: object) -> bool:
    """Tell whether a value is text: plugin files are rarely type-checked."""
    return isinstance(value, str)


@dataclass(frozen=True)
class InstalledPlugin:
    """A plugin that was found, and the file that holds it."""

    plugin: IDatagramPlugin
    file: str


@dataclass(frozen=True)
class BrokenPluginFile:
    """A plugin file that raised when it was imported; the plugins that it may hold are not offered."""

    file: str
    error: BaseException

    @property
    def reason(self) -> str:
        """The error in one line."""
        return describe_exception(self.error)

    @property
    def traceback(self) -> str:
        """The error's traceback from the file's own frame on."""
        return own_traceback(self.error)


@dataclass(frozen=True)
class InstalledPlugins:
    """Everything that one search found.

    Attributes:
        found: The plugins, sorted by name; two of one name are both here.
        broken: The files that could not be imported.
    """

    found: tuple[InstalledPlugin, ...]
    broken: tuple[BrokenPluginFile, ...] = ()

    def named(self, name: str) -> InstalledPlugin:
        """Return the one plugin of a name.

        Raises:
            PluginError: There is none (the text lists the known ones, the nearest, and the broken files) or more
                than one (the text names the files).
        """
        matching = [installed for installed in self.found if installed.plugin.name == name]
        if len(matching) == 1:
            return matching[0]
        if matching:
            files = " and ".join(installed.file for installed in matching)
            raise PluginError(name, f"{len(matching)} plugins have the name {name!r}: {files}; remove or rename one")
        known = sorted({installed.plugin.name for installed in self.found})
        text = f"there is no protocol {name!r}{nearest(name, known)}; installed: {', '.join(known) or 'none'}"
        for broken in self.broken:
            text += f"; {broken.file} could not be imported: {broken.reason}"
        raise PluginError(name, text)


def installed_plugins() -> InstalledPlugins:
    """Search ``twisted/plugins`` on the import path; one file that cannot be imported disturbs no other."""
    found: list[InstalledPlugin] = []
    broken: list[BrokenPluginFile] = []
    known_to_be_others: dict[FilePath[str], frozenset[str]] = {}
    for module in getModule(_PACKAGE).iterModules():  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        directory = module.filePath.parent()
        if directory not in known_to_be_others:
            known_to_be_others[directory] = _cached_as_others(directory)
        if module.name in known_to_be_others[directory]:
            continue
        try:
            values = _import_plugin_file(module)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever a file of somebody else raises is reported
            broken.append(BrokenPluginFile(module.filePath.path, error))
        else:
            found.extend(
                InstalledPlugin(value, module.filePath.path)
                for value in values
                if IPlugin.providedBy(value) and IDatagramPlugin.providedBy(value)
            )
    found.sort(key=lambda installed: (installed.plugin.name, installed.file))
    return InstalledPlugins(tuple(found), tuple(broken))


def _import_plugin_file(module: PythonModule) -> list[IDatagramPlugin]:
    return list(vars(module.load()).values())  # type: ignore[no-untyped-call]  # Twisted has no annotation here


def _cached_as_others(directory: FilePath[str]) -> frozenset[str]:
    """Return the modules of a directory that Twisted's plugin cache, where it is fresh, says hold nothing of ours."""
    cache_file = directory.child("dropin.cache")
    try:
        written = cache_file.getModificationTime()
        with cache_file.open("r") as file:
            cache = pickle.load(file)  # noqa: S301  # twistd loads this very file before it calls us
        return frozenset(
            dropin.moduleName
            for name, dropin in cache.items()
            if directory.child(f"{name}.py").getModificationTime() < written
            and not any(
                interface.isOrExtends(IDatagramPlugin) for plugin in dropin.plugins for interface in plugin.provided
            )
        )
    except Exception:  # noqa: BLE001  # a cache that is absent, unreadable or foreign only costs time
        return frozenset()


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known name that is most like the given one, or nothing."""
    matches = get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def describe_exception(error: BaseException) -> str:
    """Return an exception in one line: its type and text."""
    return " ".join("".join(traceback.format_exception_only(type(error), error)[-1:]).split())


def own_traceback(error: BaseException) -> str:
    """Return an exception's traceback without the frames that led into the plugin's code: ours and the importer's."""
    frames = error.__traceback__
    while frames is not None and _leads_in(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    if frames is None and not isinstance(error, SyntaxError):  # all of it is ours: then that is what must be seen
        frames = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, frames))


def _leads_in(file: str) -> bool:
    if file.startswith("<frozen importlib") or file == importlib.__file__:
        return True
    directory = Path(file).parent
    own, twisteds = Path(__file__).parent, Path(twisted.__file__).parent
    return own in (directory, *directory.parents) or (
        twisteds in (directory, *directory.parents) and directory != twisteds / "plugins"
    )


def load_target(target: str, wanted_by: str, name: str = "") -> Callable[..., object]:
    """Import the module of a target and return its class.

    Args:
        target: ``"module:Class"``.
        wanted_by: Who asks, as error texts begin: ``"protocol 'chat'"``.
        name: The plugin's name, for the error's attribute.

    Raises:
        PluginError: The target cannot be had. Where the module's own code raised, its exception is the cause.
    """
    module_name, attribute = _split_target(target, wanted_by, name)
    value = _import_target_module(module_name, wanted_by, name)
    path = ""
    for part in attribute.split("."):
        if not hasattr(value, part):
            owner = f"module {module_name!r}" if not path else f"{module_name}:{path}"
            known = [known for known in vars(value) if not known.startswith("_")] if hasattr(value, "__dict__") else []
            raise PluginError(name, f"{wanted_by}: {owner} has no {part!r}{nearest(part, known)}")
        value = getattr(value, part)
        path = f"{path}.{part}" if path else part
    if not callable(value):
        raise PluginError(name, f"{wanted_by}: {target} is not a class but {type(value).__name__}")
    return value


def _split_target(target: str, wanted_by: str, name: str = "") -> tuple[str, str]:
    module_name, _, attribute = target.partition(":")
    if not (_DOTTED.fullmatch(module_name) and _DOTTED.fullmatch(attribute)):
        raise PluginError(name, f"{wanted_by}: the target {target!r} is not of the form 'module:Class'")
    return module_name, attribute


def _import_target_module(module_name: str, wanted_by: str, name: str) -> object:
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            raise PluginError(
                name,
                f"{wanted_by}: there is no module {module_name!r}; "
                "install its package or put its directory on PYTHONPATH",
            ) from None
        raise PluginError(
            name, f"{wanted_by}: its module {module_name} failed when it was imported: {describe_exception(error)}"
        ) from error


def construct(target: Callable[..., object], options: Mapping[str, str], wanted_by: str, name: str = "") -> object:
    """Call a target with options that were given as text.

    Each value is converted to the annotation of the parameter of its name (``"8"`` for ``int``, ``"true"`` for
    ``bool``); a parameter without annotation gets the text. A name that is a Python keyword is that of the
    parameter with an underscore behind it (``class`` is ``class_``). Parameters whose annotation cannot be evaluated,
    such as one imported for type checkers only, are not options.

    Args:
        target: The class, or another callable.
        options: Names and values.
        wanted_by: Who asks, as error texts begin: ``"protocol 'chat'"``.
        name: The plugin's name, for the error's attribute.

    Raises:
        PluginError: An option is unknown, missing, or of a wrong value; or the target itself raised, and then its
            exception is the cause.
    """
    arguments = _arguments(target, options, wanted_by, name)
    try:
        return target(**arguments)
    except PluginError:
        raise
    except LocalError as error:  # it says by itself what is wrong, such as a method that cannot be served
        raise PluginError(name, f"{wanted_by}: {error}") from None
    except (Exception, SystemExit) as error:
        raise PluginError(name, f"{wanted_by} could not be constructed: {describe_exception(error)}") from error


def _arguments(
    target: Callable[..., object], options: Mapping[str, str], wanted_by: str, name: str
) -> dict[str, object]:
    """Return the keyword arguments that options given as text stand for."""
    accepted, takes_any = _accepted_options(target)
    arguments: dict[str, object] = {}
    for key, text in options.items():
        parameter = accepted.get(key)
        if parameter is not None:
            value = _converted(text, parameter.annotation, f"{wanted_by}: the option {key}={text!r}", name)
            arguments[parameter.name] = value
        elif takes_any:
            arguments[key] = text
        else:
            takes = f"it takes {', '.join(accepted)}" if accepted else "it takes none"
            raise PluginError(name, f"{wanted_by} takes no option {key!r}{nearest(key, accepted)}: {takes}")
    missing = [
        key
        for key, parameter in accepted.items()
        if parameter.default is parameter.empty and parameter.name not in arguments
    ]
    if missing:
        raise PluginError(name, f"{wanted_by} cannot do without the option {missing[0]!r}: give {missing[0]}=VALUE")
    return arguments


def _accepted_options(target: Callable[..., object]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the parameters that can be given as options, by option name, and whether any other name goes too."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # a callable written in C: it tells nothing
        return {}, False
    accepted = {}
    takes_any = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_any = True
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            evaluated, annotation = _evaluated(parameter.annotation, target)
            if evaluated:
                bare = parameter.name.removesuffix("_")
                key = bare if keyword.iskeyword(bare) else parameter.name
                accepted[key] = parameter.replace(annotation=annotation)
    return accepted, takes_any


def _evaluated(annotation: object, target: Callable[..., object]) -> tuple[bool, object]:
    if not isinstance(annotation, str):
        return True, annotation
    module = sys.modules.get(getattr(target, "__module__", ""))
    holder = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return True, get_type_hints(holder, vars(module) if module else {})["it"]
    except Exception:  # noqa: BLE001  # an annotation is arbitrary code, written for other readers
        return False, None


def _converted(text: str, annotation: object, what: str, name: str) -> object:
    if annotation in (inspect.Parameter.empty, str):
        return text
    import msgspec  # noqa: PLC0415  # 20 ms that a start without options need not spend

    try:
        return msgspec.convert(text, annotation, strict=False)
    except (msgspec.ValidationError, TypeError) as error:
        wanted = getattr(annotation, "__name__", None) or str(annotation)
        raise PluginError(name, f"{what} does not fit {wanted}: {error}") from None
