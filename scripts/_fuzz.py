"""Run the fuzzer on the targets in fuzz/, read its figures, and say what it found.

Theory of operation: libFuzzer cannot be left and entered again, so each target has a process of its own, ``python fuzz
TARGET``, whose words are read line by line: executions, edges of the bytecode reached, inputs in the corpus. What it
finds it writes into a temporary folder, an input that breaks the invariant as ``crash-...``, new inputs that reach
something beside it. A short run has a fixed seed, a fixed number of executions and a fixed hash seed, so it is the same
each time. The long run's new inputs are merged into the committed corpus: only those which reach what it does not.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

ROOT: Final = Path(__file__).resolve().parent.parent

MIN_EXECUTIONS: Final = 10_000
"""Executions under which a short run has failed: then something is too slow to be found."""
SHORT_SECONDS: Final = 120
"""Seconds after which a short run ends however few executions it had; it takes less than five."""
SHORT_SEED: Final = 20_261_122

_PROGRESS_SECONDS: Final = 5.0
_ONE_INPUT_SECONDS: Final = 10  # no input takes a hundredth of it
_SHORTEN_SECONDS: Final = 10.0
_MEMORY_MB: Final = 1024
_TAIL: Final = 60  # lines of the fuzzer's own words that are kept, to show them if it failed

_STATUS: Final = re.compile(r"#(\d+)\s+(\w+)\s+cov: (\d+) ft: (\d+) corp: (\d+)/")
_EXECUTED: Final = re.compile(r"stat::number_of_executed_units: (\d+)")
_NOISE: Final = ("INFO: ", "WARNING: Failed to find function")
_FINDINGS: Final = ("crash-", "timeout-", "oom-", "leak-")


class FuzzingNotPossible(Exception):
    """There is no fuzzer here, or an input cannot be read; the text says what to do."""


@dataclass
class Outcome:
    """What became of one run of the fuzzer."""

    executions: int = 0
    edges: int = 0
    inputs: int = 0
    finding: bytes | None = None
    """The input that breaks the invariant."""
    kind: str = ""
    """How: ``crash``, ``timeout`` or ``oom``."""
    words: list[str] = field(default_factory=list)
    """The last lines that the process wrote."""
    status: int = 0
    interrupted: bool = False

    def read(self, line: str) -> None:
        """Take the figures of one line."""
        if status := _STATUS.match(line):
            self.executions = int(status[1])
            self.edges = int(status[3])
            self.inputs = int(status[5])
        elif executed := _EXECUTED.match(line):
            self.executions = int(executed[1])
        if not status and not line.startswith(_NOISE):
            self.words = [*self.words[1 - _TAIL :], line]


def run(options: argparse.Namespace) -> int:
    """Do what the options of scripts/fuzz ask for, and return the exit status."""
    if options.replay is not None:
        return replay(options.target, options.replay)
    if importlib.util.find_spec("atheris") is None:
        raise FuzzingNotPossible(
            "this Python has no atheris: pip install 'twistedudp[fuzz]', where there is a wheel of it"
        )
    if options.minimise:
        return max([minimise(target, options.corpus) for target in options.targets])
    if options.short:
        return max([short_run(target, options.corpus) for target in options.targets])
    return max([long_run(target, options.corpus, options.seconds) for target in options.targets])


def short_run(target: str, corpora: Path) -> int:
    """Run one target for a fixed number of executions, print its figures, and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="twistedudp-fuzz-") as folder:
        started = time.monotonic()
        runs = [f"-runs={_target(target).short_executions}", f"-seed={SHORT_SEED}", f"-max_total_time={SHORT_SECONDS}"]
        outcome = _fuzz(target, corpora, Path(folder), runs)
    if outcome.interrupted:
        raise KeyboardInterrupt
    print(f"{_figures(target, outcome)}, {time.monotonic() - started:.1f} s", flush=True)
    if _report(target, outcome):
        return 1
    if outcome.executions < MIN_EXECUTIONS:
        print(f"{target}: only {outcome.executions:,} executions, at least {MIN_EXECUTIONS:,} are demanded")
        return 1
    return 0


def long_run(target: str, corpora: Path, seconds: int) -> int:
    """Run one target for some seconds, show progress, keep new inputs, and return the exit status."""
    print(f"{target}: {_target(target).invariant}", flush=True)
    with tempfile.TemporaryDirectory(prefix="twistedudp-fuzz-") as folder:
        started = time.monotonic()
        shown = started

        def show(outcome: Outcome) -> None:
            nonlocal shown
            if time.monotonic() - shown >= _PROGRESS_SECONDS:
                shown = time.monotonic()
                print(f"{shown - started:6.0f} s  {_figures(target, outcome)}", flush=True)

        outcome = _fuzz(target, corpora, Path(folder), [f"-max_total_time={seconds}"], show)
        print(f"{time.monotonic() - started:6.0f} s  {_figures(target, outcome)}", flush=True)
        found = _report(target, outcome)
        kept = _merge(target, corpora / target, [Path(folder) / "new"])
    print(f"{target}: {kept} new inputs kept in {corpora / target}", flush=True)
    if outcome.interrupted:
        raise KeyboardInterrupt
    return int(found)


def minimise(target: str, corpora: Path) -> int:
    """Rebuild the corpus of a target from its seeds and itself: the fewest inputs that reach what all of them reach."""
    corpus = corpora / target
    corpus.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="twistedudp-fuzz-") as folder:
        few = Path(folder) / "few"
        _merge(target, few, [corpus, _write_seeds(target, Path(folder))])
        before = len(list(corpus.iterdir()))
        for path in corpus.iterdir():
            path.unlink()
        shutil.copytree(few, corpus, dirs_exist_ok=True)
    print(f"{target}: {before} inputs became {len(list(corpus.iterdir()))}", flush=True)
    return 0


def replay(target: str, given: str) -> int:
    """Play one input without the fuzzer, tell what it means, and return the exit status."""
    try:
        data = Path(given).read_bytes() if Path(given).is_file() else bytes.fromhex(given)
    except (ValueError, OSError) as error:
        raise FuzzingNotPossible(
            f"{given[:80]!r} is neither a file that can be read nor bytes in hexadecimal"
        ) from error
    chosen = _target(target)
    try:
        chosen.play(data, aloud)
    except Exception:  # noqa: BLE001  # whatever it raises is what the developer wants to see
        traceback.print_exc()
        sys.stdout.flush()
        print(f"{target} is broken by this input: {chosen.invariant}")
        return 1
    print(f"{target} holds: {chosen.invariant}")
    return 0


def aloud(text: str, *values: object) -> None:
    """Print a line of what an input means."""
    print(text % tuple(value.hex() or "nothing" if isinstance(value, bytes) else value for value in values))


def _fuzz(
    target: str, corpora: Path, folder: Path, options: list[str], show: Callable[[Outcome], None] | None = None
) -> Outcome:
    """Run the fuzzer until it ends, on the seeds and the corpus; what is new goes to ``folder/new``."""
    chosen = _target(target)
    new = folder / "new"
    new.mkdir()
    (corpora / target).mkdir(exist_ok=True)
    if chosen.words:
        (folder / "words").write_text("".join(f'"{_escaped(word.encode())}"\n' for word in chosen.words))
        options = [f"-dict={folder / 'words'}", *options]
    return _run(
        target,
        [
            f"-max_len={chosen.max_size}",
            f"-artifact_prefix={folder}/",
            f"-timeout={_ONE_INPUT_SECONDS}",
            f"-rss_limit_mb={_MEMORY_MB}",
            "-print_final_stats=1",
            *options,
            str(new),
            str(corpora / target),
            str(_write_seeds(target, folder)),
        ],
        folder,
        show,
    )


def _run(target: str, options: list[str], folder: Path, show: Callable[[Outcome], None] | None = None) -> Outcome:
    outcome = Outcome()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "fuzz"), target, *options],
        cwd=folder,
        env=_variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None  # noqa: S101  # a pipe was asked for
    try:
        for line in process.stdout:
            outcome.read(line.rstrip("\n"))
            if show is not None:
                show(outcome)
        outcome.status = process.wait()
    except KeyboardInterrupt:
        # A terminal sends it to the fuzzer as well; what was new until then is kept.
        process.send_signal(signal.SIGINT)
        process.wait()
        outcome.interrupted = True
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
    for path in folder.iterdir():
        if path.name.startswith(_FINDINGS):
            outcome.finding, outcome.kind = path.read_bytes(), path.name.partition("-")[0]
    return outcome


def _variables() -> dict[str, str]:
    """Return the environment of the fuzzer, without coverage: two that trace would be in each other's way."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "COV_"))}
    return {**variables, "PYTHONHASHSEED": "0"}


def _merge(target: str, into: Path, sources: Iterable[Path]) -> int:
    """Copy the inputs that reach what those of ``into`` do not, and return how many these were."""
    into.mkdir(exist_ok=True)
    before = len(list(into.iterdir()))
    with tempfile.TemporaryDirectory(prefix="twistedudp-fuzz-") as folder:
        # Without counters: how often an edge is passed would keep five times as many.
        options = ["-merge=1", "-use_counters=0", f"-max_len={_target(target).max_size}", str(into), *map(str, sources)]
        outcome = _run(target, options, Path(folder))
    if outcome.interrupted:
        raise KeyboardInterrupt
    if outcome.status:
        raise FuzzingNotPossible("\n".join(["the merge failed:", *outcome.words]))
    return len(list(into.iterdir())) - before


def _write_seeds(target: str, folder: Path) -> Path:
    seeds = folder / "seeds"
    seeds.mkdir(exist_ok=True)
    for number, seed in enumerate(_target(target).seeds()):
        (seeds / f"{number:03}").write_bytes(seed)
    return seeds


@functools.cache
def _targets() -> dict[str, Any]:
    # Behind site-packages, so that the installed twistedudp is what is fuzzed.
    sys.path.append(str(ROOT))
    targets: Any = importlib.import_module("fuzz.targets")
    targets.stop_buffering_logs()
    if bug := os.environ.get("TWISTEDUDP_FUZZ_PLANT"):
        # As in the fuzzer's process, so that what it finds can be shortened and replayed.
        importlib.import_module("fuzz.planted").plant(bug)
    table: dict[str, Any] = targets.TARGETS
    return table


def _target(name: str) -> Any:
    return _targets()[name]


def _escaped(word: bytes) -> str:
    return "".join(chr(byte) if byte < 0x80 and chr(byte).isalnum() else f"\\x{byte:02x}" for byte in word)


def _figures(target: str, outcome: Outcome) -> str:
    return f"{target}: {outcome.executions:,} executions, {outcome.edges:,} edges, {outcome.inputs:,} inputs"


def _report(target: str, outcome: Outcome) -> bool:
    """Print what was found, if anything was."""
    if outcome.finding is None and (outcome.interrupted or not outcome.status):
        return False
    print("\n".join(_traceback(outcome.words)))
    if outcome.finding is None:
        print(f"{target}: the fuzzer ended with status {outcome.status}")
        return True
    finding = _shortened(target, outcome.finding) if outcome.kind == "crash" else outcome.finding
    shown = finding.hex() or "''"
    print(f"{target} is broken ({outcome.kind}) by {len(finding):,} bytes: {shown}")
    print(f"replay it by: scripts/fuzz {target} --replay {shown}", flush=True)
    return True


def _shortened(target: str, data: bytes) -> bytes:
    """Leave out of an input what it does not need to break the invariant in the same way."""
    play = _target(target).play
    kind = _raised(play, data)
    if kind is None:  # it depends on something that this process has not
        return data
    size = len(data)
    ends = time.monotonic() + _SHORTEN_SECONDS
    while size := size // 2:
        position = 0
        while position < len(data) and time.monotonic() < ends:
            shorter = data[:position] + data[position + size :]
            if _raised(play, shorter) is kind:
                data = shorter
            else:
                position += size
    return data


def _raised(play: Callable[[bytes], None], data: bytes) -> type[Exception] | None:
    try:
        play(data)
    except Exception as error:  # noqa: BLE001  # what it raises is the question
        return type(error)
    return None


def _traceback(words: list[str]) -> list[str]:
    """Return the part of the fuzzer's words that tells of the exception, or all where there is none."""
    starts = [number for number, line in enumerate(words) if "Uncaught Python exception" in line]
    if not starts:
        return words
    rest = words[starts[0] + 1 :]
    return rest[: next((number for number, line in enumerate(rest) if line.startswith("==")), len(rest))]
