"""What a SmartNIC switches with may be chosen while nothing is plugged in."""

from __future__ import annotations

from typing import Any

import pytest

from carmel.errors import Invalid
from carmel.resources.admission import admit
from carmel.resources.smartnic import SMART_NIC


def _nic(switch: str | None, *states: tuple[str, str]) -> dict[str, Any]:
    functions = [{"id": f"pf0vf{n}", "kind": kind, "state": state} for n, (kind, state) in enumerate(states)]
    spec = {} if switch is None else {"switch": switch}
    return {"metadata": {"name": "nic"}, "spec": spec, "status": {"functions": functions}}


def test_the_linux_bridge_is_the_default() -> None:
    assert admit(SMART_NIC, _nic(None), None)["spec"]["switch"] == "LinuxBridge"


def test_it_changes_while_nothing_is_plugged_in() -> None:
    before = _nic("LinuxBridge", ("net", "Free"), ("nvme", "Plugged"))
    assert admit(SMART_NIC, _nic("OpenVSwitch"), before)["spec"]["switch"] == "OpenVSwitch"


def test_it_does_not_change_under_those_who_use_it() -> None:
    before = _nic(None, ("net", "Free"), ("net", "Plugged"))
    with pytest.raises(Invalid) as raised:
        admit(SMART_NIC, _nic("OpenVSwitch"), before)
    assert [(one.field, one.message) for one in raised.value.causes] == [
        ("spec.switch", "cannot be changed while functions are plugged into ports: pf0vf1")
    ]
    # The same said in another way is no change.
    assert admit(SMART_NIC, _nic("LinuxBridge"), before)


def test_there_is_no_third() -> None:
    with pytest.raises(Invalid):
        admit(SMART_NIC, _nic("Snabb"), None)
