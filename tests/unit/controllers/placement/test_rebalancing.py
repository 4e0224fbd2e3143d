"""Repair on a machine of two nodes: moves that are made, proposed, failed and cut short."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from carmel.controllers.placement.rebalancer import CALM_SECONDS, INTERVAL_SECONDS
from carmel.controllers.runtime import Key, find_condition
from carmel.hypervisor.config import Pinning
from carmel.hypervisor.pinning.failures import CannotPin
from carmel.placement.model import Budget, Refusal, Request
from carmel.resources.host import HOST
from tests.unit.controllers.placement.looking import (
    HOST_KEY,
    GiB,
    cpus,
    crowded,
    events,
    machine_of,
    nodes,
    off,
    on_nodes,
    rebalance_status,
    rules,
    running,
)
from tests.unit.controllers.virtualmachine.hosts import Host, message, reason


async def test_repair_moves_and_tells(host: Host) -> None:
    await crowded(host)
    assert (await rebalance_status(host)).done is None
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    (done,) = (await rebalance_status(host)).done or []
    assert (done.error, done.memory_bytes, done.at) == (None, 4 * GiB, host.clock.now().replace(microsecond=0))
    vm = await host.until(on_nodes(*done.to_nodes), Key("default", done.name))
    machine = await machine_of(host, done.name)
    assert machine.pinning is not None
    assert (list(machine.pinning.memory_nodes), cpus(vm)[0]) == (done.to_nodes, done.to_cpus)
    (said,) = await events(host, "Moved")
    assert said.startswith(f"NUMA node {done.from_nodes[0]} to NUMA node {done.to_nodes[0]}, 4 GiB of memory.")
    # Another daemon finds it there.
    await host.restart()
    assert nodes(await host.until(reason("Running"), Key("default", done.name))) == done.to_nodes
    await host.clock.advance(INTERVAL_SECONDS + 1)
    await host.quiet()
    assert len((await rebalance_status(host)).done or []) == 1
    assert (await rebalance_status(host)).proposed is None


async def test_manual_repair_only_proposes_until_it_is_asked(host: Host) -> None:
    await rules(host, rebalance={"mode": "Manual"})
    await crowded(host)
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    status = await rebalance_status(host)
    (proposed,) = status.proposed or []
    assert status.done is None
    assert all(machine.moves == [] for machine in host.world.machines.values())
    await rules(host, rebalance={"mode": "Manual", "requestedAt": "2026-11-23T11:00:00Z"})
    status = await rebalance_status(host)
    (done,) = status.done or []
    assert (done.name, done.to_nodes, status.proposed) == (proposed.name, proposed.to_nodes, None)
    assert status.answered_at is not None
    assert status.answered_at.hour == 11
    # Answered once is answered.
    await host.restart()
    await host.clock.advance(INTERVAL_SECONDS + 1)
    await host.quiet()
    assert len((await rebalance_status(host)).done or []) == 1


async def test_repair_keeps_to_its_budget(host: Host) -> None:
    await rules(host, rebalance={"memoryPerPass": "1Gi"})
    await crowded(host)
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    status = await rebalance_status(host)
    assert (status.done, status.proposed) == (None, None)
    await rules(host, rebalance={"memoryPerPass": "4Gi"})
    assert len((await rebalance_status(host)).done or []) == 1


@pytest.mark.parametrize("wish", [{"rebalance": "Never"}, {"rebalance": "Allow"}])
async def test_who_does_not_want_to_be_moved_is_not(host: Host, wish: dict[str, str]) -> None:
    for name in "abc":
        await running(host, name, 4, "4Gi", placement={"rebalance": "Never"})
    await off(host, "b")
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    assert (await rebalance_status(host)).done is None
    # What the spec says now counts, without a restart.
    await host.set("a", placement=wish)
    await host.quiet()
    await host.clock.advance(INTERVAL_SECONDS + 1)
    await host.quiet()
    done = (await rebalance_status(host)).done or []
    assert [one.name for one in done] == (["a"] if wish["rebalance"] == "Allow" else [])
    assert find_condition((await host.vms.get(Key("default", "a"))).status, "RestartRequired") is None


async def test_a_move_that_fails_is_told_and_leaves_everything(host: Host) -> None:
    await crowded(host)

    async def refuse(pinning: Pinning) -> None:
        raise CannotPin("the kernel says no")

    for name in "ac":
        (await machine_of(host, name)).repin = refuse  # type: ignore[method-assign]
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    done = (await rebalance_status(host)).done or []
    assert done
    assert {one.error for one in done} == {"the kernel says no."}
    for name in "ac":
        assert nodes(await host.vms.get(Key("default", name))) == done[0].from_nodes
    assert len(done) == len(await events(host, "MoveFailed"))
    # A machine that cannot be moved is not asked again.
    await host.clock.advance(3 * INTERVAL_SECONDS)
    await host.quiet()
    assert len((await rebalance_status(host)).done or []) <= 2
    assert (await rebalance_status(host)).proposed is None
    await host.restart()
    assert nodes(await host.until(reason("Running"), Key("default", "a"))) == done[0].from_nodes


@pytest.mark.parametrize("arrived", [False, True])
async def test_a_daemon_that_is_killed_in_the_middle_of_a_move(host: Host, arrived: bool) -> None:
    await crowded(host)
    begun = asyncio.Event()

    for name in "ac":
        machine = await machine_of(host, name)
        real = machine.repin

        async def hang(pinning: Pinning, real: Any = real) -> None:
            if arrived:
                await real(pinning)
            begun.set()
            await asyncio.Event().wait()

        machine.repin = hang  # type: ignore[method-assign]
    await host.clock.advance(CALM_SECONDS + 1)
    async with asyncio.timeout(5):
        await begun.wait()
    await host.controller.stop()
    await host.runtime.stop(0.0)
    await host.hypervisor.close()
    moving = [
        uid
        for uid in host.world.machines
        if orjson.loads(host.world.paths.machine(uid).launched_spec.read_bytes())["place"]["moving"] is not None
    ]
    (uid,) = moving
    for machine in host.world.machines.values():
        del machine.repin
    host._open()
    await host.start()
    await host.quiet()
    machine = host.world.machines[uid]
    assert machine.pinning is not None
    place = orjson.loads(host.world.paths.machine(uid).launched_spec.read_bytes())["place"]
    assert place["moving"] is None
    at = sorted({node["host_node"] for node in place["placement"]["nodes"]})
    assert at == list(machine.pinning.memory_nodes)
    # Whatever it was recorded to be, it was made sure of.
    assert machine.moves[-1] == machine.pinning
    (vm,) = [one for one in await host.vms.list() if one.metadata.uid == uid]
    assert nodes(vm) == at
    # Then repair goes on, if it has to.
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    places = [nodes(await host.vms.get(Key("default", name))) for name in "ac"]
    assert sorted(places) == [[0], [1]]


async def test_room_is_made_for_who_has_none(host: Host) -> None:
    """Two small VMs, one on each node, leave no node whole: one of them steps aside."""
    await running(host, "a", 1, "3Gi", placement={"near": ["eth1"]})
    await running(host, "b", 1, "3Gi")
    assert [nodes(await host.vms.get(Key("default", name))) for name in "ab"] == [[1], [0]]
    numa = {"nodes": [{"cpus": "0-1", "memory": "7Gi"}]}
    await host.create("w", cpu={"count": 2}, memory={"size": "7Gi"}, numa=numa)
    vm = await host.until(reason("Running"))
    (done,) = (await rebalance_status(host)).done or []
    assert done.from_nodes == nodes(vm)
    assert "default/w" in done.reason


async def test_no_room_is_made_where_repair_is_by_hand(host: Host) -> None:
    await rules(host, rebalance={"mode": "Manual"})
    await running(host, "a", 1, "3Gi", placement={"near": ["eth1"]})
    await running(host, "b", 1, "3Gi")
    numa = {"nodes": [{"cpus": "0-1", "memory": "7Gi"}]}
    await host.create("w", cpu={"count": 2}, memory={"size": "7Gi"}, numa=numa)
    await host.until(reason("InsufficientMemory"))
    await host.quiet()
    assert (await rebalance_status(host)).done is None
    await rules(host, rebalance={"mode": "Automatic"})
    await host.until(reason("Running"))


async def test_the_host_is_deleted_and_made_anew(host: Host) -> None:
    await crowded(host)
    await host.store.delete(HOST, None, "host")
    await host.quiet()
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    assert (await host.hosts.get(HOST_KEY)).status.hardware is not None


async def test_searching_in_vain_does_not_eat_the_host(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who searched for five seconds and found nothing, searches no more for fifty."""
    searched: list[str] = []

    def search(_silicon: object, _occupancy: object, wanted: Request, _budget: Budget) -> Refusal:
        searched.append(wanted.name)
        host.clock._elapsed += 5
        return Refusal("InsufficientMemory", "none")

    monkeypatch.setattr("carmel.controllers.placement.rebalancer.make_room", search)
    for name in "ab":
        await running(host, name, memory="8Gi")
    for name in "cd":
        await host.create(name, memory={"size": "2Gi"})
    await host.quiet()
    assert len(searched) == 1
    await host.clock.advance(40)
    await host.quiet()
    assert len(searched) == 1
    await host.clock.advance(20)
    await host.quiet()
    assert sorted(searched) == ["default/c", "default/d"]
    # Nothing changed since, so there is nothing to search anew.
    await host.clock.advance(1000)
    await host.quiet()
    assert len(searched) == 2


async def test_a_record_that_cannot_be_written(host: Host) -> None:
    """A VM is not started when nobody would know later where it is."""
    vm = await host.create("w", powerState="PoweredOff")
    blocked = host.world.paths.machine(vm.metadata.uid or "").launched_spec
    blocked.mkdir(parents=True)
    await host.set(powerState="PoweredOn")
    vm = await host.until(reason("StateNotWritable"))
    assert "Make room in the state directory" in message(vm)
    assert host.world.launches == []
    assert host.ledger.occupancy.placements == {}
    blocked.rmdir()
    await host.clock.advance(61)
    await host.until(reason("Running"))


@pytest.mark.parametrize("comes", [False, True])
async def test_who_comes_while_others_are_moved_changes_the_plan(host: Host, comes: bool) -> None:
    """Four VMs on one node, none on the other: two moves, or one if a fifth takes its place there meanwhile."""
    for name in "abcdefgh":
        await running(host, name, 4)
    for name in "bdfh":
        await off(host, name)
    stay = [await machine_of(host, name) for name in "aceg"]
    assert {machine.pinning.memory_nodes for machine in stay if machine.pinning} == {(0,)}
    begun, go_on = asyncio.Event(), asyncio.Event()
    for machine in stay:

        async def slow(pinning: Pinning, real: Any = machine.repin) -> None:
            begun.set()
            await go_on.wait()
            await real(pinning)

        machine.repin = slow  # type: ignore[method-assign]
    await host.clock.advance(CALM_SECONDS + 1)
    async with asyncio.timeout(5):
        await begun.wait()
    if comes:
        assert nodes(await running(host, "fifth", 4)) == [1]
    go_on.set()
    await host.quiet()
    done = (await rebalance_status(host)).done or []
    assert [one.error for one in done] == [None] * (1 if comes else 2)
    assert (await rebalance_status(host)).proposed is None
