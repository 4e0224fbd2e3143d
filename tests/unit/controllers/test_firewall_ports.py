"""The firewall's ports are those that the store has, with their VMs' labels."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path
from typing import Any

from carmel.controllers.firewall_ports import NicPorts, StorePorts
from carmel.controllers.runtime import Runtime
from carmel.network.firewall import LabelledVm, PortBinding, PortKey
from carmel.resources.core import NAMESPACE
from carmel.resources.port import PORT
from carmel.resources.registry import KINDS
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.store.sqlite import SqliteStore


def vm(**labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "web", "namespace": "default", "labels": labels}, "spec": {}}


def port(**status: Any) -> dict[str, Any]:
    spec = {
        "networkRef": {"name": "lan"},
        "vmRef": {"name": "web"},
        "nic": "eth0",
        "owner": "uid",
        "mac": "52:54:00:00:00:01",
    }
    return {"metadata": {"name": "web-0", "namespace": "default"}, "spec": spec, "status": status}


COUNTERS = ("receivedPackets", "receivedBytes", "sentPackets", "sentBytes", "droppedPackets")


async def test_ports_follow_their_vms(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.sqlite", kinds=KINDS)
    runtime = Runtime(store, "test")
    source = StorePorts(runtime)
    changed = asyncio.Event()
    source.on_change(changed.set)
    try:
        await store.create(NAMESPACE, {"metadata": {"name": "default"}})
        await runtime.start()
        assert source.bindings() == []

        async def settled(*wanted: PortBinding) -> None:
            async with asyncio.timeout(20):
                while source.bindings() != list(wanted):
                    await changed.wait()
                    changed.clear()

        key = PortKey("default", "web-0")
        await store.create(PORT, port())
        await settled(PortBinding(key, "web", {}))
        owner = (await store.create(VIRTUAL_MACHINE, vm(app="web"))).uid
        await settled(PortBinding(key, "web", {"app": "web"}))
        assert source.vms() == [LabelledVm("default", "web", {"app": "web"})]
        there = port(dataPlane="Host", interface="cmp0", addresses=["10.0.0.1"])
        await store.replace(PORT, there, subresource="status")
        address = (ipaddress.ip_address("10.0.0.1"),)
        # Whoever says so is not the VM's own port.
        await settled(PortBinding(key, "web", {"app": "web"}, address))
        await store.replace(PORT, port() | {"spec": port()["spec"] | {"owner": owner}})
        await settled(PortBinding(key, "web", {"app": "web"}, address, "cmp0"))
        await store.replace(VIRTUAL_MACHINE, vm(app="db"))
        await settled(PortBinding(key, "web", {"app": "db"}, address, "cmp0"))
        # On a SmartNIC it is that one's firewall that it has; here it is a peer.
        elsewhere = port(dataPlane="SmartNIC", smartNIC="dpu0", interface="pf0hpf", addresses=["10.0.0.1"])
        await store.replace(PORT, elsewhere, subresource="status")
        await settled(PortBinding(key, "web", {"app": "db"}, address, None, "dpu0"))
        # Counters change all the time, and are nothing to the firewall.
        told = list[bool]()
        source.on_change(lambda: told.append(True))
        told.clear()
        counted = elsewhere["status"] | {"counters": dict.fromkeys(COUNTERS, 1)}
        await store.replace(PORT, elsewhere | {"status": counted}, subresource="status")
        await store.replace(
            PORT, there | {"status": there["status"] | {"counters": dict.fromkeys(COUNTERS, 1)}}, subresource="status"
        )
        await settled(PortBinding(key, "web", {"app": "db"}, address, "cmp0"))
        assert told == [True]
    finally:
        await runtime.stop()
        await store.close()


async def test_on_a_smart_nic_ports_have_labels_of_their_own(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.sqlite", kinds=KINDS)
    runtime = Runtime(store, "nic")
    source = NicPorts(runtime)
    changed = asyncio.Event()
    source.on_change(changed.set)
    try:
        await store.create(NAMESPACE, {"metadata": {"name": "default"}})
        await runtime.start()
        made = port()
        made["metadata"]["labels"] = {"app": "web"}
        await store.create(PORT, made)
        made["status"] = {"dataPlane": "SmartNIC", "interface": "cmp0", "addresses": ["10.0.0.1"]}
        await store.replace(PORT, made, subresource="status")
        address = (ipaddress.ip_address("10.0.0.1"),)
        async with asyncio.timeout(20):
            while source.bindings() != [
                PortBinding(PortKey("default", "web-0"), "web", {"app": "web"}, address, "cmp0")
            ]:
                await changed.wait()
                changed.clear()
        assert source.vms() == [LabelledVm("default", "web", {"app": "web"})]
    finally:
        await runtime.stop()
        await store.close()
