"""pytest's part of running the tests in a directory outside of the checkout (see scripts/test)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Name tests as they are named in the checkout, and not from the empty directory where pytest was started."""
    config.invocation_params = dataclasses.replace(config.invocation_params, dir=config.rootpath)
