"""Probing many servers all the time, and telling how they are: what ``twistd udpprobe`` is made of.

Theory of operation: pure parts say what a target's figures (``_rolling``), its state (``_health``) and its settings
(``_target``) are; a ``Watcher`` probes all of them from one UDP port on one timer; a ``UDPProbeService`` puts it
together with whoever is told of changes and with the metrics. Names are imported at their first use, as in the package
itself, for most runs need no HTTP.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._command import OnChangeCommand, parse_command
    from ._metrics_port import bind_metrics_port
    from ._service import UDPProbeService
    from ._target import SettingError, Settings, Target, checked_settings
    from ._targets_file import all_targets
    from ._watched import StateChange
    from ._watcher import Watcher
    from ._webhook import Webhook, checked_url

__all__ = [
    "OnChangeCommand",
    "SettingError",
    "Settings",
    "StateChange",
    "Target",
    "UDPProbeService",
    "Watcher",
    "Webhook",
    "all_targets",
    "bind_metrics_port",
    "checked_settings",
    "checked_url",
    "parse_command",
]

_HOMES = {
    "OnChangeCommand": "_command",
    "SettingError": "_target",
    "Settings": "_target",
    "StateChange": "_watched",
    "Target": "_target",
    "UDPProbeService": "_service",
    "Watcher": "_watcher",
    "Webhook": "_webhook",
    "all_targets": "_targets_file",
    "bind_metrics_port": "_metrics_port",
    "checked_settings": "_target",
    "checked_url": "_webhook",
    "parse_command": "_command",
}


def __getattr__(name: str) -> object:
    """Import a name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value
