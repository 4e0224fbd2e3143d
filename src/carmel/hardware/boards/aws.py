"""Amazon EC2 bare metal with Graviton."""

from __future__ import annotations

from typing import Final

from carmel.hardware.boards.facts import UNKNOWN, BoardFacts, CoreFacts, Fact, Midr, Recognition, Source, fact
from carmel.hardware.boards.sources import mail, midr_source
from carmel.units import GIB

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
_CPUINFO: Final = Source(
    "archspec, issue 41", "/proc/cpuinfo of a Graviton2", "https://github.com/archspec/archspec-json/issues/41"
)


def _metal(board_id: str, name: str, product: str, kind: str, cores: int, memory: int, midr: Fact[Midr]) -> BoardFacts:
    return BoardFacts(
        id=board_id,
        name=name,
        vendor="Amazon EC2",
        about=_TYPES,
        recognised_by=(Recognition(_C6G, vendor="amazon ec2", product=product),),
        cores=(CoreFacts(name=kind, cores=fact(cores, _TYPES), midr=midr),),
        memory_options=fact((memory,), _TYPES),
    )


BOARDS: Final = (
    _metal("graviton-metal", "Amazon EC2 a1.metal (Graviton)", "a1.metal", "Graviton", 16, 32 * GIB, UNKNOWN),
    _metal(
        "graviton2-metal",
        "Amazon EC2 c6g.metal (Graviton2)",
        "c6g*.metal",
        "Neoverse-N1",
        64,
        128 * GIB,
        fact(NEOVERSE_N1, _CPUINFO, midr_source("ARM_CPU_PART_NEOVERSE_N1")),
    ),
)
