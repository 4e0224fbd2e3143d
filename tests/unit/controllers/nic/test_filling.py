"""What a namespace begins with: an image's disk, once, and only where nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from carmel.controllers.datastore import Datastores, OpenDatastore
from carmel.controllers.nic.nvme import ExportKeys, NvmeNamespaceController
from carmel.controllers.nic.nvme.blockpaths import BlockPaths
from carmel.controllers.nic.nvme.filling import Fillings
from carmel.controllers.runtime import Key, Runtime
from carmel.errors import CarmelError, Invalid
from carmel.resources.base import JsonObject
from carmel.resources.image import IMAGE
from carmel.resources.nvmenamespace import NVME_NAMESPACE
from carmel.smartnic.nvme.initiator import Initiator
from carmel.store.protocol import Store
from carmel.units import MIB
from tests.fakes.clock import FakeClock
from tests.fakes.fabrics import FakeFabrics
from tests.fakes.nvme import FakeNvme
from tests.stores import open_store
from tests.unit.hardware.machines import Tree
from tests.unit.smartnic.test_fabrics import Modprobe

SIZE = 16 * MIB
DATA = b"image" * 100_000


@dataclass
class Images:
    """The disks of images that are ready, by uid."""

    folder: Path
    opened: int = 0

    async def open_raw(self, _uid: str) -> tuple[BinaryIO, int]:
        self.opened += 1
        place = self.folder / "raw"
        place.write_bytes(DATA)
        return place.open("rb"), len(DATA)


@dataclass
class World:
    """A NIC with one drive, which a file stands for."""

    store: Store
    folder: Path
    functions: FakeNvme = field(default_factory=FakeNvme)

    def __post_init__(self) -> None:
        self.tree = Tree(self.folder / "root")
        self.images = Images(self.folder)
        for path, text in (
            ("sys/class/nvme/nvme3/transport", "pcie"),
            ("sys/class/nvme/nvme3/serial", "S640"),
            ("sys/class/nvme/nvme3/nvme3n1/nsid", "1"),
            ("sys/class/block/nvme3n1/nsid", "1"),
            ("sys/class/block/nvme3n1/size", f"{SIZE // 512}"),
            ("sys/class/block/nvme3n1/dev", "259:7"),
        ):
            self.tree.write(path, f"{text}\n")
        self.device.parent.mkdir(parents=True)
        self.device.write_bytes(bytes(SIZE))
        self.restart()

    def restart(self) -> None:
        """A new daemon."""
        runtime, clock = Runtime(self.store, "nic", clock=FakeClock()), FakeClock()
        datastores = Datastores()
        datastores.put("local", cast("OpenDatastore", _Open(self.images)))
        initiator = Initiator(Modprobe(FakeFabrics(self.tree)), self.tree.root)
        paths = BlockPaths(initiator, ExportKeys(runtime), "nqn.2014-08.org.nvmexpress:uuid:x", clock, self.tree.root)
        self.fillings = Fillings(runtime, datastores, self.tree.root)
        self.controller = NvmeNamespaceController(runtime, self.functions, paths, self.fillings)

    @property
    def device(self) -> Path:
        return self.tree.root / "dev/nvme3n1"

    async def make_image(self, **status: Any) -> None:
        body = {"metadata": {"name": "os", "namespace": "default"}, "spec": {"source": {"upload": {}}}}
        await self.store.create(IMAGE, body)
        ready = {"phase": "Ready", "type": "Disk", "virtualSizeBytes": len(DATA), "digest": "sha256:1", **status}
        found = (await self.store.get(IMAGE, "default", "os")).json()
        await self.store.replace(IMAGE, {**found, "status": ready}, subresource="status")

    async def make(self) -> None:
        spec = {"source": {"disk": {"serial": "S640"}}, "imageRef": {"name": "os"}, "function": "pf0nvme0"}
        await self.store.create(NVME_NAMESPACE, {"metadata": {"name": "boot"}, "spec": spec})

    async def get(self) -> JsonObject:
        return (await self.store.get(NVME_NAMESPACE, None, "boot")).json()

    async def look(self) -> JsonObject:
        await self.controller.reconcile(Key(None, "boot"))
        return dict((await self.get())["status"])

    async def refused(self) -> str:
        with pytest.raises(CarmelError) as raised:
            await self.controller.reconcile(Key(None, "boot"))
        return raised.value.code

    async def filled(self) -> JsonObject:
        """Passes until it is through."""
        async with asyncio.timeout(10):
            while (status := await self.look())["state"] == "Filling":
                assert self.functions.shows == {}
                await asyncio.sleep(0.01)
        return status


@dataclass
class _Open:
    images: Images


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_store(tmp_path, "default", "carmel-system") as store:
        world = World(store, tmp_path)
        yield world
        await world.fillings.stop_all()


async def test_it_is_copied_once_and_shown_afterwards(world: World) -> None:
    await world.make_image()
    await world.make()
    assert (await world.look())["state"] == "Filling"
    status = await world.filled()
    assert (status["state"], status["function"]) == ("Online", "pf0nvme0")
    assert (status["content"]["complete"], status["content"]["digest"]) == (True, "sha256:1")
    assert world.device.read_bytes() == DATA + bytes(SIZE - len(DATA))
    # What its owner wrote since stays, whatever comes of the daemon and of the image.
    world.device.write_bytes(b"mine")
    await world.store.delete(IMAGE, "default", "os")
    world.restart()
    assert (await world.look())["state"] == "Online"
    assert world.images.opened == 1
    assert world.device.read_bytes() == b"mine"


async def test_nothing_is_overwritten(world: World) -> None:
    await world.make_image()
    await world.make()
    world.device.write_bytes(bytes(SIZE - 1) + b"x")
    assert await world.refused() == "NamespaceNotEmpty"
    assert (world.functions.shows, world.images.opened) == ({}, 0)


async def test_what_was_half_copied_is_copied_anew(world: World) -> None:
    await world.make_image()
    await world.make()
    await world.look()
    await world.fillings.stop_all()
    world.device.write_bytes(b"half" + bytes(SIZE - 4))
    world.restart()
    assert (await world.filled())["state"] == "Online"
    assert world.device.read_bytes()[: len(DATA)] == DATA


async def test_an_image_that_is_missing_or_not_ready_is_waited_for(world: World) -> None:
    await world.make()
    assert await world.refused() == "ImageMissing"
    await world.make_image(phase="Uploading")
    assert await world.refused() == "ImageNotReady"
    assert world.functions.shows == {}


@pytest.mark.parametrize(
    ("status", "code"), [({"type": "Kernel"}, "NotADisk"), ({"virtualSizeBytes": SIZE + 1}, "ImageTooLarge")]
)
async def test_an_image_that_cannot_be_is_refused(world: World, status: JsonObject, code: str) -> None:
    await world.make_image(**status)
    await world.make()
    assert await world.refused() == code


async def test_another_image_is_not_taken_afterwards(world: World) -> None:
    await world.make()
    found = await world.get()
    found["spec"]["imageRef"] = {"name": "other"}
    with pytest.raises(Invalid):
        await world.store.replace(NVME_NAMESPACE, found)
