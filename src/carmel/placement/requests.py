"""What a VM's spec asks of placement: the same for the controllers, which place it, and for who only asks where it
would go."""

from __future__ import annotations

from collections.abc import Iterator

from carmel.cpulist import parse_cpu_list
from carmel.errors import Refused
from carmel.hardware.model import Hardware
from carmel.placement.model import GuestNodeWish, GuestTopology, Request
from carmel.resources.virtualmachine import CpuPolicy, CpuTopology, Numa, Rebalance, VirtualMachine
from carmel.units import parse_bytes

_LOCAL = 10
_REMOTE = 20
"""What ``spec.numa.nodes[].distances`` are where absent (ACPI 6.5, 5.2.17: 10 is a node to itself; QEMU's own default
for the others is 20)."""


def request_of(vm: VirtualMachine, near: frozenset[int]) -> Request:
    """What an admitted VM asks for. ``near`` is what ``nodes_near`` says of its host."""
    spec = vm.spec
    name = f"{vm.metadata.namespace}/{vm.metadata.name}" if vm.metadata.namespace else vm.metadata.name
    return Request(
        uid=vm.metadata.uid or name,
        name=name,
        vcpus=spec.cpu.count,
        memory_bytes=parse_bytes(spec.memory.size),
        policy=spec.cpu.policy,
        page_bytes=parse_bytes(spec.memory.page_size) if spec.memory.page_size is not None else None,
        topology=_topology(spec.cpu.topology) if spec.cpu.topology is not None else None,
        near=near,
        guest_nodes=tuple(_wishes(spec.numa)) if spec.numa is not None else (),
        movable=_movable(vm),
    )


def nodes_near(vm: VirtualMachine, hardware: Hardware) -> frozenset[int]:
    """The host nodes of the devices that the VM wants to be close to (``spec.placement.near``). A device that is at no
    node, as on machines with only one, binds nothing.

    Raises ``Refused`` (``DeviceNotFound``) for a device that the machine does not have.
    """
    names = (vm.spec.placement.near if vm.spec.placement is not None else None) or []
    devices = _device_names(hardware)
    for index, name in enumerate(names):
        if name not in devices:
            raise Refused(
                f"the host has no device {name!r}",
                code="DeviceNotFound",
                hint="`carmel host -o yaml` lists PCI addresses, NVMe drives and NICs",
                field=f"spec.placement.near[{index}]",
            )
    nodes = (hardware.node_of_device(name) for name in names)
    return frozenset(node for node in nodes if node is not None)


def _device_names(hardware: Hardware) -> frozenset[str]:
    return frozenset(
        (
            *(device.address for device in hardware.pci),
            *(drive.name for drive in hardware.nvme),
            *(namespace.name for drive in hardware.nvme for namespace in drive.namespaces),
            *(nic.name for nic in hardware.nics),
        )
    )


def _topology(shape: CpuTopology) -> GuestTopology:
    return GuestTopology(shape.sockets, shape.clusters, shape.cores, shape.threads)


def _wishes(numa: Numa) -> Iterator[GuestNodeWish]:
    for index, node in enumerate(numa.nodes):
        usual = (_LOCAL if other == index else _REMOTE for other in range(len(numa.nodes)))
        yield GuestNodeWish(
            vcpus=parse_cpu_list(node.cpus),
            memory_bytes=parse_bytes(node.memory),
            distances=tuple(node.distances if node.distances is not None else usual),
        )


def _movable(vm: VirtualMachine) -> bool:
    """A dedicated VM was given its CPUs for good: it is moved only when its spec says so."""
    wish = vm.spec.placement.rebalance if vm.spec.placement is not None else None
    if wish is None:
        return vm.spec.cpu.policy is CpuPolicy.SHARED
    return wish is Rebalance.ALLOW
