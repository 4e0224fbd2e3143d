"""``carmel plan``: where VMs would go, and that the answer is the host's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from carmel.cli.manifests import Manifest
from carmel.cli.plan_ground import board_ground, host_ground
from carmel.cli.plan_manifests import wanted_vms
from carmel.cli.what_if import plan_for
from carmel.cli.what_if_scene import scene_of_plan
from carmel.errors import Invalid
from carmel.hardware.boards import synthetic
from carmel.hardware.status import hardware_status
from carmel.placement.defaults import default_rules
from carmel.placement.model import Placement
from carmel.placement.status import placement_status
from carmel.resources.base import JsonObject
from carmel.units import GIB
from tests.unit.cli.conftest import Carmel

BOARD = "mt-jade-altra-max"
Write = Callable[..., str]


def vm(name: str, cpus: int = 1, memory: str = "1Gi", policy: str = "Shared", **spec: Any) -> JsonObject:
    return {
        "apiVersion": "carmel.dev/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {"cpu": {"count": cpus, "policy": policy}, "memory": {"size": memory}, **spec},
    }


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(*objects: JsonObject) -> str:
        file = tmp_path / "vms.yaml"
        file.write_text(yaml.safe_dump_all(objects))
        return str(file)

    return to_file


def manifests(*objects: JsonObject) -> list[Manifest]:
    return [Manifest("vms.yaml", one) for one in objects]


# -- the command ----------------------------------------------------------------------------------------------------
def test_vms_on_a_board_that_one_does_not_have(lone: Carmel, write: Write) -> None:
    file = write(vm("db", 8, "32Gi", "Dedicated"), vm("web", 4))
    told = lone("plan", "--board", BOARD, "--memory", "512Gi", "-f", file)
    assert (told.status, told.err) == (0, "")
    lines = told.out.splitlines()
    assert lines[0].split() == ["VM", "VCPUS", "MEMORY", "NODES", "CPUS"]
    assert lines[1].split()[:6] == ["default/db", "8", "dedicated", "32", "GiB", "0"]
    assert lines[2].startswith("    ")
    assert "┌ Socket 1: 128 cores" in told.out
    assert "A db" in told.out
    assert max(map(len, lines)) <= 80
    assert lone("plan", "--board", BOARD, "--ascii", "-f", file).out.isascii()


def test_a_vm_without_a_place_is_told_with_what_would_fit_and_ends_with_5(lone: Carmel, write: Write) -> None:
    file = write(vm("fits"), vm("large", 300, "1Gi", "Dedicated"), {**vm("x"), "kind": "Secret", "apiVersion": "v1"})
    told = lone("plan", "--board", BOARD, "-f", file)
    assert told.status == 5
    assert "300 dedicated" in told.out
    assert "no place" in told.out
    assert "Left out, since they need no place: 1 Secret." in told.err
    assert "error: 1 of 2 VMs has no place on " in told.err
    outcome = lone("plan", "--board", BOARD, "-f", file, "-o", "json")
    assert outcome.status == 5
    fits, large = outcome.json()["virtualMachines"]
    assert "refusal" not in fits
    assert fits["placement"]["memoryNodes"] in ([0], [1])
    assert large["refusal"].keys() == {"code", "message", "hint", "permanent"}
    assert (large["refusal"]["permanent"], bool(large["refusal"]["hint"])) == (True, True)
    assert "placement" not in large
    assert json.loads(outcome.err)["code"] == "NoPlace"


def test_huge_pages_of_a_board_are_what_one_says(lone: Carmel, write: Write) -> None:
    wanted = vm("db", 2, "4Gi")
    wanted["spec"]["memory"]["pageSize"] = "1Gi"
    file = write(wanted)
    refused = lone("plan", "--board", BOARD, "-f", file, "-o", "json").json()["virtualMachines"][0]["refusal"]
    assert refused["code"] == "InsufficientHugePages"
    placed = lone("plan", "--board", BOARD, "--huge-pages", "1Gi=8", "-f", file, "-o", "yaml")
    assert placed.status == 0
    assert yaml.safe_load(placed.out)["virtualMachines"][0]["placement"]["pageSizeBytes"] == GIB


def test_a_list_on_a_recorded_machine(lone: Carmel, tmp_path: Path, recorded_root: Path) -> None:
    (tmp_path / "list.yaml").write_text(yaml.safe_dump({"kind": "List", "items": [vm("a", 32), vm("b", 32)]}))
    told = lone("plan", "--sysroot", str(recorded_root), "-f", str(tmp_path / "list.yaml"), "-o", "json").json()
    assert [one["name"] for one in told["virtualMachines"]] == ["a", "b"]
    first, second = (one["placement"]["memoryNodes"] for one in told["virtualMachines"])
    assert first != second


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("-f", "FILE", "--memory", "1Gi"),
        ("-f", "FILE", "--board", BOARD, "--sysroot", "/"),
        ("-f", "FILE", "--board", BOARD, "--host", "pi"),
        ("-f", "FILE", "--board", BOARD, "--memory", "lots"),
        ("-f", "FILE", "--board", BOARD, "--huge-pages", "1Gi"),
        ("-f", "FILE", "--board", BOARD, "--huge-pages", "big=1"),
        ("-f", "FILE", "--board", BOARD, "-o", "name"),
    ],
)
def test_command_lines_that_are_wrong(lone: Carmel, write: Write, words: tuple[str, ...]) -> None:
    file = write(vm("a"))
    assert lone("plan", *(file if word == "FILE" else word for word in words)).status == 2


def test_an_unknown_board_is_answered_with_near_ones(lone: Carmel, write: Write) -> None:
    told = lone("plan", "--board", "mt-jade", "-f", write(vm("a")))
    assert told.status == 3
    assert BOARD in told.err


def test_specs_are_checked_as_the_server_checks_them(lone: Carmel, carmel: Carmel, write: Write) -> None:
    bad = vm("bad", 4, topology={})
    bad["spec"] = {"cpu": {"count": 4, "topology": {"sockets": 3}}, "memory": {"size": "1Gi"}}
    also = vm("also", 0)
    file = write(bad, also)
    told = lone("plan", "--board", BOARD, "-f", file)
    assert told.status == 5
    assert "spec.cpu.topology" in told.err
    assert "spec.cpu.count" in told.err
    assert carmel("create", "-f", write(bad)).err.splitlines()[0].removeprefix("error: ") in told.err
    typo = vm("typo")
    typo["spec"]["cpux"] = 1
    assert "unknown fields: spec.cpux" in lone("plan", "--board", BOARD, "-f", write(typo)).err
    assert "apiVersion" in lone("plan", "--board", BOARD, "-f", write({**vm("a"), "apiVersion": "carmel.dev/v1"})).err
    assert "2 times" in lone("plan", "--board", BOARD, "-f", write(vm("a"), vm("a"))).err
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    assert "no VirtualMachine" in lone("plan", "--board", BOARD, "-f", write(secret)).err


def test_a_host_without_silicon_says_so(carmel: Carmel, write: Write) -> None:
    told = carmel("plan", "-f", write(vm("a")))
    assert told.status == 5
    assert "host 'pi' does not tell its silicon" in told.err
    assert carmel("plan", "--host", "nowhere", "-f", write(vm("a"))).status == 3


# -- the answer -----------------------------------------------------------------------------------------------------
def test_vms_are_placed_in_order_and_each_counts_for_the_next() -> None:
    ground = board_ground(BOARD, "512Gi", {})
    wanted = wanted_vms(manifests(*(vm(f"vm-{number}", 60, "8Gi", "Dedicated") for number in range(6))), "lab")
    plan = plan_for(ground, wanted.vms)
    taken = [cpu for one in plan.all for cpus in one.vcpus for cpu in cpus]
    assert len(taken) == len(set(taken)) == 60 * len(plan.all)
    assert [answer.request.name for answer in plan.refused] == [
        f"lab/vm-{number}" for number in range(len(plan.all), 6)
    ]
    guests = {
        guest.tenant.name for box in scene_of_plan(ground, plan).boxes for part in box.parts for guest in part.guests
    }
    assert guests == {f"vm-{number}" for number in range(len(plan.all))}


def test_shared_vms_are_told_without_the_cpus_that_were_dedicated_after_them() -> None:
    ground = board_ground("raspberry-pi-4b", "4Gi", {})
    plan = plan_for(ground, wanted_vms(manifests(vm("web", 2), vm("db", 1, "1Gi", "Dedicated")), "lab").vms)
    web, db = (answer.outcome for answer in plan.answers)
    assert isinstance(web, Placement)
    assert isinstance(db, Placement)
    assert not set(web.host_cpus) & {cpu for cpus in db.vcpus for cpu in cpus}
    assert web.reasons


def test_generated_names_are_no_one_vm() -> None:
    twice = vm("x")
    twice["metadata"] = {"generateName": "worker-"}
    plan = plan_for(board_ground(BOARD, None, {}), wanted_vms(manifests(twice, twice), "lab").vms)
    assert len(plan.all) == 2
    assert [answer.request.name for answer in plan.answers] == ["lab/worker-*", "lab/worker-*"]


def test_a_device_that_the_machine_has_not_is_a_refusal() -> None:
    plan = plan_for(
        board_ground("raspberry-pi-4b", None, {}),
        wanted_vms(manifests(vm("near", placement={"near": ["nvme9"]})), "lab").vms,
    )
    assert [(answer.outcome.code, answer.outcome.permanent) for answer in plan.refused] == [("DeviceNotFound", True)]  # type: ignore[union-attr]


def host_with(ground_vms: list[JsonObject], board: str = BOARD) -> tuple[JsonObject, list[JsonObject]]:
    """A host that runs these VMs where it would put them, as the API tells of both."""
    hardware = synthetic(board, memory_bytes=64 * GIB)
    ground = board_ground(board, "64Gi", {})
    answers = plan_for(ground, wanted_vms(manifests(*ground_vms), "lab").vms).answers if ground_vms else ()
    told = []
    for obj, answer in zip(ground_vms, answers, strict=True):
        assert isinstance(answer.outcome, Placement)
        status = {
            "hostName": "far",
            "powerState": "PoweredOn",
            "placement": placement_status(answer.outcome, hardware.page_bytes).to_json(),
        }
        told.append(
            {
                **obj,
                "metadata": {**obj["metadata"], "namespace": "lab", "uid": obj["metadata"]["name"]},
                "status": status,
            }
        )
    rules = default_rules(hardware)
    host = {
        "metadata": {"name": "far"},
        "spec": {},
        "status": {
            "hardware": hardware_status(hardware).to_json(),
            "placement": {
                "reservedCpus": ",".join(map(str, sorted(rules.reserved_cpus))),
                "reservedMemoryBytes": sum(rules.reserved_memory.values()),
            },
        },
    }
    return host, told


def test_a_host_is_asked_from_afar_as_it_would_ask_itself() -> None:
    """What is there already and what comes go where they would go if all came at once."""
    first = [vm("db", 20, "8Gi", "Dedicated"), vm("web", 6, "2Gi"), vm("wide", 140, "20Gi", "Dedicated")]
    later = [vm("next", 16, "4Gi", "Dedicated"), vm("small", 2, "1Gi")]
    host, running = host_with(first)
    ground = host_ground(host, running)
    assert ground.rules == default_rules(synthetic(BOARD, memory_bytes=64 * GIB))
    from_afar = plan_for(ground, wanted_vms(manifests(*later), "lab").vms).answers
    at_once = plan_for(board_ground(BOARD, "64Gi", {}), wanted_vms(manifests(*first, *later), "lab").vms).answers[-2:]
    for one, other in zip(from_afar, at_once, strict=True):
        assert isinstance(one.outcome, Placement)
        assert isinstance(other.outcome, Placement)
        assert (one.outcome.vcpus, one.outcome.memory_nodes) == (other.outcome.vcpus, other.outcome.memory_nodes)


def test_a_vm_that_is_there_already_is_planned_for_anew() -> None:
    host, running = host_with([vm("wide", 200, "8Gi", "Dedicated")])
    plan = plan_for(host_ground(host, running), wanted_vms(manifests(vm("wide", 210, "8Gi", "Dedicated")), "lab").vms)
    assert [(answer.again, isinstance(answer.outcome, Placement)) for answer in plan.answers] == [(True, True)]
    assert len(plan.all) == 1


def test_a_vm_of_which_no_place_is_known_is_told_as_not_counted() -> None:
    host, running = host_with([vm("old")])
    del running[0]["status"]["placement"]
    ground = host_ground(host, running)
    assert (ground.placed, ground.uncounted) == ({}, ("lab/old",))
    plan = plan_for(ground, wanted_vms(manifests(vm("new")), "lab").vms)
    assert scene_of_plan(ground, plan).unplaced == ("lab/old",)


def test_rules_of_the_host_count() -> None:
    host, _ = host_with([])
    host["spec"] = {"placement": {"reservedCpus": "0-255,900", "cpuOvercommit": 2.0}}
    host["status"]["placement"] = {"reservedCpus": "0-249", "reservedMemoryBytes": 0, "noDedicated": "No root here."}
    ground = host_ground(host, [])
    assert ground.rules.reserved_cpus == frozenset(range(250))
    plan = plan_for(ground, wanted_vms(manifests(vm("a", 12), vm("b", 1), vm("c", 1, "1Gi", "Dedicated")), "lab").vms)
    assert [isinstance(answer.outcome, Placement) for answer in plan.answers] == [True, False, False]
    assert "No root here" in plan.answers[2].outcome.message  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change", [{"hardware": {"architecture": 1}}, {"placement": {"reservedCpus": "x", "reservedMemoryBytes": 1}}]
)
def test_a_host_that_tells_nonsense_is_refused(change: JsonObject) -> None:
    host, _ = host_with([])
    host["spec"] = {"placement": {"reservedCpus": "0"}}
    host["status"].update(change)
    with pytest.raises(Invalid, match="'far'") as raised:
        host_ground(host, [])
    assert raised.value.code == "HardwareUnreadable"
