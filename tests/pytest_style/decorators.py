"""pytest-twisted's decorators with annotations, which it does not have itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations

if TYPE_CHECKING:
    from collections.abc import Callable

_F = TypeVar("_F", bound="Callable[..., Any]")


def async_fixture(function: _F) -> _F:
    """Make an asynchronous generator a fixture."""
    return cast("_F", pytest_twisted.async_yield_fixture(function))


def coroutine_test(function: _F) -> _F:
    """Make a coroutine function a test."""
    return cast("_F", pytest_twisted.ensureDeferred(function))


def generator_test(function: _F) -> _F:
    """Make a generator of Deferreds a test."""
    return cast("_F", pytest_twisted.inlineCallbacks(function))
