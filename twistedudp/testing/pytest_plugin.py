"""The simulated network for pytest: the fixture ``simulated_network``, there wherever twistedudp is installed.

Theory of operation: pytest imports this module at its start in every environment that has twistedudp, so it imports
nothing but pytest; the network is imported when a test asks for the fixture. The report about a failed test is a
section of pytest's own, so it shows with ``-s``, with xdist and in JUnit files as pytest shows these. Test cases with
:class:`SimulatedNetworkMixin` are reported here as well, since they cannot see what pytest makes of them.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

import pytest

from ._outcome import SEED_VARIABLE, check_leftovers, chosen_seeds, report

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ._network import SimulatedNetwork

__all__ = ["simulated_network"]

_FIXTURE: Final = "simulated_network"
_OPTION: Final = "--twistedudp-seed"

_network_key: Final = pytest.StashKey["SimulatedNetwork"]()
_failed_key: Final = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that chooses the seeds."""
    parser.getgroup("twistedudp").addoption(
        _OPTION,
        metavar="SEED",
        help=f"the seed of the fixture {_FIXTURE}, or two such as 0-99 to run its tests with each between "
        f"(default: the environment variable {SEED_VARIABLE}, or 0)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker, and refuse a seed that is none."""
    config.addinivalue_line(
        "markers",
        f"{_FIXTURE}(leftovers=False, **options): let the test leave ports and delayed calls behind; "
        "arguments of SimulatedNetwork",
    )
    _seeds(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that use the fixture once for each seed, where several were chosen."""
    seeds = _seeds(metafunc.config)
    if seeds and len(seeds) > 1 and _FIXTURE in metafunc.fixturenames and "seed" not in _options(metafunc.definition):
        metafunc.parametrize(_FIXTURE, seeds, indirect=True, ids=map(_seed_id, seeds))


@pytest.fixture(name=_FIXTURE)
def simulated_network(request: pytest.FixtureRequest) -> Iterator[SimulatedNetwork]:
    """A network in a box; if the test fails, pytest shows its seed, what happened, and how to run it again.

    At the end no port may be bound and no delayed call pending. The marker ``simulated_network`` takes the arguments of
    ``SimulatedNetwork``, and ``leftovers=True`` where something shall be left.
    """
    from ._network import SimulatedNetwork  # noqa: PLC0415  # only where a test asks for it

    seeds = _seeds(request.config) or range(1)
    options = _options(request.node)
    if _seeds(request.config) or "seed=" not in str(options.get("effects", "")):  # whose seed holds if none was chosen
        options.setdefault("seed", getattr(request, "param", seeds[0]))
    leftovers_wanted = options.pop("leftovers", False)
    network = request.node.stash[_network_key] = SimulatedNetwork(**options)
    yield network
    if not leftovers_wanted and not request.node.stash.get(_failed_key, False):
        check_leftovers(network, f"mark it with @pytest.mark.{_FIXTURE}(leftovers=True)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the network's story to the report of a failed test."""
    outcome = yield
    mixed_in = getattr(getattr(item, "instance", None), "__dict__", {}).get("network")
    network = item.stash.get(_network_key, None) or (mixed_in if hasattr(mixed_in, "explain") else None)
    if outcome.failed and network is not None:
        item.stash[_failed_key] = True
        outcome.sections.append(("simulated network", report(network, _command(item, network.seed))))
    return outcome


def _seeds(config: pytest.Config) -> range | None:
    try:
        return chosen_seeds(config.getoption(_OPTION))
    except ValueError as error:
        raise pytest.UsageError(f"{_OPTION} or {SEED_VARIABLE}: {error}") from None


def _options(node: pytest.Item) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers(_FIXTURE))):
        if marker.args:
            given = ", ".join(map(repr, marker.args))
            pytest.fail(f"the marker {_FIXTURE} was given {given}; its arguments have names: effects='loss=5%'", False)
        options.update(marker.kwargs)
    return options


def _seed_id(seed: int) -> str:
    return f"seed{seed}"


def _command(item: pytest.Item, seed: int) -> str:
    # With one seed the test has none in its name.
    node, bracket, parameters = item.nodeid.partition("[")
    others = [part for part in parameters.removesuffix("]").split("-") if part != _seed_id(seed)]
    name = f"{node}[{'-'.join(others)}]" if bracket and any(others) else node
    option = "" if "seed" in _options(item) else f"{_OPTION}={seed} "
    return f"python -m pytest {option}{shlex.quote(name)}"
