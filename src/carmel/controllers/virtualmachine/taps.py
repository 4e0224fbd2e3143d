"""NICs of QEMU that are the ends of taps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from carmel.controllers.virtualmachine.ports import VmOfNics
from carmel.hypervisor.config import NicConfig
from carmel.network.dataplane import PortHandles
from carmel.resources.virtualmachine import NetworkInterface

_MOST_QUEUES = 4
"""Unless more are asked for: beyond that, what a queue costs in memory and interrupts is seldom got back."""


def queues_of(vm: VmOfNics, nic: NetworkInterface) -> int:
    return nic.queues or max(1, min(vm.spec.cpu.count, _MOST_QUEUES))


def tap_nic(name: str, mac: str, handles: PortHandles, mtu: int) -> NicConfig:
    """The descriptors are the caller's to close. ``mtu``, in bytes, is told to the guest whatever it is: a VM that was
    suspended is resumed by a NIC that can tell, or not at all."""
    descriptors = (*handles.taps, *handles.vhost)
    return NicConfig(name, mac, _netdev(handles), descriptors=descriptors, queues=len(handles.taps), mtu=mtu)


def _netdev(handles: PortHandles) -> Mapping[str, object]:
    """Options of ``-netdev tap`` (qemu(1)): one descriptor a queue, joined by colons."""
    vhost = {"vhost": True, "vhostfds": _joined(handles.vhost)} if handles.vhost else {}
    return {"type": "tap", "fds": _joined(handles.taps), **vhost}


def _joined(descriptors: Sequence[int]) -> str:
    return ":".join(map(str, descriptors))
