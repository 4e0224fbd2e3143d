"""NVIDIA BlueField-2 and BlueField-3, SmartNICs whose Arm cores can be a host, and the emulated one of the lab."""

from __future__ import annotations

from typing import Final

from carmel.hardware.boards.facts import (
    BoardFacts,
    CoreFacts,
    Device,
    DeviceKind,
    Midr,
    Recognition,
    Source,
    fact,
)
from carmel.hardware.boards.sources import mail, midr_source
from carmel.units import GIB, KIB

CORTEX_A72: Final = Midr(0x41, 0xD08)

_BF2_LOG: Final = mail(
    "20240325210929.25362-1-davthompson@nvidia.com",
    "mlxbf_gige: stop interface during shutdown",
    "Hardware name: https://www.mellanox.com BlueField SoC; 4k pages",
)
_BF3_LOG: Final = mail(
    "20240325183627.7641-1-davthompson@nvidia.com",
    "mlxbf_gige: call request_irq() after NAPI initialized",
    "Hardware name: https://www.mellanox.com BlueField-3 SmartNIC Main Card; 4k pages",
)
_BF2_SPEC: Final = Source(
    "OpenShift enhancements: DPU Support in OCP (Overview)",
    "Supported Hardware: up to 8 Armv8 A72 cores, 8, 16 or 32 GB of DDR4",
    "https://github.com/openshift/enhancements/blob/master/enhancements/network/dpu/overview.md",
)
_BF2_CARDS: Final = Source(
    "OpenShift enhancements: DPU Support in OCP (Overview)",
    "Storage Offload",
    "https://github.com/openshift/enhancements/blob/master/enhancements/network/dpu/overview.md",
)
_BF3_SPEC: Final = Source(
    "NVIDIA DOCA documentation, Hardware Architecture",
    "16 Arm Cortex-A78 cores, DDR5",
    "https://docs.nvidia.com/doca/sdk/Hardware+Architecture",
)

BLUEFIELD_2: Final = BoardFacts(
    id="bluefield-2",
    name="NVIDIA BlueField-2 DPU",
    vendor="NVIDIA",
    about=_BF2_SPEC,
    recognised_by=(
        Recognition(
            _BF2_LOG, vendor="https://www.mellanox.com", product="bluefield soc", midr=CORTEX_A72, cores=(1, 8)
        ),
    ),
    cores=(
        CoreFacts(
            name="Cortex-A72",
            cores=fact(8, _BF2_SPEC),
            midr=fact(CORTEX_A72, midr_source("ARM_CPU_PART_CORTEX_A72")),
        ),
    ),
    memory_options=fact((8 * GIB, 16 * GIB, 32 * GIB), _BF2_SPEC),
    page_sizes=fact((4 * KIB,), _BF2_LOG),
    devices=(
        fact(Device(DeviceKind.NIC, "management port (oob_net0)", driver="mlxbf_gige"), _BF2_LOG),
        fact(Device(DeviceKind.NVME, "an SSD on its M.2 port"), _BF2_CARDS),
    ),
    quirk_facts=(
        fact(
            "Its firmware calls it only a BlueField SoC: a first-generation BlueField with 8 cores says the same.",
            _BF2_LOG,
        ),
    ),
)

BLUEFIELD_3: Final = BoardFacts(
    id="bluefield-3",
    name="NVIDIA BlueField-3 DPU",
    vendor="NVIDIA",
    about=_BF3_SPEC,
    recognised_by=(Recognition(_BF3_LOG, vendor="https://www.mellanox.com", product="bluefield-3*"),),
    cores=(CoreFacts(name="Cortex-A78", cores=fact(16, _BF3_SPEC)),),
    page_sizes=fact((4 * KIB,), _BF3_LOG),
    devices=(fact(Device(DeviceKind.NIC, "management port (oob_net0)", driver="mlxbf_gige"), _BF3_LOG),),
)

_LAB: Final = Source("Carmel", "SmartNICs, The emulated one", "docs/smartnic.md")

EMULATED: Final = BoardFacts(
    id="emulated",
    name="Emulated SmartNIC of the lab",
    vendor="Carmel",
    about=_LAB,
    quirk_facts=(
        fact("It is a VM: known by the MAC address of its internal link, and every packet passes its Arm cores.", _LAB),
    ),
)

BOARDS: Final = (BLUEFIELD_2, BLUEFIELD_3, EMULATED)
