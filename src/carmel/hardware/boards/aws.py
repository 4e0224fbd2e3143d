"""Amazon EC2 bare metal with Graviton."""

from __future__ import annotations

from typing import Final

from carmel.hardware.boards.facts import BoardFacts, CoreFacts, Fact, Midr, Recognition, Source, fact
from carmel.hardware.boards.sources import mail, midr_source
from carmel.units import GIB

CORTEX_A72: Final = Midr(0x41, 0xD08)
NEOVERSE_N1: Final = Midr(0x41, 0xD0C)

_TYPES: Final = Source(
    "Kubernetes cluster autoscaler, list of EC2 instance types",
    "InstanceTypes: a1.metal, c6g.metal",
    "https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/cloudprovider/aws/ec2_instance_types.go",
)
_C6G: Final = mail(
    "20221125230153.49468-1-blakgeof@amazon.com",
    "perf/arm-cmn: Add shutdown routine",
    "Hardware name: Amazon EC2 c6g.metal",
)
_PRODUCT: Final = Source(
    "systemd, pull request 27267",
    "description, by Amazon: the DMI product name of bare metal has the instance type in it",
    "https://github.com/systemd/systemd/pull/27267",
)
_A1_LSCPU: Final = Source(
    "Nomad, issue 7989", "lscpu of an a1.medium: Cortex-A72", "https://github.com/hashicorp/nomad/issues/7989"
)
_CPUINFO: Final = Source(
    "archspec, issue 41", "/proc/cpuinfo of a Graviton2", "https://github.com/archspec/archspec-json/issues/41"
)


def _metal(
    board_id: str, name: str, seen: Recognition, kind: str, cores: int, memory: int, midr: Fact[Midr]
) -> BoardFacts:
    return BoardFacts(
        id=board_id,
        name=name,
        vendor="Amazon EC2",
        about=_TYPES,
        recognised_by=(seen,),
        cores=(CoreFacts(name=kind, cores=fact(cores, _TYPES), midr=midr),),
        memory_options=fact((memory,), _TYPES),
    )


BOARDS: Final = (
    _metal(
        "graviton-metal",
        "Amazon EC2 a1.metal (Graviton)",
        Recognition(_PRODUCT, vendor="amazon ec2", product="a1.metal"),
        "Cortex-A72",
        16,
        32 * GIB,
        fact(CORTEX_A72, _A1_LSCPU, midr_source("ARM_CPU_PART_CORTEX_A72")),
    ),
    _metal(
        "graviton2-metal",
        "Amazon EC2 c6g.metal (Graviton2)",
        Recognition(_C6G, vendor="amazon ec2", product="c6g*.metal"),
        "Neoverse-N1",
        64,
        128 * GIB,
        fact(NEOVERSE_N1, _CPUINFO, midr_source("ARM_CPU_PART_NEOVERSE_N1")),
    ),
)
