from __future__ import annotations

from typing import Any

import pytest

from carmel.cli.waiting import failure_of, parse_goal


def vm(generation: int = 1, observed: int | None = 1, **status: Any) -> dict[str, Any]:
    return {
        "kind": "VirtualMachine",
        "metadata": {"name": "web", "generation": generation},
        "status": {"observedGeneration": observed, **status},
    }


READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("goal", "obj", "holds"),
    [
        ("ready", vm(conditions=READY), True),
        ("ready", vm(conditions=[{"type": "Ready", "status": "False"}]), False),
        ("ready", vm(generation=2, conditions=READY), False),
        ("ready", vm(phase="Ready"), True),
        ("ready", vm(phase="Ready", conditions=[{"type": "Ready", "status": "False"}]), False),
        ("ready", None, False),
        ("running", vm(powerState="PoweredOn"), True),
        ("RUNNING", vm(powerState="PoweredOn"), True),
        ("stopped", vm(powerState="PoweredOn"), False),
        ("stopped", vm(powerState="PoweredOff"), True),
        ("stopped", vm(generation=2, powerState="PoweredOff"), False),
        ("deleted", None, True),
        ("deleted", vm(), False),
        ("condition=Ready", vm(conditions=READY), True),
        ("condition=Ready=false", vm(conditions=READY), False),
        ("condition=Other", vm(conditions=READY), False),
        ("jsonpath=.status.powerState=PoweredOn", vm(powerState="PoweredOn"), True),
        ("jsonpath={.status.powerState}=PoweredOff", vm(powerState="PoweredOn"), False),
        ("jsonpath=.status.launchID", vm(launchID="x"), True),
        ("jsonpath=.status.launchID", vm(), False),
        ('jsonpath={.status.conditions[?(@.type=="Ready")].status}=True', vm(conditions=READY), True),
    ],
)
def test_goals(goal: str, obj: dict[str, Any] | None, holds: bool) -> None:
    parsed = parse_goal(goal)
    assert parsed is not None
    assert parsed.holds(obj) is holds


@pytest.mark.parametrize("text", ["", "soon", "condition=", "condition", "jsonpath="])
def test_what_is_no_goal(text: str) -> None:
    assert parse_goal(text) is None


def test_waiting_ends_when_it_is_in_vain() -> None:
    error = {"code": "DigestMismatch", "message": "wrong digest", "hint": "again", "retryable": False}
    failure = failure_of(vm(phase="Failed", error=error))
    assert failure is not None
    assert (failure.code, failure.hint, failure.exit_status) == ("DigestMismatch", "again", 5)
    refused = failure_of(
        vm(conditions=[{"type": "Accepted", "status": "False", "reason": "NoImage", "message": "none"}])
    )
    assert refused is not None
    assert refused.code == "NoImage"
    assert failure_of(vm(generation=2, phase="Failed")) is None
    assert failure_of(vm(conditions=READY)) is None
