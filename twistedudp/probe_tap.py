"""``twistd udpprobe``: the options, and the service that they describe.

Theory of operation: as in ``tap.py``, whatever can be found wrong is found while options are parsed: the targets and
their file, the command, the URL, an extra that is not installed, a port for metrics that is taken. Names of targets are
not looked up then: one that does not resolve is a finding, not a mistake. UDP ports are opened at the start, for nobody
cares which ones.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.python import usage

from ._options import ServiceOptions
from .address import is_group, is_ip

if TYPE_CHECKING:
    import socket

    from twisted.application.service import IService

    from .watch import Settings, Target

__all__ = ["Options", "makeService"]

_SETTINGS: Final = (
    "interval", "jitter", "timeout", "size", "protocol", "family", "window", "degraded-loss", "degraded-rtt",
    "down-after", "up-after",
)  # fmt: skip
_EXTRAS: Final = {"metrics": "prometheus_client", "webhook": "treq"}


class Options(ServiceOptions):
    """The options of ``twistd udpprobe``.

    Attributes:
        settings: What holds for targets without settings of their own.
        found: The targets, by name.
        command: The command of ``--on-change``, in words; empty without.
        metrics: The bound socket of ``--metrics``; None without.
    """

    command = "udpprobe"
    longdesc = (
        "Probes UDP servers, echo or rpc, and tells how they are: in the log, to a command or a webhook when that "
        "changes, and to Prometheus. SIGHUP reads the file of --targets again. Settings given here hold for targets "
        "without their own. An option of twistd itself, such as -n or --uid, stands before the word udpprobe."
    )
    optParameters = (
        ("targets", "f", None, "A TOML file of targets; see docs/udpprobe.md."),
        ("metrics", "m", None, "The TCP port on which Prometheus reads /metrics; 0 picks a free one."),
        ("metrics-interface", None, "127.0.0.1", "The address of that port; 0.0.0.0 all of IPv4, :: all of both."),
        ("on-change", None, None, "A command to run when a target's state changes; UDPPROBE_... in its environment."),
        ("webhook", None, None, "A URL to which each change is posted as JSON."),
        ("interval", "i", None, "Seconds between two probes of a target. [default: 1.0]"),
        ("jitter", None, None, "The share of the interval by which a probe is put off at random. [default: 0.1]"),
        ("timeout", "t", None, "Seconds after which a probe is lost. [default: 2.0]"),
        ("size", "s", None, "Bytes of a probe. [default: 64]"),
        ("protocol", None, None, "What counts as an answer: echo, rpc, or auto for either. [default: auto]"),
        ("family", None, None, "Which addresses of a name are taken: ipv4, ipv6 or any. [default: any]"),
        ("window", None, None, "The number of last probes that figures are of. [default: 300]"),
        ("degraded-loss", None, None, "The share of them whose loss makes a target degraded. [default: 0.05]"),
        ("degraded-rtt", None, None, "Seconds; one answer in ten that takes longer makes a target degraded."),
        ("down-after", None, None, "Probes lost in a row that make a target down. [default: 5]"),
        ("up-after", None, None, "Answers in a row that end that. [default: 3]"),
    )

    settings: Settings
    found: dict[str, Target]
    metrics: socket.socket | None = None

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._targets: list[str] = []

    def opt_target(self, text: str) -> None:
        """A server to probe, as NAME=HOST:PORT; may be given several times."""
        self._targets.append(text)

    def postOptions(self) -> None:
        """Check every value, read the targets, and bind the port of the metrics.

        Raises:
            UsageError: A value is wrong.
            LocalError: A target or the file of targets is, or the port cannot be had.
        """
        for option, package in _EXTRAS.items():
            if self[option] is not None and find_spec(package) is None:
                raise usage.UsageError(
                    f"--{option} needs the package {package}, which is not installed: pip install 'twistedudp[probe]'"
                )
        from . import watch  # noqa: PLC0415  # --help needs none

        given = {name.replace("-", "_"): self[name] for name in _SETTINGS if self[name] is not None}
        self.settings = watch.checked_settings(given, watch.Settings(), option=True)
        if self["targets"] is not None:
            self["targets"] = Path(self["targets"]).absolute()  # a daemon may change its directory
        self.found = self.read_targets()
        if self["on-change"] is not None:
            self.words = watch.parse_command(self["on-change"])
        if self["webhook"] is not None:
            self["webhook"] = watch.checked_url(self["webhook"])
        self._check_metrics_interface()
        if self["metrics"] is not None:
            self["metrics"] = self.whole_number("metrics", 0, 65535)
            self.metrics = watch.bind_metrics_port(self["metrics"], self["metrics-interface"])

    def read_targets(self) -> dict[str, Target]:
        """Return the targets of the options and of the file, which is read now, by their names.

        Raises:
            SettingError: One of them is wrong, or there is none.
        """
        from .watch import all_targets  # noqa: PLC0415  # --help needs none

        return all_targets(self._targets, self["targets"], self.settings)

    def _check_metrics_interface(self) -> None:
        interface = self["metrics-interface"]
        if not is_ip(interface) or is_group(interface):
            raise usage.UsageError(
                f"--metrics-interface: {interface!r} is not the numeric address of a host; write one of this machine, "
                "such as 127.0.0.1 or ::1, or 0.0.0.0 or :: for all of them"
            )


def makeService(options: Options) -> IService:
    """Return the service that the options describe."""
    from twisted.internet import reactor  # noqa: PLC0415  # --reactor has installed it by now

    from .watch import OnChangeCommand, UDPProbeService  # noqa: PLC0415  # see postOptions

    notifiers: list[Any] = []
    if options.words:
        notifiers.append(OnChangeCommand(reactor, options.words))
    if options["webhook"] is not None:
        from .watch import Webhook  # noqa: PLC0415  # an extra

        notifiers.append(Webhook(reactor, options["webhook"]))
    service: Any = UDPProbeService(
        reactor, options.read_targets, options.found, notifiers=notifiers, metrics=options.metrics
    )
    service.setName(options.command)
    return service  # type: ignore[no-any-return]  # Service implements IService by a decorator mypy does not follow
