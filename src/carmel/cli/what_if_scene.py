"""The picture of a plan: the machine with all VMs where they would be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from carmel.cli.picture_scene import Scene, Tenant, Use, arrange
from carmel.cli.plan_ground import Ground
from carmel.cli.what_if import Plan
from carmel.hardware.status import hardware_status
from carmel.placement.model import Placement
from carmel.resources.virtualmachine import CpuPolicy


def scene_of_plan(ground: Ground, plan: Plan) -> Scene:
    names = _names([placement.request.name for placement in plan.all])
    tenants = [_tenant(placement, name) for placement, name in zip(plan.all, names, strict=True)]
    return arrange(
        hardware_status(ground.hardware), tenants, Use(reserved=ground.rules.reserved_cpus, unplaced=ground.uncounted)
    )


def _names(full: Sequence[str]) -> list[str]:
    """Without the namespace where there is only one."""
    alone = len({name.rpartition("/")[0] for name in full}) == 1
    return [name.rpartition("/")[2] if alone else name for name in full]


def _tenant(placement: Placement, name: str) -> Tenant:
    memory: Counter[int] = Counter()
    for node in placement.nodes:
        memory[node.host_node] += node.memory_bytes
    request = placement.request
    return Tenant(name, request.policy is CpuPolicy.DEDICATED, placement.vcpus, memory, request.page_bytes)
