"""Volumes that are exports of a real NBD server, as a lab's machine has them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from carmel.resources.base import JsonObject
from carmel.resources.core import NAMESPACE, SECRET
from carmel.resources.datastore import DATASTORE
from carmel.resources.volume import VOLUME
from carmel.smartnic.nvme.functions import Show
from carmel.units import MIB
from tests.fakes.nvme_contract import UID
from tests.system.smartnic.nvme.conftest import NicWorld
from tests.unit.storage.world import World, open_world


@asynccontextmanager
async def host(nic: NicWorld, psk: str | None = None) -> AsyncIterator[World]:
    """A host with the datastore ``nic``."""
    async with open_world(nic.folder) as world:
        await world.store.create(NAMESPACE, {"metadata": {"name": "carmel-system"}})
        words = {"username": nic.psk.username, "psk": psk or nic.psk.key}
        data = {key: base64.b64encode(value.encode()).decode() for key, value in words.items()}
        await world.store.create(SECRET, {"metadata": {"name": "nic", "namespace": "carmel-system"}, "data": data})
        exports = [{"name": f"pf0nvme{index}", "port": nic.port + index} for index in range(2)]
        nbd = {"address": "127.0.0.1", "tlsSecretRef": {"name": "nic"}, "exports": exports}
        await world.create(DATASTORE, "nic", {"type": "NBD", "nbd": nbd})
        yield world


async def volume(world: World, name: str, export: str = "pf0nvme0") -> JsonObject:
    return await world.volume(name, datastoreRef={"name": "nic"}, export=export)


async def error(world: World, name: str) -> Any:
    found = await world.until(VOLUME, name, lambda one: one.get("status", {}).get("error"))
    return found["status"]["error"]["code"]


async def test_an_export_is_a_volume_once_it_is_there(nic: NicWorld) -> None:
    async with nic.running() as functions, host(nic) as world:
        await volume(world, "first")
        assert await error(world, "first") == "ServerAway"
        await functions.show(Show(UID, "pf0nvme0", nic.disk(), 512))
        found = await world.until_phase(VOLUME, "first", "Ready")
        assert (found["status"]["capacityBytes"], found["status"]["format"]) == (16 * MIB, "raw")
        await volume(world, "second")
        assert await error(world, "second") == "ExportInUse"
        await world.delete(VOLUME, "first")
        await world.until_gone(VOLUME, "first")
        # Nothing of it went: the other has it now.
        await world.until_phase(VOLUME, "second", "Ready")


async def test_a_server_with_another_key_is_not_trusted(nic: NicWorld) -> None:
    async with nic.running() as functions, host(nic, psk="ab" * 32) as world:
        await functions.show(Show(UID, "pf0nvme0", nic.disk(), 512))
        await volume(world, "disk")
        assert await error(world, "disk") == "ServerNotTrusted"
    # No key is left behind.
    assert list(world.paths.nbd_keys.iterdir()) == []


async def test_a_name_that_is_not_exported_now_is_waited_for(nic: NicWorld) -> None:
    async with nic.running() as functions, host(nic) as world:
        await functions.show(Show(UID, "pf0nvme0", nic.disk(), 512))
        await world.change(DATASTORE, "nic", lambda one: one["spec"]["nbd"]["exports"][1].update(port=nic.port))
        await volume(world, "disk", "pf0nvme1")
        assert await error(world, "disk") == "ExportNotOffered"
