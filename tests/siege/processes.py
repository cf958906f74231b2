"""What runs during a siege: forgers, honest clients, and a look at what servers take of the machine.

Theory of operation: each is a process of its own, ended by its own id, whose figures are one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from tests.integration.compiling import compiled
from tests.integration.twistd import environment
from tests.siege.payloads import as_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from typing_extensions import Self

    from tests.integration.netns import NetworkNamespace
    from tests.siege.payloads import Payload

__all__ = ["BadPeer", "Forgery", "HonestClients", "Usage", "Watched", "favour", "usage_of"]

PROGRAM: Final = Path(__file__).with_name("honest.py")
BAD_PEER: Final = Path(__file__).with_name("bad_peer.py")
_PATIENCE: Final = 60.0
_FAVOURED: Final = -10
"""The nice value of what takes part in a siege."""


def favour(pid: int) -> None:
    """Let a process that leads a session have processors before other programs, such as other tests.

    A siege is about a server on processors of its own; what else a machine is busy with is no attack. The kernel
    divides processors among sessions first (sched(7), "The autogroup feature"), if it is so configured.
    """
    os.setpriority(os.PRIO_PROCESS, pid, _FAVOURED)
    with suppress(OSError):  # it is not, or the process has ended
        Path(f"/proc/{pid}/autogroup").write_text(str(_FAVOURED), encoding="ascii")


class _Program:
    """A process in a namespace that prints one line of JSON when it is done; ended at the end of a ``with`` block."""

    def __init__(self, namespace: NetworkNamespace, command: Sequence[str]) -> None:
        with namespace.entered():
            self.process = subprocess.Popen(
                command,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        favour(self.process.pid)

    def figures(self, patience: float = _PATIENCE) -> dict[str, Any]:
        """Wait for the end and return the figures.

        Raises:
            AssertionError: It failed.
        """
        output, faults = self.process.communicate(timeout=patience)
        if self.process.returncode or faults:
            raise AssertionError(f"{self.process.args!r} ended with {self.process.returncode}:\n{output}\n{faults}")
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@final
class Forgery(_Program):
    """Datagrams with forged sources; see the head of ``forge.c``.

    Args:
        namespace: Where they are sent from; never the machine's own.
        target: Whereto; the port ``None`` means another one each time.
        payloads: What, in turn.
        sources: The network that the sources are of.
        count: How many sources.
        source_ports: Their ports in turn; none means another one each time.
        rate: Datagrams per second; 0 as many as possible.
        seconds: For how long; 0 until each source has sent once.
        seed: What the sources follow from.
    """

    def __init__(
        self,
        namespace: NetworkNamespace,
        target: tuple[str, int | None],
        payloads: Iterable[Payload],
        *,
        sources: str = "10.0.0.0/8",
        count: int = 1_000_000,
        source_ports: Sequence[int] = (),
        rate: float = 0,
        seconds: float = 0,
        seed: int = 1,
    ) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="twistedudp-test-")  # noqa: SIM115  # closed in __exit__
        self._file.write(as_file(payloads))
        self._file.flush()
        host, port = target
        super().__init__(
            namespace,
            [
                *(str(compiled("forge")), host, "any" if port is None else str(port), sources, str(count)),
                *(",".join(map(str, source_ports)) or "any", str(rate), str(seconds), str(seed), self._file.name),
            ],
        )

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._file.close()


@final
class HonestClients(_Program):
    """Clients that call at a rate; see the head of ``honest.py``.

    Args:
        namespace: Where they are.
        target: The server.
        kind: ``rpc``, ``idempotent``, ``large`` or ``echo``.
        rate: Calls per second.
        seconds: For how long.
        timeout: The seconds of each call.
        clients: How many clients take turns.
        dtls: The files of certificates and a key, by the names of a DTLSContext's arguments; none is plaintext.
        anew: Whether each call has a client of its own.

    Attributes:
        target: The server.
        ports: The clients' own ports, once :meth:`wait` has returned.
    """

    def __init__(
        self,
        namespace: NetworkNamespace,
        target: tuple[str, int],
        kind: str,
        *,
        rate: float,
        seconds: float,
        timeout: float = 2.0,
        clients: int = 1,
        dtls: Mapping[str, Path] | None = None,
        anew: bool = False,
    ) -> None:
        self.target = target
        self.ports: list[int] = []
        wanted = {"host": target[0], "port": target[1], "kind": kind, "rate": rate, "seconds": seconds}
        wanted |= {"timeout": timeout, "clients": clients, "anew": anew}
        if dtls is not None:
            wanted["dtls"] = {name: str(path) for name, path in dtls.items()}
        super().__init__(namespace, [sys.executable, str(PROGRAM), json.dumps(wanted)])

    def wait(self) -> None:
        """Wait until the first call of each client was answered or has failed."""
        assert self.process.stdout is not None
        word, *ports = self.process.stdout.readline().split() or [""]
        assert word == "begun", (word, self.process.communicate())
        self.ports = [int(port) for port in ports]


@final
class BadPeer(_Program):
    """Handshakes of DTLS that are begun and left; see the head of ``bad_peer.py``.

    Args:
        namespace: Where it is.
        target: The server.
        hello: A ClientHello without and one with a cookie, of 32 bytes.
        random_at: Where the random begins in both.
        sources: Its addresses, as a network; routes to all of them lead there.
        rate: Handshakes per second.
        seconds: For how long.
    """

    def __init__(
        self,
        namespace: NetworkNamespace,
        target: tuple[str, int],
        hello: tuple[bytes, bytes],
        random_at: int,
        *,
        sources: str,
        rate: float,
        seconds: float,
    ) -> None:
        namespace.run("ip", "route", "replace", "local", sources, "dev", "lo")
        wanted = {"host": target[0], "port": target[1], "sources": sources, "rate": rate, "seconds": seconds}
        wanted |= {"hello": [one.hex() for one in hello], "random_at": random_at}
        super().__init__(namespace, [sys.executable, str(BAD_PEER), json.dumps(wanted)])


@dataclass(frozen=True)
class Usage:
    """What a process has taken of the machine."""

    resident: int
    """Bytes."""
    processor: float
    """Seconds."""


def usage_of(pid: int) -> Usage:
    """Return what a process takes now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Usage(pages * os.sysconf("SC_PAGE_SIZE"), ticks / os.sysconf("SC_CLK_TCK"))


@final
class Watched:
    """Looks at processes twice a second, in a thread, until the end of the ``with`` block.

    Args:
        pids: The processes, by a name for each.

    Attributes:
        samples: What each took, in order.
    """

    INTERVAL: Final = 0.5

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._over = threading.Event()
        self.samples: dict[str, list[Usage]] = {name: [usage_of(pid)] for name, pid in pids.items()}
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def grown(self, name: str) -> int:
        """Return by how many bytes a process was larger than at first, at the most."""
        samples = self.samples[name]
        return max(sample.resident for sample in samples) - samples[0].resident

    def processor(self, name: str) -> float:
        """Return the seconds of processor time that a process has taken."""
        samples = self.samples[name]
        return samples[-1].processor - samples[0].processor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._take()

    def _look(self) -> None:
        while not self._over.wait(self.INTERVAL):
            self._take()

    def _take(self) -> None:
        for name, pid in self._pids.items():
            try:
                self.samples[name].append(usage_of(pid))
            except FileNotFoundError:  # noqa: PERF203  # it has died, which the siege's verdict tells
                continue
