"""SmartNICs to be drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carmel.cli.smartnic_scene import NicScene, nic_scene
from carmel.resources.base import JsonObject


def network(name: str, data_plane: str = "SmartNIC", backend: str = "linux-bridge", **bridge: Any) -> JsonObject:
    spec: JsonObject = {"provider": "bridge" if bridge else "user", "dataPlane": data_plane}
    ready = {"type": "Ready", "status": "True", "reason": "Made"}
    if bridge:
        spec["bridge"] = bridge
    return {"metadata": {"name": name}, "spec": spec, "status": {"backend": backend, "conditions": [ready]}}


def port(vm: str, nic: str, on: str, namespace: str = "default", **spec: Any) -> JsonObject:
    return {
        "metadata": {"name": f"{vm}-{nic}", "namespace": namespace},
        "spec": {"networkRef": {"name": on}, "vmRef": {"name": vm}, "nic": nic, "owner": f"uid-{vm}", **spec},
        "status": {"smartNIC": "nic-1"},
    }


def function(number: int, state: str = "Free", owner: str | None = None, **more: Any) -> JsonObject:
    named: JsonObject = {
        "id": f"pf0vf{number}",
        "kind": "net",
        "state": state,
        "mac": f"52:54:00:ca:01:{number:02x}",
        "representor": f"pf0vf{number}",
        "pciAddress": f"0000:{number + 1:02x}:00.0",
        "numaNode": 0,
        "iommuGroup": 10 + number,
        **more,
    }
    if owner is not None:
        space, _, name = owner.partition("/")
        named["owner"] = {"kind": "Port", "namespace": space, "name": name}
    return named


def drive(number: int, state: str = "Free") -> JsonObject:
    address = f"0000:{number + 9:02x}:00.0"
    return {"id": f"pf0nvme{number}", "kind": "nvme", "state": state, "pciAddress": address, "numaNode": 0}


def representor(name: str, flavour: str = "pci_vf", *, up: bool = True) -> JsonObject:
    return {"name": name, "interface": name, "flavour": flavour, "up": up}


def smart_nic(status: JsonObject, ready: bool = True, message: str = "the NIC answers") -> JsonObject:
    conditions = [{"type": "Ready", "status": str(ready), "reason": "Ready", "message": message}]
    return {"metadata": {"name": "nic-1"}, "status": {**status, "conditions": conditions}}


def busy() -> NicScene:
    """Two guests that have functions, the second in software, one free, one that cannot be used; drives, namespaces."""
    shared = "IOMMU group 13 has 0000:04:00.1 besides 0000:04:00.0: they can only be passed on together"
    status = {
        "serial": "MT2143X00561",
        "model": "bluefield-2",
        "mode": "DPU",
        "trust": "Restricted",
        "carmelVersion": "0.3.0",
        "hardwareOffload": True,
        "host": {"name": "server-1"},
        "functions": [
            function(0, "Plugged", "default/web-eth0", driver="vfio-pci"),
            function(1, "Plugged", "shop/db-eth1", driver="virtio-pci"),
            function(2),
            function(3, "Refused", message=shared),
            drive(0, "Plugged"),
            drive(1, "Plugged"),
            drive(2),
        ],
        "namespaces": [
            {"name": "shared", "state": "Online", "sizeBytes": 1 << 30, "function": "pf0nvme0"},
            {
                "name": "db-data",
                "state": "Stalled",
                "sizeBytes": 64 << 20,
                "function": "pf0nvme1",
                "owner": {"namespace": "shop", "name": "db"},
            },
            {"name": "spare", "state": "Connecting"},
        ],
        "representors": [
            representor("p0", "physical"),
            representor("p1", "physical", up=False),
            representor("pf0vf0"),
            representor("pf0vf1"),
            representor("pf0vf2", up=False),
            representor("pf0vf3", up=False),
        ],
    }
    ports = [port("web", "eth0", "lan", vlan=20), port("db", "eth1", "storage", "shop", trunk=[30, 31])]
    networks = [
        network("default", "Host", "passt"),
        network("lan", uplinks=["p0"]),
        network("storage", backend="openvswitch", uplinks=["p0", "p1"], vlan=7),
    ]
    return nic_scene(smart_nic(status), ports, networks)


def away() -> NicScene:
    """A NIC that was never reached."""
    message = (
        "SmartNIC nic-1 (192.168.100.2:17443) cannot be reached: No route to host. VMs that use its functions run on."
    )
    return nic_scene(
        smart_nic({"host": {"name": "server-1"}}, ready=False, message=message), [], [network("lan", uplinks=["p0"])]
    )


def hostile() -> NicScene:
    """A NIC that tells what a terminal would obey."""
    status = {
        "serial": "\x1b[2J\x1b]0;owned\x07",
        "model": "emulated",
        "functions": [function(0, "Plugged", "default/gone-eth0", mac="\x1b[31m", message="one\ntwo\x1b[0m")],
    }
    return nic_scene(smart_nic(status), [], [])


def own() -> NicScene:
    """What a NIC's own API has: a bare host boots from it, and all networks are the NIC's."""
    disk = {"kind": "NVMeNamespace", "name": "boot"}
    status = {
        "model": "emulated",
        "functions": [
            {"id": "pf0vf0", "kind": "net", "state": "Plugged", "representor": "pf0vf0",
             "owner": {"kind": "Port", "namespace": "default", "name": "server-f0"}},
            {"id": "pf0nvme0", "kind": "nvme", "state": "Plugged", "owner": disk},
        ],
        "representors": [representor("p0", "physical"), representor("pf0vf0")],
        "namespaces": [{"name": "boot", "state": "Online", "sizeBytes": 1 << 30, "function": "pf0nvme0"}],
    }  # fmt: skip
    bare = port("server", "f0", "lan", owner="host")
    return nic_scene(smart_nic(status), [{**bare, "status": {}}], [network("lan", "Host", uplinks=["p0"])])


SCENES: dict[str, Callable[[], NicScene]] = {"busy": busy, "away": away, "hostile": hostile, "own": own}
