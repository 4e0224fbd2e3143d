"""Garbage collection, namespaces, expiry and the Host, on a real store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from carmel.controllers.expiry import add_task_expiry
from carmel.controllers.garbage import add_garbage_collector
from carmel.controllers.host import HostController, HypervisorFacts
from carmel.controllers.host_facts import HostFacts, host_name, read_facts
from carmel.controllers.namespaces import add_namespace_controller
from carmel.controllers.placement import Machine, Means, Surveyor, plain_hardware
from carmel.controllers.runtime import Key, Runtime
from carmel.errors import Refused
from carmel.resources.base import JsonObject, ObjectMeta
from carmel.resources.core import NAMESPACE, SECRET
from carmel.resources.host import HOST, Host, HostSystem, HypervisorInfo
from carmel.resources.kinds import Kind
from carmel.resources.task import TASK, Task, TaskPhase, TaskSpec, TaskTarget
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.resources.volume import VOLUME
from carmel.store.protocol import EventType
from carmel.store.sqlite import SqliteStore
from tests.fakes.clock import FakeClock
from tests.fakes.quiet import quiet
from tests.stores import open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def runtime(store: SqliteStore, clock: FakeClock) -> AsyncIterator[Runtime]:
    made = Runtime(store, "host", clock=clock, rng=random.Random(1))
    yield made
    await made.stop(1)


async def until_gone(store: SqliteStore, kind: Kind, namespace: str | None, name: str) -> None:
    async with asyncio.timeout(5), store.watch(kind) as events:
        if all(one.name != name for one in (await store.list(kind, namespace)).items):
            return
        async for event in events:
            if event.type is EventType.DELETED and event.object is not None and event.object.name == name:
                return


async def until(store: SqliteStore, kind: Kind, holds: Callable[[JsonObject], bool]) -> JsonObject:
    async with asyncio.timeout(5), store.watch(kind, send_initial=True) as events:
        async for event in events:
            if event.object is not None and holds(event.object.json()):
                return event.object.json()
    raise AssertionError("the watch ended")


def owned(name: str, kind: str, owner: str, uid: str) -> JsonObject:
    reference = {"apiVersion": "carmel.dev/v1alpha1", "kind": kind, "name": owner, "uid": uid}
    return {"metadata": {"name": name, "namespace": "default", "ownerReferences": [reference]}}


async def test_what_has_no_owner_left_goes(store: SqliteStore, runtime: Runtime) -> None:
    spec = {"spec": {"size": "1Mi"}}
    owner = await store.create(VOLUME, {"metadata": {"name": "owner", "namespace": "default"}, **spec})
    await store.create(SECRET, owned("kept", "Volume", "owner", owner.uid))
    await store.create(SECRET, owned("orphan", "Volume", "owner", "another-uid"))
    await store.create(SECRET, owned("foreign", "Nobody", "knows", "u"))
    add_garbage_collector(runtime)
    await runtime.start()
    await until_gone(store, SECRET, "default", "orphan")
    await quiet(runtime, store)
    assert [one.name for one in (await store.list(SECRET)).items] == ["foreign", "kept"]
    await store.delete(VOLUME, "default", "owner")
    await until_gone(store, SECRET, "default", "kept")


async def test_namespace_goes_when_it_is_empty(store: SqliteStore, runtime: Runtime) -> None:
    await store.create(NAMESPACE, {"metadata": {"name": "short"}})
    metadata = {"name": "w", "namespace": "short", "finalizers": ["test/held"]}
    vm = await store.create(VIRTUAL_MACHINE, {"metadata": metadata})
    await store.create(SECRET, {"metadata": {"name": "s", "namespace": "short"}})
    add_namespace_controller(runtime)
    await runtime.start()
    await store.delete(NAMESPACE, None, "short")
    held = await until(store, VIRTUAL_MACHINE, lambda one: "deletionTimestamp" in one["metadata"])
    # What a VM needs for its end is there until it is over.
    assert (await store.get(SECRET, "short", "s")).name == "s"
    held["metadata"]["finalizers"] = []
    await store.replace(VIRTUAL_MACHINE, held)
    assert vm.uid == held["metadata"]["uid"]
    await until_gone(store, NAMESPACE, None, "short")
    assert (await store.list(SECRET, "short")).items == []


async def test_task_expires_after_its_end(store: SqliteStore, runtime: Runtime, clock: FakeClock) -> None:
    tasks = runtime.resources(TASK, Task)
    spec = TaskSpec(target=TaskTarget(kind="Image", name="i"), verb="Pull", ttl_seconds_after_finished=100)
    task = await tasks.create(Task(metadata=ObjectMeta(name="t", namespace="default"), spec=spec))
    add_task_expiry(runtime)
    await runtime.start()
    await clock.advance(1000)

    def finish(one: Task) -> None:
        one.status.phase = TaskPhase.SUCCEEDED
        one.status.finished_at = clock.now()

    await tasks.update_status(task, finish)
    await clock.advance(99)
    await quiet(runtime, store)
    assert await tasks.find(Key("default", "t")) is not None
    await clock.advance(2)
    await until_gone(store, TASK, "default", "t")


FACTS = HostFacts("host", HostSystem(architecture="aarch64", boot_id="b"), 4, 8 * 2**30, 2)


async def test_host_tells_what_changes_and_nothing_else(store: SqliteStore, runtime: Runtime, clock: FakeClock) -> None:
    answers: list[HypervisorFacts | Refused] = [Refused("no QEMU", code="ProgramMissing", hint="install it")]

    async def ask() -> HypervisorFacts:
        if isinstance(answers[0], Refused):
            raise answers[0]
        return answers[0]

    hardware = plain_hardware("aarch64", 4096, 4, 8 * 2**30)
    surveyor = Surveyor(Machine(lambda: hardware, Means, hardware), clock)
    controller = HostController(runtime, FACTS, ask, list, surveyor)
    await controller.ensure()
    await runtime.start()
    hosts = runtime.resources(HOST, Host)
    shown = await until(store, HOST, lambda host: "conditions" in (host.get("status") or {}))
    assert shown["status"]["conditions"][0]["reason"] == "ProgramMissing"
    assert controller.limits().memory_bytes == 8 * 2**30
    answers[0] = HypervisorFacts(HypervisorInfo(accelerator="kvm"), 8)
    await clock.advance(301)
    await until(store, HOST, lambda host: host["status"]["conditions"][0]["status"] == "True")
    assert controller.limits().max_vcpus == 8
    version = (await hosts.get(Key(None, "host"))).metadata.resource_version
    await clock.advance(3000)
    assert (await hosts.get(Key(None, "host"))).metadata.resource_version == version
    vm = await store.create(
        VIRTUAL_MACHINE,
        {"metadata": {"name": "w", "namespace": "default"}, "spec": {"cpu": {"count": 2}, "memory": {"size": "1Gi"}}},
    )
    await store.replace(VIRTUAL_MACHINE, {**vm.json(), "status": {"powerState": "PoweredOn"}}, subresource="status")
    await quiet(runtime, store)
    await clock.advance(3)
    host = await until(store, HOST, lambda host: host["status"]["allocated"]["cpus"] == 2)
    assert (host["status"]["allocated"]["memory"], host["status"]["virtualMachines"]) == ("1Gi", 1)


def test_facts_of_a_raspberry_pi(tmp_path: Path) -> None:
    for path, text in {
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n",
        "proc/interrupts": " 11:   1234   GICv2  30 Level     arch_timer\n",
        "proc/sys/kernel/random/boot_id": "f00\n",
        "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    facts = read_facts(tmp_path)
    assert facts.system.board == "Raspberry Pi 4 Model B Rev 1.4"
    assert facts.system.cpu_model == "Cortex-A72"
    assert facts.system.operating_system == "Debian GNU/Linux 12 (bookworm)"
    assert (facts.boot_id, facts.gic_version) == ("f00", 2)


def test_facts_of_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    facts = read_facts(tmp_path)
    assert (facts.system.board, facts.system.cpu_model, facts.gic_version, facts.boot_id) == (None, None, None, "")


@pytest.mark.parametrize(
    ("given", "name"),
    [("web.example.org", "web"), ("Pi_4", "pi-4"), ("-", "host"), ("", "host"), ("x" * 80, "x" * 63)],
)
def test_host_name_is_a_label(given: str, name: str) -> None:
    assert host_name(given) == name
