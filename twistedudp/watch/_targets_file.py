"""The file of targets: TOML, read at the start and again on SIGHUP.

Theory of operation: a table ``defaults`` with settings, and a table ``targets`` with one entry for each target: a text,
its address, or a table with ``address`` and settings of its own. Nothing of a file is used unless all of it is right;
what is wrong is told in one line that names the file, the key, and what to write.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from ._target import MAX_TARGETS, SettingError, checked_settings, checked_target, parse_target, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ._target import Settings, Target

__all__ = ["MAX_FILE_SIZE", "all_targets", "parse_targets", "read_targets"]

MAX_FILE_SIZE: Final = 4 * 1024 * 1024
"""Bytes: some 400 for each of as many targets as there may be. A wrong path may lead to anything."""

_EXAMPLE: Final = 'for example [targets] with the line web = "192.0.2.1:10000"'


def all_targets(texts: Sequence[str], path: Path | None, defaults: Settings) -> dict[str, Target]:
    """Return the targets of options and of a file by their names.

    Args:
        texts: Targets as options have them, ``NAME=HOST:PORT``.
        path: The file; None where there is none.
        defaults: Settings that hold where a target has none.

    Raises:
        SettingError: One of them is wrong, named twice, or there is none.
    """
    targets: dict[str, Target] = {}
    for text in texts:
        try:
            target = parse_target(text, defaults)
        except SettingError as error:
            raise SettingError(f"--target: {error}") from None
        if target.name in targets:
            raise SettingError(f"--target: {target.name!r} is given twice; each target has a name of its own")
        targets[target.name] = target
    if path is not None:
        for name, target in read_targets(path, defaults).items():
            if name in targets:
                raise SettingError(
                    f"{path}: targets.{shown(name)}: --target names one so already; give it another name"
                )
            targets[name] = target
    if not targets:
        raise SettingError("there is no target; write for example --target web=127.0.0.1:10000, or --targets FILE")
    if len(targets) > MAX_TARGETS:
        raise SettingError(f"there are {len(targets):,} targets; one process takes {MAX_TARGETS:,}, start another one")
    return targets


def read_targets(path: Path, defaults: Settings) -> dict[str, Target]:
    """Return the targets of a file by their names.

    Args:
        path: The file.
        defaults: Settings that hold where the file has none.

    Raises:
        SettingError: It cannot be read, or is wrong; the text names the file.
    """
    try:
        return parse_targets(_content(path).decode("utf-8"), defaults)
    except OSError as error:
        raise SettingError(f"{path}: {error.strerror or error}; name a file that this user can read") from None
    except UnicodeDecodeError as error:
        raise SettingError(f"{path}: byte {error.start} is not UTF-8; a TOML file is") from None
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from None


def _content(path: Path) -> bytes:
    if path.is_fifo():  # to open it again at SIGHUP would wait for somebody to write, and nothing be probed meanwhile
        raise SettingError("it is a pipe, which cannot be read again; name a regular file")
    with path.open("rb") as file:
        content = file.read(MAX_FILE_SIZE + 1)
    if len(content) > MAX_FILE_SIZE:
        raise SettingError(f"it has more than {MAX_FILE_SIZE:,} bytes; is it a file of targets?")
    return content


def parse_targets(text: str, defaults: Settings) -> dict[str, Target]:
    """Return the targets of a text in the file's format by their names.

    Args:
        text: The text.
        defaults: Settings that hold where the text has none.

    Raises:
        SettingError: It is wrong.
    """
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"it is not TOML: {error}") from None
    except ValueError as error:  # a number of more digits than Python reads (sys.set_int_max_str_digits)
        raise SettingError(f"it has a value that cannot be read: {error}") from None
    except RecursionError:
        raise SettingError("it is no file of targets: it nests too deeply") from None
    for key in content:
        if key not in ("defaults", "targets"):
            raise SettingError(f"{shown(key)}: there is no such key; the tables are [defaults] and [targets]")
    defaults = checked_settings(_table(content, "defaults"), defaults, where="defaults.")
    entries = _table(content, "targets")
    if not entries:
        raise SettingError(f"targets: there are none; write {_EXAMPLE}")
    return {name: _target(name, entry, defaults) for name, entry in entries.items()}


def _table(content: dict[str, Any], key: str) -> dict[str, Any]:
    table = content.get(key, {})
    if not isinstance(table, dict):
        raise SettingError(f"{key}: {table!r:.60} is not a table; write [{key}] with a line for each")
    return table


def _target(name: str, entry: object, defaults: Settings) -> Target:
    where = f"targets.{shown(name)}"
    if isinstance(entry, str):
        entry = {"address": entry}
    if not isinstance(entry, dict):
        raise SettingError(f'{where}: {entry!r:.60} is neither a text nor a table; write {shown(name)} = "HOST:PORT"')
    address = entry.get("address")
    if not isinstance(address, str):
        missing = "it is missing" if address is None else f"{address!r:.60} is not a text"
        raise SettingError(f'{where}.address: {missing}; write address = "HOST:PORT"')
    given = {key: value for key, value in entry.items() if key != "address"}
    settings = checked_settings(given, defaults, where=f"{where}.")
    try:
        return checked_target(name, address, settings)
    except SettingError as error:
        raise SettingError(f"{where}: {error}") from None
