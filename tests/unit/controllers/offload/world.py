"""A host in small with its offload controllers: a store, a PCI bus that behaves, and links to NICs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from carmel.controllers.offload import Claims, FunctionDisks, FunctionNics, Links, Relays, SmartNICController
from carmel.controllers.offload.mirroring import Mirroring
from carmel.controllers.offload.reflecting import Reflecting
from carmel.controllers.offload.software import SoftwareNics
from carmel.controllers.runtime import Key, Runtime
from carmel.controllers.virtualmachine.ports import NicPlan, VmOfNics, WantedNic
from carmel.paths import Paths
from carmel.resources.base import JsonObject
from carmel.resources.core import SECRET
from carmel.resources.kinds import Kind
from carmel.resources.network import NETWORK, Network
from carmel.resources.port import PORT
from carmel.resources.smartnic import SMART_NIC
from carmel.resources.virtualmachine import NetworkInterface, VirtualMachine
from carmel.smartnic.hostside import HostSide, read_host_side
from carmel.smartnic.vfio import VfioFunctions
from carmel.store.protocol import EventType
from carmel.store.sqlite import SqliteStore
from tests.fakes.functiontaps import FakeTaps
from tests.fakes.nic import FakeNic, mac_of
from tests.fakes.pcibus import FakePciBus
from tests.fakes.programs import QuietRunner
from tests.stores import open_store

LAN: JsonObject = {"provider": "bridge", "bridge": {"uplinks": ["p0"]}, "dataPlane": "SmartNIC"}


@dataclass
class OffloadWorld:
    """``woken`` has the uids of VMs that were told to look again."""

    folder: Path
    store: SqliteStore
    bus: FakePciBus
    distances: dict[int, int] = field(default_factory=dict)
    taps: FakeTaps = field(default_factory=FakeTaps)
    woken: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    @contextlib.asynccontextmanager
    async def daemon(self, also: Callable[[Runtime], object] | None = None) -> AsyncIterator[None]:
        """One life of the daemon. ``also`` adds to what it has."""
        self.runtime = Runtime(self.store, "server-1")
        self.links = Links()
        self.claims = Claims(self.runtime)
        self.relays = Relays("127.0.0.1", "127.0.0.1")
        functions = VfioFunctions(QuietRunner(), self.bus)

        def read_host() -> HostSide:
            return read_host_side(self.bus.root)

        self.nics = FunctionNics(
            self.claims, self.links, functions, SoftwareNics(self.taps), read_host, lambda _uid: self.distances
        )
        self.disks = FunctionDisks(self.runtime, self.links, functions, lambda: self.bus.root)
        self.controller = SmartNICController(
            self.runtime,
            self.links,
            self.claims,
            self.nics,
            self.disks,
            functions,
            read_host,
            self.relays,
            self.woken.put_nowait,
        )
        Mirroring(self.runtime, self.links)
        Reflecting(self.runtime, self.links)
        if also is not None:
            also(self.runtime)
        await self.claims.load()
        await self.nics.begin()
        await self.runtime.start()
        try:
            yield
        finally:
            await self.runtime.stop()
            await self.links.close()
            await self.relays.close()

    # -- what people and other controllers make ------------------------------------------------------------------
    async def join(self, nic: FakeNic, name: str = "dpu", keys: Mapping[str, str] | None = None) -> None:
        """What an invitation is applied as."""
        secret = {
            "metadata": {"name": f"smartnic-{name}", "namespace": "carmel-system"},
            "data": dict(keys or nic.invite()),
        }
        await self.store.create(SECRET, secret)
        spec = {"address": nic.address, "credentialsSecretRef": {"name": f"smartnic-{name}"}}
        await self.store.create(SMART_NIC, {"metadata": {"name": name}, "spec": spec})

    async def make_port(self, vm: str, uid: str, nic: str = "eth0", network: str = "lan") -> None:
        spec = {
            "networkRef": {"name": network},
            "vmRef": {"name": vm},
            "nic": nic,
            "owner": uid,
            "mac": "52:54:00:00:00:01",
        }
        metadata = {"name": f"{vm}-{nic}", "namespace": "default", "labels": {"app": vm}}
        await self.store.create(PORT, {"metadata": metadata, "spec": spec})

    async def tell_port(self, store: SqliteStore, name: str, **status: object) -> None:
        """On top of what the port in ``store`` (this host's, or a NIC's) says of itself."""
        known = (await store.get(PORT, "default", name)).json()
        known["status"] = {**known.get("status", {}), **status}
        known["metadata"].pop("resourceVersion")
        await store.replace(PORT, known, subresource="status")

    async def plan(self, vm: str, uid: str, spec: JsonObject | None = None, **nic: object) -> NicPlan:
        """A start of a VM with one NIC in ``lan``."""
        network = Network.model_validate({"metadata": {"name": "lan"}, "spec": spec or LAN})
        machine = VirtualMachine.model_validate(
            {
                "metadata": {"name": vm, "namespace": "default", "uid": uid},
                "spec": {
                    "memory": {"size": "128Mi"},
                    "networks": [{"name": "eth0", "networkRef": {"name": "lan"}, **nic}],
                },
            }
        )
        wanted = WantedNic(0, NetworkInterface.model_validate({"name": "eth0", **nic}), network)
        assert self.nics.serves(wanted)
        whose = VmOfNics(machine, machine.spec, (), Paths(self.folder, self.folder, self.folder).machine(uid))
        plans: Sequence[NicPlan] = await self.nics.plan(whose, [wanted])
        (plan,) = plans
        return plan

    async def next_woken(self) -> str:
        async with asyncio.timeout(20):
            return await self.woken.get()

    # -- what is seen --------------------------------------------------------------------------------------------
    async def until(
        self, kind: Kind, name: str, holds: Callable[[JsonObject], bool], namespace: str | None = None
    ) -> JsonObject:
        """The object once ``holds`` says so of it."""
        async with self.store.watch(kind, namespace, send_initial=True) as events:
            async for event in events:
                if event.object is None or event.type is EventType.DELETED or event.object.name != name:
                    continue
                if holds(found := event.object.json()):
                    return found
        raise AssertionError("the watch ended")

    async def ready(self, name: str = "dpu", *, status: str = "True", reason: str = "Ready") -> JsonObject:
        """The SmartNIC once its condition Ready says that, of its present state."""

        def says(found: JsonObject) -> bool:
            one = ready_of(found)
            return (one.get("status"), one.get("reason")) == (status, reason)

        return await self.until(SMART_NIC, name, says)

    async def functions(
        self, holds: Callable[[dict[str, JsonObject]], bool], name: str = "dpu"
    ) -> dict[str, JsonObject]:
        return functions_of(await self.until(SMART_NIC, name, lambda found: holds(functions_of(found))))

    async def port(self, name: str) -> JsonObject:
        return (await self.store.get(PORT, "default", name)).json()


def functions_of(smart_nic: JsonObject) -> dict[str, JsonObject]:
    return {one["id"]: one for one in (smart_nic.get("status") or {}).get("functions") or ()}


def conditions_of(obj: JsonObject) -> dict[str, JsonObject]:
    return {one["type"]: one for one in (obj.get("status") or {}).get("conditions") or ()}


def ready_of(obj: JsonObject) -> JsonObject:
    return conditions_of(obj).get("Ready", {})


@contextlib.asynccontextmanager
async def offload_world(folder: Path, functions: Sequence[int] = (0, 1)) -> AsyncIterator[OffloadWorld]:
    bus = FakePciBus(folder / "sysroot")
    for number in functions:
        bus.add(f"0000:{number + 1:02x}:00.0", mac=mac_of(number), name=f"enp{number + 1}s0", group=number + 10, node=0)
    (folder / "host").mkdir()
    async with open_store(folder / "host", "default", "carmel-system") as store:
        await store.create(NETWORK, {"metadata": {"name": "lan"}, "spec": LAN})
        yield OffloadWorld(folder, store, bus)


def port_key(vm: str, nic: str = "eth0") -> Key:
    return Key("default", f"{vm}-{nic}")
