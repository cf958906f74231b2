"""Where the checkout is, for the tests that look at its files and run its scripts."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import ModuleType

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "twistedudp"
SCRIPTS: Final = ROOT / "scripts"


def package_modules() -> dict[str, ast.Module]:
    """Return the syntax tree of each module of the package by its path below the checkout."""
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"), str(path))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def load_script(name: str) -> ModuleType:
    """Import a module of the scripts folder, which is no package and not on the path."""
    return load_module(f"scripts/{name}.py")


def load_module(path: str) -> ModuleType:
    """Import a module by its path below the checkout, for what is no package and not on the path."""
    full_name = "twistedudp_" + path.removesuffix(".py").replace("/", "")
    spec = importlib.util.spec_from_file_location(full_name, ROOT / path)
    if spec is None or spec.loader is None:
        raise AssertionError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for it.
    sys.modules[full_name] = module
    spec.loader.exec_module(module)
    return module
