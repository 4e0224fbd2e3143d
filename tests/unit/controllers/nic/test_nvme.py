"""NVMeNamespaces on a SmartNIC: paths that come and go, functions, secrets, and what the host hears."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from carmel.controllers.datastore import Datastores
from carmel.controllers.nic.nvme import ExportKeys, NvmeNamespaceController, ShownNamespaces
from carmel.controllers.nic.nvme.blockpaths import BlockPaths
from carmel.controllers.nic.nvme.filling import Fillings
from carmel.controllers.runtime import Key, Runtime
from carmel.errors import CarmelError, NotFound, Unavailable
from carmel.resources.base import JsonObject
from carmel.resources.core import SECRET
from carmel.resources.nvmenamespace import NVME_NAMESPACE
from carmel.resources.smartnic import SMART_NIC
from carmel.smartnic.nvme.fabrics import host_nqn
from carmel.smartnic.nvme.functions import Limits
from carmel.smartnic.nvme.initiator import Initiator
from carmel.store.protocol import Store
from tests.fakes.clock import FakeClock
from tests.fakes.fabrics import FakeFabrics, RemoteTarget
from tests.fakes.nvme import FakeNvme
from tests.stores import open_store
from tests.unit.hardware.machines import GIB, Tree
from tests.unit.smartnic.test_fabrics import Modprobe

NQN = "nqn.2014-08.org.nvmexpress:uuid:7a1f3c52-8d60-4d55-9b21-2f6a8a0c1a11"
OURS = host_nqn("nic")


@dataclass
class World:
    store: Store
    fabrics: FakeFabrics
    clock: FakeClock = field(default_factory=FakeClock)
    functions: FakeNvme = field(default_factory=FakeNvme)

    def __post_init__(self) -> None:
        runtime = Runtime(self.store, "nic", clock=self.clock)
        initiator = Initiator(Modprobe(self.fabrics), self.fabrics.tree.root, self.fabrics.write)
        self.keys = ExportKeys(runtime)
        paths = BlockPaths(initiator, self.keys, OURS, self.clock, self.fabrics.tree.root)
        self.controller = NvmeNamespaceController(
            runtime, self.functions, paths, Fillings(runtime, Datastores(), self.fabrics.tree.root)
        )
        self.shown = ShownNamespaces(runtime, "nic", self.functions)
        self.initiator = initiator

    async def make(self, name: str = "data", source: JsonObject | None = None, **spec: Any) -> None:
        remote = {"remote": {"address": "192.0.2.7", "subsystemNQN": NQN}}
        body = {"metadata": {"name": name}, "spec": {"source": source or remote, **spec}}
        await self.store.create(NVME_NAMESPACE, body)

    async def change(self, name: str, **spec: Any) -> None:
        found = await self.get(name)
        found["spec"] = {key: value for key, value in {**found["spec"], **spec}.items() if value is not None}
        await self.store.replace(NVME_NAMESPACE, found)

    async def get(self, name: str = "data") -> JsonObject:
        return (await self.store.get(NVME_NAMESPACE, None, name)).json()

    async def look(self, name: str = "data") -> JsonObject:
        """One pass, and what it left in the status."""
        await self.controller.reconcile(Key(None, name))
        return dict((await self.get(name))["status"])

    async def refused(self, name: str = "data") -> str:
        with pytest.raises(CarmelError) as raised:
            await self.controller.reconcile(Key(None, name))
        return raised.value.code

    async def nic(self) -> JsonObject:
        """What the host may read."""
        await self.shown.reconcile(Key(None, "nic"))
        return dict((await self.store.get(SMART_NIC, None, "nic")).json().get("status") or {})

    async def secret(self, name: str, **words: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in words.items()}
        await self.store.create(SECRET, {"metadata": {"name": name, "namespace": "carmel-system"}, "data": data})


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[World]:
    async with open_store(folder, "default", "carmel-system") as store:
        fabrics = FakeFabrics(Tree(folder / "root"), [RemoteTarget("192.0.2.7", 4420, NQN, {1: GIB, 2: 2 * GIB})])
        await store.create(SMART_NIC, {"metadata": {"name": "nic"}})
        yield World(store, fabrics)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with opened(tmp_path) as world:
        yield world


async def test_connected_and_shown(world: World) -> None:
    await world.make(function="pf0nvme0", limits={"readMBps": 100, "iops": 5000})
    status = await world.look()
    assert status["state"] == "Online"
    assert (status["sizeBytes"], status["blockBytes"]) == (GIB, 512)
    assert (status["device"], status["function"]) == ("/dev/nvme0n1", "pf0nvme0")
    (shown,) = world.functions.shows.values()
    assert shown.limits == Limits(iops=5000, read_bytes=100_000_000)
    (connection,) = await world.initiator.connections()
    assert (connection.target.host_nqn, connection.stall_seconds) == (OURS, 600)


async def test_a_pass_that_finds_all_done_changes_nothing(world: World) -> None:
    await world.make(function="pf0nvme0")
    await world.look()
    before = await world.get()
    await world.look()
    assert await world.get() == before


async def test_the_host_hears_of_it_but_not_where_it_comes_from(world: World) -> None:
    await world.make(function="pf0nvme1", owner={"namespace": "team", "name": "db"}, stallSeconds=30)
    await world.look()
    status = await world.nic()
    assert status["namespaces"] == [
        {"name": "data", "state": "Online", "sizeBytes": GIB, "owner": {"namespace": "team", "name": "db"},
         "function": "pf0nvme1", "stallSeconds": 30}
    ]  # fmt: skip
    free, plugged = status["functions"]
    assert (free["id"], free["state"]) == ("pf0nvme0", "Free")
    assert (plugged["id"], plugged["state"], plugged["owner"]) == (
        "pf0nvme1", "Plugged", {"kind": "NVMeNamespace", "name": "data"},
    )  # fmt: skip
    assert "192.0.2.7" not in str(status)
    assert NQN not in str(status)


async def test_while_the_path_is_away_what_shows_it_is_left_alone(world: World) -> None:
    await world.make(function="pf0nvme0", stallSeconds=30)
    await world.look()
    before = dict(world.functions.shows)
    world.fabrics.targets[0].up = False
    world.fabrics.settle()
    assert (await world.look())["state"] == "Stalled"
    await world.clock.advance(31)
    status = await world.look()
    assert (status["state"], status["function"]) == ("Failed", "pf0nvme0")
    assert world.functions.shows == before
    world.fabrics.targets[0].up = True
    world.fabrics.settle()
    assert (await world.look())["state"] == "Online"


async def test_what_ended_while_the_path_was_away_is_shown_again_when_it_is_back(world: World) -> None:
    await world.make(function="pf0nvme0")
    await world.look()
    world.fabrics.targets[0].up = False
    world.fabrics.settle()
    world.functions.shows.clear()
    assert "function" not in await world.look()
    world.fabrics.targets[0].up = True
    world.fabrics.settle()
    assert (await world.look())["function"] == "pf0nvme0"


async def test_a_target_that_was_never_reached_is_asked_again(world: World) -> None:
    world.fabrics.targets[0].up = False
    await world.make(function="pf0nvme0")
    with pytest.raises(Unavailable) as raised:
        await world.look()
    assert (raised.value.code, raised.value.retryable) == ("PathAway", True)
    world.fabrics.targets[0].up = True
    assert (await world.look())["state"] == "Online"


async def test_a_namespace_that_the_target_does_not_have_is_waited_for(world: World) -> None:
    await world.make(source={"remote": {"address": "192.0.2.7", "subsystemNQN": NQN, "namespaceID": 9}})
    status = await world.look()
    assert status["state"] == "Connecting"
    assert "has not shown a namespace 9" in status["conditions"][0]["message"]


async def test_a_connection_is_shared_with_the_longest_stall_and_goes_with_its_last_user(world: World) -> None:
    await world.make("one", stallSeconds=30)
    await world.make(
        "two", {"remote": {"address": "192.0.2.7", "subsystemNQN": NQN, "namespaceID": 2}}, stallSeconds=60
    )
    for name in ("one", "two", "one"):
        await world.look(name)
        (connection,) = await world.initiator.connections()
        assert connection.stall_seconds == 60
    for name, left in (("two", 1), ("one", 0)):
        await world.store.delete(NVME_NAMESPACE, None, name)
        await world.controller.reconcile(Key(None, name))
        assert len(await world.initiator.connections()) == left
        with pytest.raises(NotFound):
            await world.get(name)


async def test_what_a_function_is_bound_to_is_not_deleted(world: World) -> None:
    await world.make(function="pf0nvme0")
    await world.look()
    await world.store.delete(NVME_NAMESPACE, None, "data")
    status = await world.look()
    assert [one["reason"] for one in status["conditions"] if one["type"] == "Deletable"] == ["NamespaceInUse"]
    assert world.functions.shows != {}
    await world.change("data", function=None)
    await world.controller.reconcile(Key(None, "data"))
    assert world.functions.shows == {}
    with pytest.raises(NotFound):
        await world.get()


async def test_the_same_blocks_are_not_shown_twice_and_no_function_shows_two(world: World) -> None:
    await world.make("first", function="pf0nvme0")
    await world.look("first")
    await world.make("again", {"remote": {"address": "192.0.2.8", "subsystemNQN": NQN}}, function="pf0nvme1")
    other = {"remote": {"address": "192.0.2.7", "subsystemNQN": NQN, "namespaceID": 2}}
    await world.make("other", other, function="pf0nvme0")
    assert await world.refused("again") == "SourceInUse"
    assert await world.refused("other") == "FunctionInUse"
    assert (await world.look("first"))["function"] == "pf0nvme0"
    await world.change("again", function=None)
    await world.change("other", function="pf0nvme1")
    assert (await world.look("other"))["function"] == "pf0nvme1"


async def test_a_drive_of_the_nic(world: World) -> None:
    tree = world.fabrics.tree
    world.fabrics.load()
    await world.make(source={"disk": {"serial": "S640"}}, function="pf0nvme0")
    assert await world.refused() == "DiskMissing"
    for path, text in (
        ("sys/class/nvme/nvme3/transport", "pcie"),
        ("sys/class/nvme/nvme3/serial", "S640"),
        ("sys/class/nvme/nvme3/nvme3n1/nsid", "1"),
        ("sys/class/block/nvme3n1/nsid", "1"),
        ("sys/class/block/nvme3n1/size", f"{GIB // 512}"),
        ("sys/class/block/nvme3n1/dev", "259:7"),
    ):
        tree.write(path, f"{text}\n")
    assert (await world.look())["device"] == "/dev/nvme3n1"
    # What lies on it is the host's; what the NIC has open is not.
    tree.write("run/udev/data/b259:7", "E:ID_FS_TYPE=ext4\n")
    assert (await world.look())["state"] == "Online"
    tree.write("proc/1/mountinfo", "36 35 259:7 / /srv rw,noatime - ext4 /dev/nvme3n1 rw\n")
    assert await world.refused() == "DeviceInUse"


async def test_the_nic_proves_who_it_is_where_that_is_asked_for(world: World) -> None:
    world.fabrics.targets[0].key = "DHHC-1:00:c2VjcmV0:"
    remote = {"address": "192.0.2.7", "subsystemNQN": NQN, "authSecretRef": {"name": "chap"}}
    await world.make(source={"remote": remote})
    assert await world.refused() == "NoAuthKey"
    await world.secret("chap", dhchap="DHHC-1:00:c2VjcmV0:")
    assert (await world.look())["state"] == "Online"


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"username": "carmel"},
        {"username": "carmel", "psk": "ab" * 31},
        {"username": "a:b", "psk": "ab" * 32},
        {"username": "carmel", "psk": "zz" * 32},
    ],
)
async def test_a_key_of_exports_that_is_none_is_refused(world: World, words: dict[str, str]) -> None:
    await world.secret("nvme-export", **words)
    with pytest.raises(CarmelError) as raised:
        await world.keys.psk()
    assert raised.value.code == "NoExportKey"


async def test_the_key_of_exports(world: World) -> None:
    await world.secret("nvme-export", username="carmel", psk="ab" * 32)
    assert (await world.keys.psk()).line == b"carmel:" + b"ab" * 32 + b"\n"


async def test_after_a_start_only_what_there_still_is_is_shown(world: World) -> None:
    await world.make(function="pf0nvme0")
    await world.look()
    await world.controller.adopt()
    assert len(world.functions.shows) == 1
    (show,) = world.functions.shows.values()
    world.functions.shows["gone"] = show
    await world.controller.adopt()
    assert list(world.functions.shows) == [show.uid]
