"""Networks of provider user, and what nobody offers. NICs get ports that stay theirs until QEMU listens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from carmel.controllers.network.controller import NetworkController
from carmel.controllers.network.usernics import UserNics
from carmel.controllers.runtime import Runtime, SystemClock
from carmel.controllers.virtualmachine.ports import VmOfNics, WantedNic
from carmel.errors import CarmelError
from carmel.network import backends, cabling
from carmel.network.backends import Backend, Backends
from carmel.paths import MachinePaths, Paths
from carmel.resources.base import JsonObject, ObjectMeta
from carmel.resources.network import NETWORK, Network
from carmel.resources.port import PortLimits
from carmel.resources.virtualmachine import Forward, NetworkInterface, VirtualMachine, VirtualMachineSpec
from carmel.run import SystemRunner
from carmel.store.protocol import Store
from tests.fakes.hostnetworks import no_host_networks
from tests.stores import open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path) as opened:
        runtime = Runtime(opened, "test")
        controller = NetworkController(
            runtime, Backends(SystemRunner(), forced=Backend.SLIRP), no_host_networks(runtime)
        )
        await controller.ensure_default()
        await controller.ensure_default()
        await runtime.start()
        yield opened
        await runtime.stop()


async def settled(store: Store, name: str) -> JsonObject:
    async with store.watch(NETWORK, send_initial=True) as events:
        async for event in events:
            if event.object is not None and event.object.name == name:
                found = event.object.json()
                if found.get("status", {}).get("conditions"):
                    return found
    raise AssertionError("the watch ended")


def conditions(network: JsonObject) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in network["status"]["conditions"]}


async def test_there_is_a_default_network(store: Store) -> None:
    network = await settled(store, "default")
    assert network["spec"]["provider"] == "user"
    assert network["status"]["backend"] == "slirp"
    assert conditions(network) == {"Accepted": ("True", "Supported"), "Ready": ("True", "Available")}


async def test_it_says_why_it_is_not_the_better_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_program", lambda _name: None)
    async with open_store(tmp_path) as opened:
        runtime = Runtime(opened, "test")
        controller = NetworkController(runtime, Backends(SystemRunner()), no_host_networks(runtime))
        await controller.ensure_default()
        await runtime.start()
        network = await settled(opened, "default")
        await runtime.stop()
    (ready,) = (one for one in network["status"]["conditions"] if one["type"] == "Ready")
    assert (ready["status"], ready["message"]) == ("True", "passt is not installed: QEMU's own network is used")
    assert network["status"]["backend"] == "slirp"


async def test_a_cable_needs_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cabling, "queue_problem", lambda: "the queue is short")
    await store.create(NETWORK, {"metadata": {"name": "pair"}, "spec": {"provider": "cable"}})
    network = await settled(store, "pair")
    assert conditions(network) == {"Accepted": ("True", "Supported"), "Ready": ("True", "Available")}
    assert network["status"]["backend"] == "datagrams"
    assert network["status"]["conditions"][1]["message"] == "the queue is short"


@pytest.mark.parametrize("provider", ["nat", "bridge"])
async def test_what_a_rootless_host_cannot_do_is_refused_with_the_reason(store: Store, provider: str) -> None:
    section = {"nat": {"subnet": "10.8.0.0/24"}, "bridge": {"uplinks": ["eth0"]}}[provider]
    await store.create(NETWORK, {"metadata": {"name": "other"}, "spec": {"provider": provider, provider: section}})
    network = await settled(store, "other")
    assert conditions(network) == {"Accepted": ("False", "NotPermitted"), "Ready": ("False", "NotPermitted")}
    assert network["status"]["conditions"][0]["message"] == (
        "only root, or who has CAP_NET_ADMIN, may make host networks. Run carmeld as root, or use user networks."
    )
    assert "finalizers" not in network["metadata"]


def vm(uid: str, paths: MachinePaths) -> VmOfNics:
    return VmOfNics(
        VirtualMachine(metadata=ObjectMeta(name=uid, uid=uid), spec=VirtualMachineSpec()),
        VirtualMachineSpec(),
        (),
        paths,
    )


def wanted(forward: Forward) -> WantedNic:
    return WantedNic(0, NetworkInterface(name="n", forwards=[forward]), Network(metadata=ObjectMeta(name="d")))


async def test_a_port_is_given_to_one_vm_at_a_time(tmp_path: Path) -> None:
    nics = UserNics(Backends(SystemRunner(), forced=Backend.SLIRP), SystemClock())
    paths = Paths(tmp_path, tmp_path, tmp_path).machine("x")
    (first,) = await nics.plan(vm("one", paths), [wanted(Forward(guest_port=22))])
    (again,) = await nics.plan(vm("one", paths), [wanted(Forward(guest_port=22))])
    assert first == again
    assert first.status.forwards is not None
    port = first.status.forwards[0].host_port
    with pytest.raises(CarmelError) as caught:
        await nics.plan(vm("two", paths), [wanted(Forward(guest_port=22, host_port=port))])
    assert caught.value.code == "PortInUse"


async def test_what_a_user_network_cannot_do_is_refused(tmp_path: Path) -> None:
    nics = UserNics(Backends(SystemRunner(), forced=Backend.SLIRP), SystemClock())
    limited = WantedNic(
        1, NetworkInterface(name="n", limits=PortLimits()), Network(metadata=ObjectMeta(name="default"))
    )
    with pytest.raises(CarmelError) as caught:
        await nics.plan(vm("one", Paths(tmp_path, tmp_path, tmp_path).machine("x")), [limited])
    assert (caught.value.code, caught.value.field) == ("NotSupported", "spec.networks[1].limits")
    assert "it has no limits" in caught.value.message
