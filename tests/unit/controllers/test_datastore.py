"""Datastores: the default one, directories of the administrator, and what cannot be one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from carmel.resources.base import JsonObject
from carmel.resources.datastore import DATASTORE
from carmel.resources.volume import VOLUME
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
