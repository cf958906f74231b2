"""What DTLS costs a server: echoes next to plain UDP's in the same run, and handshakes; a part of benchmarks/security.

Theory of operation: one process serves echo on two ports, plain and with DTLS; another asks. Told is the processor time
of the serving process for each echo and each handshake, by the scheduler's own account (/proc/PID/schedstat), so that
what the asking side costs does not count. Rounds of the kinds alternate. Both processes are this file, run with a role.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import defer, task
from twisted.internet.protocol import DatagramProtocol

from twistedudp import UDPServerService, listen
from twistedudp.echo import EchoProtocol

if TYPE_CHECKING:
    from _costs import Costs

    from twistedudp.address import Address

__all__ = ["measure"]

SIZE: Final = 100
"""Bytes of an echo."""
UNDER_WAY: Final = 32
"""Echoes at once."""

_LONGEST: Final = 120.0
"""Seconds after which a datagram was lost, or something else is wrong: nothing here asks again."""

_HERE: Final = Path(__file__).resolve()
_MAKE_CA: Final = _HERE.parent.parent / "scripts" / "make-test-ca"


def measure(quick: bool) -> Costs | str:
    """Measure, in rounds; return the table, or why there is none."""
    from _costs import Cost, Costs  # noqa: PLC0415  # of what runs this as a part; the roles have no use for it

    if not Path("/proc/self/schedstat").exists():
        return "the processor time of a process is told by Linux alone"
    try:
        import twistedudp.dtls  # noqa: F401, PLC0415  # to see whether it is there
    except ImportError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # DTLSUnavailable says in one line what is missing
        return str(error)
    rounds, echoes, handshakes = (1, 3_000, 100) if quick else (5, 30_000, 500)
    rows: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="twistedudp-bench-") as folder:
        certificates = str(Path(folder) / "certificates")
        subprocess.run(
            [sys.executable, str(_MAKE_CA), "--installed", certificates], check=True, stdout=subprocess.DEVNULL
        )
        with subprocess.Popen(
            [sys.executable, str(_HERE), "serve", certificates], stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None  # noqa: S101  # for mypy
            ports = server.stdout.readline().split()
            try:
                for _ in range(rounds):
                    for label, role, port, count in (
                        (("an echo", "plain"), "plain", ports[0], echoes),
                        (("an echo", "DTLS"), "dtls", ports[1], echoes),
                        (("a handshake", "DTLS"), "shake", ports[1], handshakes),
                    ):
                        before = _spent(server.pid)
                        command = [sys.executable, str(_HERE), role, certificates, port, str(count)]
                        subprocess.run(command, check=True, timeout=_LONGEST)
                        rows.setdefault(label, []).append((_spent(server.pid) - before) / count * 1e6)
            finally:
                server.terminate()
    note = f"Echoes of {SIZE} bytes, {UNDER_WAY} under way; a core makes a million divided by the figure in a second."
    columns = ("What", "Over", "us of the server's processor", "Limit")
    costs = [Cost(labels, values) for labels, values in rows.items()]
    return Costs("dtls", "DTLS, on the server's side", columns, costs, note, digits=1)


def _spent(pid: int) -> float:
    """Return the seconds that a process has run."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


class Asker(DatagramProtocol):
    """Keeps so many echoes under way until enough have come back.

    Args:
        count: How many.
        server: Whom to ask.
    """

    noisy = False

    def __init__(self, count: int, server: Address) -> None:
        self.done: defer.Deferred[None] = defer.Deferred()
        self._left = count
        self._to_send = count
        self._server = server
        self._payload = bytes(SIZE)

    def ask(self) -> None:
        """Send one more, if any is left to send."""
        if self._to_send and self.transport is not None:
            self._to_send -= 1
            self.transport.write(self._payload, self._server)

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Take one."""
        if len(datagram) != SIZE or addr != self._server:
            raise SystemExit("an echo is not what was sent")
        self._left -= 1
        if not self._left:
            self.done.callback(None)
        self.ask()


def _serve(reactor: Any, certificates: Path) -> defer.Deferred[None]:
    from twistedudp.dtls import DTLSContext  # noqa: PLC0415  # an extra, which not everybody has

    context = DTLSContext.server(certificates / "server.pem", certificates / "server-key.pem")
    services = [UDPServerService(reactor, 0, EchoProtocol(), dtls=dtls) for dtls in (None, context)]
    for service in services:
        service.startService()
    print(*(service.address[1] for service in services if service.address is not None), flush=True)
    return defer.Deferred()  # until SIGTERM


async def _ask(reactor: Any, role: str, certificates: Path, port: int, count: int) -> None:
    from twistedudp.dtls import DTLSClient, DTLSContext  # noqa: PLC0415  # likewise

    server = ("127.0.0.1", port)
    context = DTLSContext.client(ca=certificates / "ca.pem")
    if role == "shake":
        for _ in range(count):
            client = DTLSClient(reactor, server, server[0], context, DatagramProtocol())
            await client.open(30.0)
            await client.stopListening()
        return
    asker = Asker(count, server)
    if role == "plain":
        listen(reactor, 0, asker, "127.0.0.1")
    else:
        client = DTLSClient(reactor, server, server[0], context, asker)
        await client.open(30.0)
    for _ in range(UNDER_WAY):
        asker.ask()
    await asker.done


def main(role: str, certificates: str, port: str = "0", count: str = "0") -> None:
    """Play a role: ``serve``, or ``plain``, ``dtls`` or ``shake`` with a port and how many."""
    folder = Path(certificates)
    if role == "serve":
        task.react(_serve, (folder,))
    task.react(lambda reactor: defer.ensureDeferred(_ask(reactor, role, folder, int(port), int(count))))


if __name__ == "__main__":
    main(*sys.argv[1:])
