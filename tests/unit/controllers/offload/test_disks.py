"""Disks of VMs that are NVMe functions: bound on the NIC, found on the host, given to one VM, and given back."""

from __future__ import annotations

import pytest

from carmel.errors import CarmelError
from carmel.resources.base import JsonObject
from carmel.resources.core import NAMESPACE
from carmel.resources.datastore import DATASTORE
from carmel.resources.nvmenamespace import NVME_NAMESPACE
from carmel.resources.smartnic import SMART_NIC
from carmel.resources.volume import VOLUME, Volume
from tests.fakes.nic import FakeNic
from tests.unit.controllers.offload.world import OffloadWorld, functions_of
from tests.unit.hardware.machines import GIB

ADDRESS = "0000:05:00.0"
SOURCE = {"disk": {"serial": "S1"}}
FUNCTIONS = [{"id": f"pf0nvme{number}", "kind": "nvme", "serial": f"pf0nvme{number}"} for number in range(2)]


async def offer(nic: FakeNic, name: str = "data", vm: str | None = "db", function: str | None = None) -> None:
    """The NIC's administrators make a namespace, and the NIC tells of it."""
    owner = {"namespace": "default", "name": vm} if vm is not None else None
    spec = {"source": SOURCE, **({"owner": owner} if owner else {}), **({"function": function} if function else {})}
    await nic.store.create(NVME_NAMESPACE, {"metadata": {"name": name}, "spec": spec})
    await shown(nic)


async def shown(nic: FakeNic) -> None:
    """What its daemon does: what is bound is shown, and told."""
    listed = []
    for stored in (await nic.store.list(NVME_NAMESPACE)).items:
        found = stored.json()
        told = {key: found["spec"][key] for key in ("owner", "function") if key in found["spec"]}
        listed.append({"name": stored.name, "state": "Online", "sizeBytes": GIB, **told})
    await nic.tell(namespaces=listed, functions=FUNCTIONS)


async def bound(nic: FakeNic, name: str = "data") -> str | None:
    function: str | None = (await nic.store.get(NVME_NAMESPACE, None, name)).json()["spec"].get("function")
    return function


async def volume(world: OffloadWorld, name: str = "disk", export: str = "data", namespace: str = "default") -> Volume:
    spec = {"datastoreRef": {"name": "dpu"}, "export": export}
    body = {"metadata": {"name": name, "namespace": namespace}, "spec": spec}
    return Volume.model_validate_json((await world.store.create(VOLUME, body)).raw)


async def joined(world: OffloadWorld, nic: FakeNic) -> None:
    await world.join(nic)
    await world.store.create(
        DATASTORE, {"metadata": {"name": "dpu"}, "spec": {"type": "SmartNIC", "smartNICRef": {"name": "dpu"}}}
    )
    await world.ready()


async def told(world: OffloadWorld, function: str | None) -> None:
    """The host heard that the namespace is shown by that function, and found the function."""

    def so(found: JsonObject) -> bool:
        status = found.get("status") or {}
        names = {one.get("function") for one in status.get("namespaces") or ()}
        return function in names and (
            function is None or functions_of(found).get(function, {}).get("pciAddress") is not None
        )

    await world.until(SMART_NIC, "dpu", so)


def plug(world: OffloadWorld, number: int = 0) -> None:
    """The drive appears on the host's PCI bus."""
    world.bus.add(ADDRESS, name="nvme7", serial=f"pf0nvme{number}", group=30, class_code=0x010802, driver="nvme")
    world.controller.host_changed()


async def code_of(world: OffloadWorld, disk: Volume, vm: str | None = None) -> str:
    asked = world.disks.prepare("dpu", disk) if vm is None else world.disks.give("dpu", disk, vm)
    with pytest.raises(CarmelError) as raised:
        await asked
    return raised.value.code


async def ready_disk(world: OffloadWorld, nic: FakeNic) -> Volume:
    await offer(nic)
    await joined(world, nic)
    disk = await volume(world)
    assert await code_of(world, disk) == "WaitingForSmartNIC"
    await shown(nic)
    plug(world)
    await told(world, "pf0nvme0")
    assert await world.disks.prepare("dpu", disk) == GIB
    await world.store.replace(
        VOLUME, {**disk.to_json(), "kind": "Volume", "status": {"capacityBytes": GIB}}, subresource="status"
    )
    return disk


async def test_bound_found_given_and_given_back(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        disk = await ready_disk(world, nic)
        assert await bound(nic) == "pf0nvme0"
        assert await world.disks.give("dpu", disk, "db") == ADDRESS
        assert world.bus.driver(ADDRESS) == "vfio-pci"
        # Started again, by whichever daemon: the same one.
        assert await world.disks.give("dpu", disk, "db") == ADDRESS
        world.controller.host_changed()
        owned = await world.functions(lambda found: "owner" in found["pf0nvme0"])
        assert owned["pf0nvme0"]["owner"] == {"kind": "Volume", "namespace": "default", "name": "disk"}
        await world.disks.release("dpu", disk)
        assert await bound(nic) is None
        assert world.bus.driver(ADDRESS) == "nvme"


async def test_what_was_given_away_a_moment_ago_comes_back_too(world: OffloadWorld, nic: FakeNic) -> None:
    """The SmartNIC's status does not tell of it yet."""
    async with world.daemon():
        disk = await ready_disk(world, nic)
        await world.disks.give("dpu", disk, "db")
        await world.disks.release("dpu", disk)
        assert world.bus.driver(ADDRESS) == "nvme"


async def test_only_the_vm_that_the_nics_administrators_named_gets_it(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        disk = await ready_disk(world, nic)
        assert await code_of(world, disk, "web") == "NamespaceOfAnother"
        assert world.bus.driver(ADDRESS) == "nvme"
        await offer(nic, "hosts", vm=None)
        await world.until(SMART_NIC, "dpu", lambda found: len(found["status"]["namespaces"]) > 1)
        assert await code_of(world, await volume(world, "other", "hosts")) == "NamespaceOfAnother"
        assert await bound(nic, "hosts") is None
        await world.store.create(NAMESPACE, {"metadata": {"name": "team"}})
        assert await code_of(world, await volume(world, "disk", "data", "team")) == "NamespaceOfAnother"


async def test_what_has_a_functions_address_now_is_not_taken_for_it(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        disk = await ready_disk(world, nic)
        world.bus.remove(ADDRESS)
        world.bus.add(ADDRESS, name="nvme7", serial="S64DNX0", group=30, class_code=0x010802, driver="nvme")
        assert await code_of(world, disk, "db") == "WaitingForFunction"
        assert world.bus.driver(ADDRESS) == "nvme"


async def test_a_drive_that_the_host_has_mounted_is_not_taken_from_it(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        disk = await ready_disk(world, nic)
        root = world.bus.root
        for path, text in (
            ("sys/class/nvme/nvme7/nvme7n1/nsid", "1"),
            ("sys/class/block/nvme7n1/dev", "259:1"),
            ("proc/1/mountinfo", "36 35 259:1 / /srv rw - ext4 /dev/nvme7n1 rw"),
        ):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text + "\n")
        assert await code_of(world, disk, "db") == "FunctionInUse"
        assert world.bus.driver(ADDRESS) == "nvme"


async def test_a_function_that_does_not_come_is_waited_for(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await offer(nic, function="pf0nvme1")
        await joined(world, nic)
        disk = await volume(world)
        await world.until(SMART_NIC, "dpu", lambda found: bool((found.get("status") or {}).get("namespaces")))
        assert await code_of(world, disk) == "WaitingForFunction"
        plug(world, 1)
        await told(world, "pf0nvme1")
        assert await world.disks.prepare("dpu", disk) == GIB


async def test_what_is_not_offered_and_what_is_all_taken(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        await offer(nic, "a", function="pf0nvme0")
        await offer(nic, "b", function="pf0nvme1")
        await offer(nic, "c")
        await joined(world, nic)
        await world.until(SMART_NIC, "dpu", lambda found: len((found.get("status") or {}).get("namespaces") or ()) == 3)
        assert await code_of(world, await volume(world, "none", "nothing")) == "ExportNotOffered"
        assert await code_of(world, await volume(world, "third", "c")) == "NoFreeFunction"


async def test_a_smartnic_whose_function_a_volume_has_is_not_deleted(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        disk = await ready_disk(world, nic)
        await world.disks.give("dpu", disk, "db")
        await world.store.delete(SMART_NIC, None, "dpu")
        found = await world.ready(status="False", reason="FunctionsInUse")
        assert "Volume default/disk" in str(found["status"]["conditions"])
        assert world.bus.driver(ADDRESS) == "vfio-pci"


async def test_while_the_nic_is_away_nothing_is_forgotten(world: OffloadWorld, nic: FakeNic) -> None:
    async with world.daemon():
        disk = await ready_disk(world, nic)
        await nic.stop()
        await world.ready(status="False", reason="NICUnreachable")
        assert await world.disks.prepare("dpu", disk) == GIB
        assert await world.disks.give("dpu", disk, "db") == ADDRESS
        with pytest.raises(CarmelError) as raised:
            await world.disks.release("dpu", disk)
        assert raised.value.retryable
        assert await bound(nic) == "pf0nvme0"
