"""Datastores: the default one, directories of the administrator, and what cannot be one."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from carmel.resources.base import JsonObject
from carmel.resources.core import NAMESPACE, SECRET
from carmel.resources.datastore import DATASTORE
from carmel.resources.smartnic import SMART_NIC
from carmel.resources.volume import VOLUME
from carmel.storage.drive import Drives
from tests.fakes.drives import FakeDrives
from tests.unit.hardware.machines import Tree
from tests.unit.storage.world import World, open_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as opened:
        yield opened


def ready(datastore: JsonObject) -> tuple[str, str] | None:
    for one in datastore.get("status", {}).get("conditions", []):
        if one["type"] == "Ready":
            return one["status"], one["reason"]
    return None


async def settled(world: World, name: str) -> JsonObject:
    return await world.until(DATASTORE, name, ready)


async def test_the_default_datastore_is_there_and_says_its_size(world: World) -> None:
    datastore = await settled(world, "local")
    assert ready(datastore) == ("True", "Open")
    assert datastore["status"]["capacityBytes"] >= datastore["status"]["freeBytes"] > 0
    assert world.datastores.get("local").directory.root == world.paths.default_datastore


async def test_a_directory_of_the_administrator(world: World, tmp_path: Path) -> None:
    place = tmp_path / "disks"
    await world.create(DATASTORE, "extra", {"directory": {"path": str(place)}})
    assert ready(await settled(world, "extra")) == ("True", "Open")
    assert sorted(os.listdir(place)) == ["images", "tmp", "volumes"]  # noqa: PTH208
    await world.delete(DATASTORE, "extra")
    await world.until_gone(DATASTORE, "extra")
    assert place.is_dir()
    assert world.datastores.find("extra") is None


async def test_what_cannot_be_one_says_why(world: World, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for name, path in (("etc", "/etc/carmel-store"), ("link", str(tmp_path / "link" / "disks"))):
        await world.create(DATASTORE, name, {"directory": {"path": path}})
        assert ready(await settled(world, name)) == ("False", "DatastorePathRefused")


async def test_two_datastores_do_not_share_a_directory(world: World, tmp_path: Path) -> None:
    spec = {"directory": {"path": str(tmp_path / "disks")}}
    await world.create(DATASTORE, "one", spec)
    await settled(world, "one")
    await world.create(DATASTORE, "two", spec)
    assert ready(await settled(world, "two")) == ("False", "DatastoreInUse")


async def test_one_that_holds_something_stays(world: World, tmp_path: Path) -> None:
    await world.create(DATASTORE, "extra", {"directory": {"path": str(tmp_path / "disks")}})
    await settled(world, "extra")
    await world.volume("waiting", imageRef={"name": "none"}, datastoreRef={"name": "extra"})
    await world.delete(DATASTORE, "extra")
    held = await world.until(
        DATASTORE, "extra", lambda one: [c for c in one["status"]["conditions"] if c["type"] == "Deletable"]
    )
    assert "default/waiting" in str(held["status"]["conditions"])


async def test_one_whose_directory_was_taken_away_is_not_made_anew(tmp_path: Path) -> None:
    place = tmp_path / "disks"
    async with open_world(tmp_path) as world:
        await world.create(DATASTORE, "extra", {"directory": {"path": str(place)}})
        await world.until(DATASTORE, "extra", lambda one: one.get("status", {}).get("capacityBytes"))
    place.rename(tmp_path / "unmounted")
    async with open_world(tmp_path) as world:
        await world.until(DATASTORE, "extra", lambda one: ready(one) == ("False", "DatastoreMissing"))
        assert not place.exists()
        await world.volume("data", size="1Mi", datastoreRef={"name": "extra"})
        waiting = await world.until(VOLUME, "data", lambda one: one.get("status", {}).get("error"))
        assert waiting["status"]["error"]["code"] == "DatastoreNotReady"


async def test_a_drive_is_mounted_used_and_given_back(tmp_path: Path) -> None:
    fake = FakeDrives(Tree(tmp_path / "root"))
    device = fake.add("nvme0", "S1")
    async with open_world(tmp_path, drives=Drives(fake, fake.tree.root)) as world:
        await world.create(DATASTORE, "fast", {"type": "NVMe", "nvme": {"serial": "S1"}})
        datastore = await settled(world, "fast")
        assert (ready(datastore), datastore["status"]["device"]) == (("True", "Open"), "/dev/nvme0n1")
        place = world.paths.default_datastore.parent / "fast"
        assert fake.mounted_at(device) == str(place)
        volume = await world.volume("disk", size="1Mi", datastoreRef={"name": "fast"})
        await world.until_phase(VOLUME, "disk", "Ready")
        assert (place / "volumes" / f"{volume['metadata']['uid']}.qcow2").is_file()
        await world.delete(DATASTORE, "fast")
        blocked = await world.until(DATASTORE, "fast", lambda one: len(one["status"]["conditions"]) > 1)
        assert {"DatastoreInUse"} <= {one["reason"] for one in blocked["status"]["conditions"]}
        assert fake.mounted_at(device) == str(place)
        await world.delete(VOLUME, "disk")
        await world.until_gone(DATASTORE, "fast")
        assert fake.mounted_at(device) is None


async def test_the_next_daemon_finds_the_drive_mounted(tmp_path: Path) -> None:
    fake = FakeDrives(Tree(tmp_path / "root"))
    fake.add("nvme0", "S1")
    for number in range(2):
        async with open_world(tmp_path, drives=Drives(fake, fake.tree.root)) as world:
            if fake.calls == []:
                await world.create(DATASTORE, "fast", {"type": "NVMe", "nvme": {"serial": "S1"}})
            await world.volume(f"disk-{number}", size="1Mi", datastoreRef={"name": "fast"})
            await world.until_phase(VOLUME, f"disk-{number}", "Ready")
    assert fake.calls == ["mke2fs", "mount"]


async def test_a_smartnics_drive_is_waited_for(tmp_path: Path) -> None:
    """For as long as its namespace stalls, and until the NIC is there again after that."""
    fake = FakeDrives(Tree(tmp_path / "root"))
    fake.add("nvme0", "pf0nvme0")
    async with open_world(tmp_path, drives=Drives(fake, fake.tree.root)) as world:
        status = {
            "functions": [{"id": "pf0nvme0", "kind": "nvme", "serial": "pf0nvme0"}],
            "namespaces": [{"name": "data", "function": "pf0nvme0", "stallSeconds": 300}],
        }
        body = await world.create(SMART_NIC, "nic0", {})
        await world.store.replace(SMART_NIC, {**body, "status": status}, subresource="status")
        await world.create(DATASTORE, "fast", {"type": "NVMe", "nvme": {"serial": "pf0nvme0"}})
        assert ready(await settled(world, "fast")) == ("True", "Open")
        assert (fake.tree.root / "sys/class/block/nvme0n1/queue/io_timeout").read_text() == "420000"


async def test_a_drive_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    fake = FakeDrives(Tree(tmp_path / "root"))
    async with open_world(tmp_path, drives=Drives(fake, fake.tree.root)) as world:
        await world.create(DATASTORE, "fast", {"type": "NVMe", "nvme": {"serial": "S1"}})
        assert ready(await settled(world, "fast")) == ("False", "DriveMissing")
        fake.add("nvme0", "S1")
        # It is looked for every few seconds; a change of the object asks at once.
        await world.change(DATASTORE, "fast", lambda one: one["metadata"].update(labels={"looked": "again"}))
        await world.until(DATASTORE, "fast", lambda one: ready(one) == ("True", "Open"))


async def test_a_server_of_disks_needs_its_key(world: World) -> None:
    nbd = {"address": "127.0.0.1", "tlsSecretRef": {"name": "nic"}, "exports": [{"name": "pf0nvme0", "port": 1}]}
    await world.create(DATASTORE, "nic", {"type": "NBD", "nbd": nbd})
    assert ready(await settled(world, "nic")) == ("False", "NoTLSKey")
    data = {key: base64.b64encode(value).decode() for key, value in {"username": b"a", "psk": b"ab" * 32}.items()}
    await world.store.create(NAMESPACE, {"metadata": {"name": "carmel-system"}})
    await world.store.create(SECRET, {"metadata": {"name": "nic", "namespace": "carmel-system"}, "data": data})
    await world.change(DATASTORE, "nic", lambda one: one["metadata"].update(labels={"looked": "again"}))
    await world.until(DATASTORE, "nic", lambda one: ready(one) == ("True", "Open"))
    for name, spec, code in (
        ("file", {"size": "1Mi"}, "DatastoreHoldsNoFiles"),
        ("other", {"export": "pf0nvme9"}, "ExportNotOffered"),
    ):
        await world.volume(name, datastoreRef={"name": "nic"}, **spec)
        found = await world.until(VOLUME, name, lambda one: one.get("status", {}).get("error"))
        assert found["status"]["error"]["code"] == code
    await world.volume("local", export="pf0nvme0")
    found = await world.until(VOLUME, "local", lambda one: one.get("status", {}).get("error"))
    assert found["status"]["error"]["code"] == "DatastoreExportsNothing"
