"""Flows that a NIC's own e-switch does, without its Arm cores (Open vSwitch's "Flow Hardware offload with Linux TC
flower"). **Untested on hardware.**

Open vSwitch writes each datapath flow to tc as well, and the driver of a NIC in switchdev mode takes it from there;
what it does not take is done in software as before (``tc-policy`` ``none``). Which NICs can is for the SmartNIC's model
to say (``hw-tc-offload`` of its uplinks, ethtool(8)). The switch is read when ovs-vswitchd starts.
"""

from __future__ import annotations

from collections.abc import Mapping

_WANTED = {"hw-offload": "true", "tc-policy": "none"}


def offload_config(there: Mapping[str, str], *, able: bool) -> dict[str, str]:
    """What of ``other_config`` is to be set. Where there is no offload nothing is switched off: it may be another's
    wish, and does nothing there."""
    if not able or there.get("hw-offload") == "true":
        return {}
    return {key: value for key, value in _WANTED.items() if there.get(key) != value}


def is_on(there: Mapping[str, str], *, able: bool) -> bool:
    return able and there.get("hw-offload") == "true"
