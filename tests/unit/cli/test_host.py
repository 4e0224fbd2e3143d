"""``carmel host`` and its commands, against the real API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from carmel.cli.host_api import all_vms
from carmel.cli.host_hardware import hardware_told
from carmel.cli.host_view import scene_of
from carmel.cli.session import Session
from carmel.client.api import Client, Selection
from carmel.client.discovery import ResourceType
from carmel.client.endpoint import Context, UnixEndpoint
from carmel.errors import Forbidden, Invalid
from carmel.hardware.boards import catalogue, synthetic
from carmel.hardware.reader import read_hardware
from carmel.hardware.status import hardware_status
from carmel.resources.base import JsonObject
from carmel.resources.host import HOST
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.units import GIB
from tests.unit.cli.conftest import Carmel
from tests.unit.cli.machines import machine, with_devices, with_huge_pages
from tests.unit.client.world import World

PLACED = {
    "policy": "Dedicated",
    "vcpus": [{"id": 0, "hostCpus": "2"}, {"id": 1, "hostCpus": "3"}],
    "memoryNodes": [1],
    "pageSizeBytes": 4096,
    "emulatorCpus": "1",
    "reasons": ["Node 1 holds all of it."],
    "nextBest": "Node 0: it is busier.",
}
MOVE = {
    "namespace": "default",
    "name": "web",
    "fromNodes": [0],
    "toNodes": [1],
    "fromCpus": "0-1",
    "toCpus": "2-3",
    "memoryBytes": GIB,
    "reason": "leaves node 0 to larger VMs",
}


def change_status(world: World, kind: Any, namespace: str | None, name: str, **status: Any) -> None:
    async def change(store: Any) -> None:
        obj = (await store.get(kind, namespace, name)).json()
        obj["status"] = {**(obj.get("status") or {}), **status}
        obj["metadata"].pop("resourceVersion")
        await store.replace(kind, obj, subresource="status")

    world.do(change)


@pytest.fixture
def silicon(world: World, carmel: Carmel) -> Iterator[JsonObject]:
    """The host tells two nodes of two CPUs, of which CPU 0 is its own."""
    hardware = with_devices(machine(sockets=2, cores=2, memory_bytes=8 * GIB)).to_json()
    placement = {"reservedCpus": "0", "reservedMemoryBytes": GIB, "freeCpus": "1-3"}
    change_status(world, HOST, None, "pi", hardware=hardware, placement=placement, rebalance=None)
    yield hardware
    carmel("patch", "host", "pi", "-p", "spec: {placement: {rebalance: {requestedAt: null}}}")
    change_status(world, HOST, None, "pi", hardware=None, placement=None, rebalance=None)


@pytest.fixture
def placed(carmel: Carmel, world: World, silicon: JsonObject, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name.replace("_", "-").removeprefix("test-")[:40].strip("-")
    assert carmel("run", "micro", "--name", name, "--cpus", "2", "--dedicated", "--wait=ready").status == 0
    change_status(world, VIRTUAL_MACHINE, "default", name, placement=PLACED)
    yield name
    carmel("delete", "vm", name, "--force")


def test_a_bare_host_draws_the_machine_with_its_vms(carmel: Carmel, placed: str) -> None:
    told = carmel("host")
    assert told.status == 0
    assert "┌ Socket 0: 2 cores, Neoverse-N1" in told.out
    assert f"A {placed[:10]}" in told.out
    assert "│ 2 AA" in told.out
    assert "Kept for the host:" in told.out
    assert "CPUs 0 and 1 GiB" in told.out
    assert carmel("host", "show").out == told.out
    assert carmel("host", "pi").out == told.out
    assert carmel("host", "show", "pi", "--ascii").out.isascii()


def test_a_host_for_scripts_is_the_object(carmel: Carmel, silicon: JsonObject) -> None:
    as_json = carmel("host", "-o", "json").json()
    assert as_json["status"]["hardware"] == silicon
    assert yaml.safe_load(carmel("host", "pi", "-o", "yaml").out) == as_json
    assert carmel("host", "-o", "name").out == "host.carmel.dev/pi\n"
    assert carmel("host", "nowhere").status == 3


def test_options_before_a_command_of_the_group_are_told_where_to_go(carmel: Carmel) -> None:
    told = carmel("host", "-n", "lab", "rebalance")
    assert (told.status, "`carmel host rebalance`" in told.err) == (2, True)


def test_help_of_the_group_shows_the_options_of_a_bare_host(lone: Carmel) -> None:
    told = lone("host", "--help").out
    for expected in ("--sysroot", "--ascii", "rebalance", "carmel host -o json"):
        assert expected in told


def test_silicon_that_cannot_be_read_leaves_the_facts(carmel: Carmel, world: World, silicon: JsonObject) -> None:
    change_status(world, HOST, None, "pi", hardware={**silicon, "clusters": ["9-1"]})
    told = carmel("host")
    assert told.status == 0
    assert "Raspberry Pi 4" in told.out
    assert "┌" not in told.out
    assert told.err.startswith("warning: what host 'pi' tells of its silicon cannot be read: ")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("sockets", 0, "cpus"), "x"),
        (("numaNodes", 0, "memoryBytes"), "much"),
        (("clusters",), ["0-99999"]),
        (("cpuKinds",), None),
    ],
)
def test_what_is_no_silicon_is_named(path: tuple[Any, ...], value: Any) -> None:
    hardware = machine(sockets=2, cores=2).to_json()
    inner: Any = hardware
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    with pytest.raises(Invalid, match="host 'pi' tells of its silicon cannot be read") as raised:
        scene_of({"metadata": {"name": "pi"}, "status": {"hardware": hardware}}, [])
    assert raised.value.code == "HardwareUnreadable"


def test_vms_are_told_with_their_namespaces_only_where_there_are_several() -> None:
    host = {"metadata": {"name": "pi"}, "status": {"hardware": machine(cores=4).to_json()}}

    def vm(namespace: str, name: str, host_name: str = "pi", **status: Any) -> JsonObject:
        return {
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"memory": {"size": "1Gi"}},
            "status": {"hostName": host_name, "powerState": "PoweredOn", **status},
        }

    here = {**PLACED, "memoryNodes": [0]}
    guests = (
        scene_of(host, [vm("a", "x", placement=here), vm("a", "y", "other", placement=here)]).boxes[0].parts[0].guests
    )
    assert [guest.tenant.name for guest in guests] == ["x"]
    scene = scene_of(host, [vm("a", "x", placement=here), vm("b", "x"), vm("b", "off", powerState="PoweredOff")])
    assert [guest.tenant.name for guest in scene.boxes[0].parts[0].guests] == ["a/x"]
    assert scene.unplaced == ("b/x",)
    assert scene.boxes[0].parts[0].pools[0].used_bytes == GIB


def test_who_may_see_one_namespace_only_sees_its_vms(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(Context("local", UnixEndpoint(world.socket))) as client:
        session = Session(client, "lab")
        whole = client.list

        def narrow(kind: ResourceType, selection: Selection) -> JsonObject:
            if selection.namespace is None:
                raise Forbidden("not everywhere")
            return whole(kind, selection)

        monkeypatch.setattr(client, "list", narrow)
        assert all_vms(session) == []


# -- recorded machines ----------------------------------------------------------------------------------------------
def test_a_recorded_machine_is_read_without_a_daemon(lone: Carmel, recorded_root: Path) -> None:
    root = str(recorded_root)
    told = lone("host", "--sysroot", root)
    assert (told.status, told.err) == (0, "")
    assert "64 cores, TaiShan v110" in told.out
    assert "32  33" in told.out
    as_json = lone("host", "--sysroot", root, "-o", "json").json()
    assert as_json["kind"] == "Host"
    assert as_json["status"]["hardware"] == hardware_status(read_hardware(Path(root))).to_json()
    assert yaml.safe_load(lone("host", "--sysroot", root, "-o", "yaml").out) == as_json
    assert lone("host", "--sysroot", root, "-o", "jsonpath={.status.capacity.cpus}").out == "128\n"


def test_a_folder_that_is_no_machine_is_refused(lone: Carmel, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    told = lone("host", "--sysroot", str(tmp_path / "empty"))
    assert told.status == 5
    assert "empty" in told.err
    error = json.loads(lone("host", "--sysroot", str(tmp_path / "empty"), "-o", "json").err)
    assert error["code"] != "InternalError"
    assert lone("host", "--sysroot", str(tmp_path / "nothing")).status == 2
    assert lone("host", "pi", "--sysroot", str(tmp_path)).status == 2
    assert lone("host", "--sysroot", str(tmp_path), "-o", "wide").status == 2


@pytest.mark.parametrize("board", sorted(catalogue()))
def test_a_machine_told_is_told_back(board: str) -> None:
    """What placement and picture look at survives the way through the API."""
    before = synthetic(board)
    after = hardware_told(hardware_status(before))
    assert [(cpu.id, cpu.socket, cpu.node, cpu.kind) for cpu in after.cpus] == [
        (cpu.id, cpu.socket, cpu.node, cpu.kind) for cpu in before.cpus
    ]
    for field in (
        "architecture",
        "page_bytes",
        "huge_pages",
        "nics",
        "accelerators",
        "pci",
        "kvm",
        "firmware",
        "board",
    ):
        assert getattr(after, field) == getattr(before, field), field
    for groups in ("sockets", "clusters", "cores"):
        members = {group.cpus for group in getattr(before, groups)}
        assert {group.cpus for group in getattr(after, groups)} == members
    assert [(node.id, node.cpus, node.memory_bytes, dict(node.distances), node.huge_pages) for node in after.nodes] == [
        (node.id, node.cpus, node.memory_bytes, dict(node.distances), node.huge_pages) for node in before.nodes
    ]
    assert {(cache.level, cache.type, cache.size_bytes, cache.cpus) for cache in after.caches} == {
        (cache.level, cache.type, cache.size_bytes, cache.cpus) for cache in before.caches
    }


# -- rebalance ------------------------------------------------------------------------------------------------------
def test_proposed_moves_are_shown_and_none_is_made(carmel: Carmel, world: World, silicon: JsonObject) -> None:
    assert carmel("host", "rebalance", "--dry-run").out.startswith("Nothing to move")
    change_status(world, HOST, None, "pi", rebalance={"proposed": [MOVE]})
    told = carmel("host", "rebalance", "--dry-run")
    assert told.out.splitlines()[0].split() == ["VM", "FROM", "TO", "MEMORY", "WHY"]
    assert "default/web   node 0 (CPUs 0-1)   node 1 (CPUs 2-3)   1 GiB    leaves node 0" in told.out
    assert "1 move would copy 1 GiB" in told.out
    assert carmel("host", "rebalance", "pi", "--dry-run", "-o", "json").json() == {"proposed": [MOVE]}
    assert "requestedAt" not in carmel("host", "-o", "yaml").out
    assert "for 1 VM: `carmel host rebalance --dry-run`" in carmel("host").out


def test_moves_are_asked_for_and_waited_for(carmel: Carmel, world: World, silicon: JsonObject) -> None:
    change_status(world, HOST, None, "pi", rebalance={"proposed": [MOVE], "answeredAt": "2999-01-01T00:00:00Z"})
    told = carmel("host", "rebalance")
    assert told.status == 0
    assert "default/web   node 0 (CPUs 0-1)   node 1 (CPUs 2-3)" in told.out
    # Its answer is of a clock that is ahead of ours: the wish is later all the same.
    assert carmel("host", "-o", "json").json()["status"]["rebalance"]["answeredAt"] == "2999-01-01T00:00:01Z"
    assert carmel("host", "rebalance").out.startswith("Nothing was moved")


def test_a_move_that_failed_is_told_and_ends_with_5(carmel: Carmel, world: World, silicon: JsonObject) -> None:
    change_status(world, HOST, None, "pi", rebalance={"proposed": [MOVE, {**MOVE, "name": "stubborn"}]})
    told = carmel("host", "rebalance")
    assert told.status == 5
    assert "FAILED: its memory is locked" in told.out
    assert "1 of 2 moves failed: default/stubborn: its memory is locked" in told.err
    before = carmel("host", "-o", "json").json()["status"]["rebalance"]
    assert len(before["done"]) == 2
    change_status(world, HOST, None, "pi", rebalance={**before, "proposed": [{**MOVE, "name": "stubborn"}]})
    told = carmel("host", "rebalance", "-o", "json")
    assert told.status == 5
    assert [one["error"] for one in told.json()["done"]] == ["its memory is locked"]
    assert json.loads(told.err)["code"] == "MoveFailed"


def test_rebalance_takes_time_and_forms_that_there_are(carmel: Carmel) -> None:
    assert carmel("host", "rebalance", "-o", "name").status == 2
    assert carmel("host", "rebalance", "nowhere").status == 3


# -- describe -------------------------------------------------------------------------------------------------------
def test_describe_says_why_a_vm_is_where_it_is(carmel: Carmel, placed: str) -> None:
    told = carmel("describe", "vm", placed).out
    assert "Placed:" in told
    assert "NUMA node 1, dedicated CPUs 2-3" in told
    lines = [" ".join(line.split()) for line in told.splitlines()]
    for expected in (
        "vCPUs: 0-1 on CPUs 2-3, one each",
        "Why here: Node 1 holds all of it.",
        "Next best: Node 0: it is busier.",
        "QEMU's threads: CPUs 1",
    ):
        assert expected in lines
    assert "hostCpus" not in told
    wide = carmel("get", "vm", placed, "-o", "wide").out
    assert "NODES" in wide
    assert "[1]" in wide


def test_describe_sends_who_wants_silicon_to_the_picture(carmel: Carmel, silicon: JsonObject) -> None:
    told = carmel("describe", "host", "pi").out
    assert "Hardware: `carmel host pi` draws it" in told
    assert "numaNodes" not in told
    assert "reservedCpus: 0" in told


def test_huge_pages_and_devices_are_offered(world: World, carmel: Carmel, silicon: JsonObject, home: Path) -> None:
    from tests.unit.cli.test_main import complete

    hardware = with_huge_pages(with_devices(machine(sockets=2, cores=2)), GIB, 2).to_json()
    hardware["hugePages"] = [{"sizeBytes": GIB, "total": 4, "free": 4}, {"sizeBytes": 2**21, "total": 0, "free": 0}]
    change_status(world, HOST, None, "pi", hardware=hardware)
    assert complete(world.folder, home, "carmel run micro --page-size ") == ["2Mi", "1Gi"]
    assert complete(world.folder, home, "carmel run micro --near nv") == ["nvme0", "nvme1"]
    assert complete(world.folder, home, "carmel host p") == ["pi"]
    assert complete(world.folder, home, "carmel plan --board raspberry-pi-40") == ["raspberry-pi-400"]
