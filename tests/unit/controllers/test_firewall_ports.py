"""The firewall's ports are those that the store has, with their VMs' labels."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path
from typing import Any

from carmel.controllers.firewall_ports import StorePorts
from carmel.controllers.runtime import Runtime
from carmel.network.firewall import PortBinding, PortKey
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


async def test_ports_follow_their_vms(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.sqlite", kinds=(*{*KINDS, PORT},))
    runtime = Runtime(store, "test")
    source = StorePorts(runtime)
    changed = asyncio.Event()
    source.on_change(changed.set)
    runtime.informer(VIRTUAL_MACHINE).listen(lambda _change: changed.set())
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
        await store.create(VIRTUAL_MACHINE, vm(app="web"))
        await settled(PortBinding(key, "web", {"app": "web"}))
        there = port(dataPlane="Host", interface="cmp0", addresses=["10.0.0.1"])
        await store.replace(PORT, there, subresource="status")
        address = (ipaddress.ip_address("10.0.0.1"),)
        await settled(PortBinding(key, "web", {"app": "web"}, address, "cmp0"))
        await store.replace(VIRTUAL_MACHINE, vm(app="db"))
        await settled(PortBinding(key, "web", {"app": "db"}, address, "cmp0"))
        # On a SmartNIC it is that one's firewall that it has; here it is a peer.
        elsewhere = port(dataPlane="SmartNIC", interface="pf0hpf", addresses=["10.0.0.1"])
        await store.replace(PORT, elsewhere, subresource="status")
        await settled(PortBinding(key, "web", {"app": "db"}, address))
    finally:
        await runtime.stop()
        await store.close()
