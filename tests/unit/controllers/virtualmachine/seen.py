"""Observations for tests of what is planned from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from carmel.controllers.virtualmachine.observed import (
    FINALIZER,
    HOST_LABEL,
    HostLimits,
    HostView,
    Launched,
    MachineView,
    Observed,
)
from carmel.hypervisor.config import Accelerator
from carmel.hypervisor.machine import Launch, MachineState
from carmel.resources.base import ObjectMeta
from carmel.resources.virtualmachine import (
    Termination,
    TerminationReason,
    VirtualMachine,
    VirtualMachineSpec,
    VirtualMachineStatus,
)
from tests.fakes.clock import START

HOST = HostView("host", "boot-1", limits=HostLimits(max_vcpus=8, memory_bytes=4 * 2**30))


def vm(status: dict[str, Any] | None = None, **spec: Any) -> VirtualMachine:
    """A VM of this host."""
    return VirtualMachine(
        metadata=ObjectMeta(
            name="w", namespace="default", uid="u-1", generation=1, labels={HOST_LABEL: "host"}, finalizers=[FINALIZER]
        ),
        spec=VirtualMachineSpec.model_validate(spec),
        status=VirtualMachineStatus.model_validate(status or {}),
    )


def seen(one: VirtualMachine | None = None, **facts: Any) -> Observed:
    return Observed(vm=one or vm(), host=HOST, now=START, monotonic=1000.0, **facts)


def machine(state: MachineState = MachineState.RUNNING, launch_id: str = "l-1") -> MachineView:
    launch = Launch(launch_id, "u-1", 4711, "virt-7.2", Accelerator.TCG, "cortex-a57", START - timedelta(seconds=30))
    return MachineView(launch, state, ())


def running(one: VirtualMachine | None = None, state: MachineState = MachineState.RUNNING, **facts: Any) -> Observed:
    """With a machine that was started from this very spec."""
    made = one or vm()
    launched = Launched(made.spec.model_copy(deep=True), "boot-1")
    return replace(seen(made, machine=machine(state), launched=launched), **facts)


def end(
    reason: TerminationReason, *, ago: float = 5.0, ran: float = 20.0, launch_id: str = "l-1", now: datetime = START
) -> dict[str, Any]:
    """A status that says how the last run ended."""
    finished = now - timedelta(seconds=ago)
    return {
        "launch_id": launch_id,
        "last_termination": Termination(
            reason=reason,
            launch_id=launch_id,
            started_at=finished - timedelta(seconds=ran),
            finished_at=finished,
        ),
    }
