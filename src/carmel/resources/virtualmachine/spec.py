"""What is wanted of a VM."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from carmel.resources.base import BY_NAME_SCHEMA, Model, Time
from carmel.resources.virtualmachine.compute import Cpu, Memory, Numa, PlacementWishes
from carmel.resources.virtualmachine.devices import CloudInit, Disk, Firmware, NetworkInterface

Uuid = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]


class PowerState(StrEnum):
    ON = "PoweredOn"
    OFF = "PoweredOff"
    PAUSED = "Paused"
    SUSPENDED = "Suspended"


class PowerOffMode(StrEnum):
    """How to go to PoweredOff: ask the guest, pull the plug, or ask and then pull."""

    SOFT = "Soft"
    HARD = "Hard"
    TRY_SOFT = "TrySoft"


class RestartPolicy(StrEnum):
    """What to do when a VM ends that should run: a guest that shut itself down is a success."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


class VirtualMachineSpec(Model):
    """What is wanted of a VM."""

    cpu: Cpu = Field(default_factory=Cpu)
    memory: Memory = Field(default_factory=Memory)
    numa: Numa | None = None
    placement: PlacementWishes | None = None
    firmware: Firmware = Field(default_factory=Firmware)
    power_state: PowerState = Field(default=PowerState.ON, description="The state that is wanted.")
    power_off_mode: PowerOffMode = PowerOffMode.TRY_SOFT
    power_off_timeout_seconds: int = Field(
        default=60, ge=1, le=3600, description="TrySoft: how long the guest is given before the plug is pulled."
    )
    restart_requested_at: Time | None = Field(
        default=None, description="A time later than status.restartedAt restarts the VM once, or starts one that ended."
    )
    restart_policy: RestartPolicy = RestartPolicy.ON_FAILURE
    start_at_boot: bool = Field(default=True, description="Start this VM when its host starts, if it should run.")
    disks: list[Disk] = Field(
        default_factory=list, max_length=24, json_schema_extra=BY_NAME_SCHEMA, description="In boot order."
    )
    networks: list[NetworkInterface] = Field(
        default_factory=list, max_length=8, json_schema_extra=BY_NAME_SCHEMA, description="NICs; none without."
    )
    iommu: bool = Field(
        default=False,
        description="Give the guest an IOMMU (Arm: SMMUv3), so that it can pass its NICs on to its own VMs.",
    )
    cloud_init: CloudInit | None = None
    bios_uuid: Uuid | None = Field(
        default=None, alias="biosUUID", description="SMBIOS UUID that the guest sees; the VM's uid when absent."
    )
    instance_uuid: Uuid | None = Field(
        default=None, alias="instanceUUID", description="An identity that others keep for this VM; its uid when absent."
    )
