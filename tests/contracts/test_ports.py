"""The contract of UDP ports, on every kind of port and reactor."""

from __future__ import annotations

import pytest

from tests.contracts.contract import SECTIONS, contract_case
from tests.contracts.providers import provider_classes

for _provider in provider_classes():
    for _section in SECTIONS:
        if _section.__name__ in _provider.lacks:
            continue
        _case = contract_case(_section, _provider)
        if "EPoll" not in _provider.name and _provider.name != "Simulated":  # pytest runs them on the other reactors
            _case = pytest.mark.heavy(_case)
        globals()[_case.__name__] = _case
del _provider, _section, _case
