"""A small dual-socket machine, and requests for it."""

from __future__ import annotations

from typing import Any

from carmel.controllers.placement import Ground, Means, make_ground
from carmel.hardware.model import Cpu, CpuKind, Group, Hardware, HugePages, Nic, NumaNode
from carmel.placement.model import Request
from carmel.resources.host import HostPlacementSpec
from carmel.units import GIB

NOTHING_KEPT = {"reservedCpus": "", "reservedMemory": "0"}


def two_nodes(cpus: int = 4, memory_bytes: int = 8 * GIB, huge_pages: int = 0) -> Hardware:
    """Two sockets of one node with ``cpus`` cores each. NIC ``eth1`` is at node 1."""
    halves = [tuple(range(cpus)), tuple(range(cpus, 2 * cpus))]
    pool = (HugePages(2 << 20, huge_pages, huge_pages),)
    return Hardware(
        architecture="aarch64",
        page_bytes=4096,
        cpus=tuple(Cpu(id=cpu, socket=node, core=cpu, node=node) for node, half in enumerate(halves) for cpu in half),
        nodes=tuple(
            NumaNode(node, half, memory_bytes, {0: 10 if node == 0 else 20, 1: 10 if node == 1 else 20}, None, pool)
            for node, half in enumerate(halves)
        ),
        cpu_kinds=(CpuKind("Neoverse-N1", (*halves[0], *halves[1])),),
        sockets=tuple(Group(node, half, node) for node, half in enumerate(halves)),
        cores=tuple(Group(cpu, (cpu,), node) for node, half in enumerate(halves) for cpu in half),
        huge_pages=(HugePages(2 << 20, 2 * huge_pages, 2 * huge_pages),),
        nics=(Nic(name="eth1", mac="52:54:00:00:00:01", node=1),),
    )


def ground(hardware: Hardware | None = None, means: Means | None = None, **spec: Any) -> Ground:
    """All of the machine is for VMs, unless ``spec`` says otherwise."""
    wanted = HostPlacementSpec.model_validate({**NOTHING_KEPT, **spec})
    return make_ground(hardware or two_nodes(), wanted, means or Means(), None)


def request(uid: str, vcpus: int = 2, memory_bytes: int = GIB, **wishes: Any) -> Request:
    return Request(uid=uid, name=f"default/{uid}", vcpus=vcpus, memory_bytes=memory_bytes, **wishes)
