"""From a VM's spec to what placement is asked."""

from __future__ import annotations

from typing import Any

import pytest

from carmel.errors import Refused
from carmel.hardware.model import Board, Cpu, CpuKind, Group, Hardware, Nic, NumaNode, NvmeController, NvmeNamespace
from carmel.placement.model import GuestNodeWish, GuestTopology, Request
from carmel.placement.requests import nodes_near, request_of
from carmel.resources.admission import admit
from carmel.resources.virtualmachine import VIRTUAL_MACHINE, CpuPolicy, VirtualMachine
from carmel.units import GIB, MIB


def vm(**spec: Any) -> VirtualMachine:
    manifest = {"metadata": {"name": "web", "namespace": "lab", "uid": "u-1"}, "spec": spec}
    return VirtualMachine.model_validate(admit(VIRTUAL_MACHINE, manifest, None))


def machine() -> Hardware:
    """Two sockets of two CPUs; a drive at node 1, a NIC at none."""
    return Hardware(
        architecture="aarch64",
        page_bytes=4096,
        cpus=tuple(Cpu(id=cpu, socket=cpu // 2, core=cpu, node=cpu // 2) for cpu in range(4)),
        nodes=tuple(NumaNode(node, (2 * node, 2 * node + 1), GIB, {node: 10, 1 - node: 20}) for node in range(2)),
        cpu_kinds=(CpuKind("Neoverse-N1", (0, 1, 2, 3)),),
        sockets=tuple(Group(node, (2 * node, 2 * node + 1), node) for node in range(2)),
        nvme=(NvmeController("nvme0", "m", "s", "f", None, 1, (NvmeNamespace("nvme0n1", GIB, 512),)),),
        nics=(Nic("eth0", "52:54:00:00:00:01"),),
        board=Board(),
    )


def test_a_plain_vm_asks_for_its_count_and_memory() -> None:
    assert request_of(vm(), frozenset()) == Request("u-1", "lab/web", 1, GIB)


def test_every_wish_of_the_spec_is_asked_for() -> None:
    wanted = vm(
        cpu={"count": 4, "policy": "Dedicated", "topology": {"sockets": 2, "clusters": 1, "cores": 2, "threads": 1}},
        memory={"size": "512Mi", "pageSize": "2Mi"},
        numa={
            "nodes": [
                {"cpus": "0-1", "memory": "128Mi"},
                {"cpus": "2-3", "memory": "384Mi", "distances": [31, 10]},
            ]
        },
        placement={"rebalance": "Allow"},
    )
    assert request_of(wanted, frozenset({1})) == Request(
        uid="u-1",
        name="lab/web",
        vcpus=4,
        memory_bytes=512 * MIB,
        policy=CpuPolicy.DEDICATED,
        page_bytes=2 * MIB,
        topology=GuestTopology(2, 1, 2, 1),
        near=frozenset({1}),
        guest_nodes=(
            GuestNodeWish((0, 1), 128 * MIB, (10, 20)),
            GuestNodeWish((2, 3), 384 * MIB, (31, 10)),
        ),
        movable=True,
    )


@pytest.mark.parametrize(
    ("policy", "rebalance", "movable"),
    [
        ("Shared", None, True),
        ("Shared", "Never", False),
        ("Dedicated", None, False),
        ("Dedicated", "Allow", True),
    ],
)
def test_a_dedicated_vm_is_moved_only_when_its_spec_says_so(
    policy: str, rebalance: str | None, *, movable: bool
) -> None:
    wishes = {"rebalance": rebalance} if rebalance else {}
    assert request_of(vm(cpu={"policy": policy}, placement=wishes), frozenset()).movable is movable


def test_a_vm_that_is_not_made_yet_is_known_by_its_name() -> None:
    unmade = VirtualMachine.model_validate({"metadata": {"name": "web"}})
    assert request_of(unmade, frozenset()).uid == "web"


@pytest.mark.parametrize(
    ("near", "nodes"),
    [(None, set()), (["nvme0"], {1}), (["nvme0n1", "eth0"], {1}), (["eth0"], set())],
)
def test_devices_are_found_at_their_nodes(near: list[str] | None, nodes: set[int]) -> None:
    assert nodes_near(vm(placement={"near": near} if near else {}), machine()) == nodes


def test_a_device_that_is_not_there_is_named_with_its_field() -> None:
    with pytest.raises(Refused, match="'nvme7'") as raised:
        nodes_near(vm(placement={"near": ["nvme0", "nvme7"]}), machine())
    assert (raised.value.code, raised.value.field) == ("DeviceNotFound", "spec.placement.near[1]")
