"""The runtime against a real store, with a clock that the test turns."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest

from carmel.controllers.runtime import (
    Backoff,
    Controller,
    ControllerSpec,
    EventKind,
    Key,
    Runtime,
    Watch,
    find_condition,
    owners_of_kind,
)
from carmel.errors import CarmelError, Conflict, Expired, Refused, Unavailable
from carmel.resources.base import ObjectMeta
from carmel.resources.core import EVENT, SECRET, Event
from carmel.resources.volume import VOLUME, Volume, VolumeSpec
from carmel.store.sqlite import SqliteStore
from tests.fakes.clock import FakeClock, settle
from tests.stores import open_store

KEY = Key("default", "v")


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
    await made.stop(0.1)


def volume(name: str = "v") -> Volume:
    return Volume(metadata=ObjectMeta(name=name, namespace="default"), spec=VolumeSpec(size="1Mi"))


class Passes:
    """A reconcile function that notes its keys, does what the test says and lets the test wait for passes."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.errors: list[CarmelError] = []
        self.again: float | None = None
        self.gate: asyncio.Event | None = None
        self.running = 0
        self.most_running = 0
        self._more = asyncio.Condition()

    async def __call__(self, key: Key) -> float | None:
        async with self._more:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self._more.notify_all()
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.running -= 1
        async with self._more:
            self.keys.append(key)
            self._more.notify_all()
        if self.errors:
            raise self.errors.pop(0)
        return self.again

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(5), self._more:
            await self._more.wait_for(lambda: len(self.keys) >= count)
        # The worker still has to do with what the pass answered.
        await settle()

    async def wait_running(self, count: int) -> None:
        async with asyncio.timeout(5), self._more:
            await self._more.wait_for(lambda: self.running >= count)


def add(runtime: Runtime, passes: Passes, **options: object) -> Controller:
    spec = ControllerSpec("test", VOLUME, passes, **{"resync_seconds": 0.0, **options})  # type: ignore[arg-type]
    return runtime.add(spec)


async def test_what_is_there_and_what_comes_is_worked_on(runtime: Runtime) -> None:
    volumes = runtime.resources(VOLUME, Volume)
    await volumes.create(volume("old"))
    passes = Passes()
    add(runtime, passes)
    await runtime.start()
    await passes.wait(1)
    await volumes.create(volume("new"))
    await passes.wait(2)
    assert passes.keys == [Key("default", "old"), Key("default", "new")]


async def test_one_worker_a_key_and_changes_meanwhile_are_one_more_pass(runtime: Runtime) -> None:
    volumes = runtime.resources(VOLUME, Volume)
    passes = Passes()
    passes.gate = asyncio.Event()
    controller = add(runtime, passes, workers=4)
    await runtime.start()
    await volumes.create(volume())
    await volumes.create(volume("w"))
    for _ in range(5):
        controller.enqueue(KEY)
    await passes.wait_running(2)
    for _ in range(5):
        controller.enqueue(KEY)
    passes.gate.set()
    await passes.wait(3)
    assert passes.most_running == 2
    assert sorted(passes.keys) == [KEY, KEY, Key("default", "w")]


async def test_temporary_errors_come_again_with_growing_delays(runtime: Runtime, clock: FakeClock) -> None:
    passes = Passes()
    passes.errors = [Unavailable("later"), Conflict("somebody was faster"), Unavailable("later")]
    shown: list[int] = []

    async def on_failure(key: Key, error: CarmelError, count: int) -> None:
        shown.append(count)

    controller = add(runtime, passes, backoff=Backoff(initial=1, jitter=0), on_failure=on_failure)
    await runtime.start()
    controller.enqueue(KEY)
    await passes.wait(1)
    for count, delay in ((2, 1), (3, 2), (4, 4)):
        await clock.advance(delay - 0.25)
        assert len(passes.keys) == count - 1
        await clock.advance(0.25)
        await passes.wait(count)
    # Two in a row pass unnoticed, the third is shown; a success ends the row.
    assert shown == [3]
    await clock.advance(600)
    assert len(passes.keys) == 4
    assert (controller.metrics.passes, controller.metrics.errors) == (4, 3)


async def test_the_log_has_a_failure_once_and_again_after_a_success(
    runtime: Runtime, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    passes = Passes()
    passes.errors = [Refused("too large"), Refused("too large"), Refused("too small"), Refused("too large")]
    controller = add(runtime, passes, retry_permanent_seconds=1)
    await runtime.start()
    controller.enqueue(KEY)
    for count in range(2, 6):
        await passes.wait(count - 1)
        await clock.advance(1)
    await passes.wait(5)
    passes.errors = [Refused("too large")]
    controller.enqueue(KEY)
    await passes.wait(6)
    said = [record.getMessage().rpartition(": ")[2] for record in caplog.records if "too" in record.getMessage()]
    assert said == ["too large", "too small", "too large", "too large"]


async def test_permanent_errors_are_shown_at_once_and_wait_for_a_change(runtime: Runtime, clock: FakeClock) -> None:
    volumes = runtime.resources(VOLUME, Volume)
    passes = Passes()
    passes.errors = [Refused("too large", code="VolumeTooLarge", hint="make it smaller")]
    add(runtime, passes, on_failure=runtime.show_failure(volumes))
    await volumes.create(volume())
    await runtime.start()
    await passes.wait(1)
    await _conditions_shown(runtime)
    shown = find_condition((await volumes.get(KEY)).status, "Ready")
    assert shown is not None
    assert (shown.status, shown.reason, shown.message) == ("False", "VolumeTooLarge", "too large. Make it smaller.")
    # That it was shown is no reason to try again.
    await clock.advance(3600)
    assert len(passes.keys) == 1
    await runtime.events.flush()
    (event,) = await runtime.resources(EVENT, Event).list()
    assert (event.type, event.reason, event.involved_object.name) == ("Warning", "VolumeTooLarge", "v")

    def grow(one: Volume) -> None:
        one.spec.size = "2Mi"

    await volumes.update(await volumes.get(KEY), grow)
    await passes.wait(2)


async def test_a_permanent_error_can_be_looked_at_again_after_a_while(runtime: Runtime, clock: FakeClock) -> None:
    passes = Passes()
    passes.errors = [Refused("no QEMU")]
    controller = add(runtime, passes, retry_permanent_seconds=60.0)
    await runtime.start()
    controller.enqueue(KEY)
    await passes.wait(1)
    await clock.advance(59)
    assert len(passes.keys) == 1
    await clock.advance(2)
    await passes.wait(2)


async def test_a_bug_in_a_pass_does_not_end_the_worker(runtime: Runtime, clock: FakeClock) -> None:
    calls: list[Key] = []

    async def reconcile(key: Key) -> None:
        calls.append(key)
        raise ZeroDivisionError

    controller = runtime.add(ControllerSpec("test", VOLUME, reconcile, workers=1, backoff=Backoff(1, jitter=0)))
    await runtime.start()
    controller.enqueue(KEY)
    await clock.advance(1.1)
    assert calls == [KEY, KEY]


async def test_look_again_and_resync(runtime: Runtime, clock: FakeClock) -> None:
    passes = Passes()
    passes.again = 30.0
    await runtime.resources(VOLUME, Volume).create(volume())
    add(runtime, passes, resync_seconds=1000.0)
    await runtime.start()
    await passes.wait(1)
    passes.again = None
    await clock.advance(31)
    await passes.wait(2)
    await clock.advance(880)
    assert len(passes.keys) == 2
    await clock.advance(300)
    await passes.wait(3)


async def test_other_kinds_lead_to_keys(runtime: Runtime) -> None:
    passes = Passes()
    add(runtime, passes, watches=(Watch(SECRET, lambda secret: owners_of_kind(VOLUME, secret)),))
    await runtime.start()
    owner = {"apiVersion": "carmel.dev/v1alpha1", "kind": "Volume", "name": "v", "uid": "u"}
    metadata = {"name": "s", "namespace": "default", "ownerReferences": [owner]}
    await runtime.store.create(SECRET, {"metadata": metadata})
    await passes.wait(1)
    await runtime.store.delete(SECRET, "default", "s")
    await passes.wait(2)
    assert passes.keys == [KEY, KEY]


async def test_stop_lets_a_pass_in_flight_finish(store: SqliteStore, clock: FakeClock) -> None:
    runtime = Runtime(store, "host", clock=clock)
    passes = Passes()
    passes.gate = asyncio.Event()
    controller = add(runtime, passes)
    await runtime.start()
    controller.enqueue(KEY)
    await passes.wait_running(1)
    stopping = asyncio.create_task(runtime.stop(5))
    await asyncio.sleep(0)
    passes.gate.set()
    await stopping
    assert passes.keys == [KEY]


async def test_stop_cancels_a_pass_that_takes_too_long(store: SqliteStore, clock: FakeClock) -> None:
    runtime = Runtime(store, "host", clock=clock)
    passes = Passes()
    passes.gate = asyncio.Event()
    controller = add(runtime, passes)
    await runtime.start()
    controller.enqueue(KEY)
    await passes.wait_running(1)
    await runtime.stop(0.01)
    assert passes.keys == []
    assert passes.running == 0


async def test_writes_happen_only_when_something_changes(runtime: Runtime) -> None:
    volumes = runtime.resources(VOLUME, Volume)
    made = await volumes.create(volume())

    def same(one: Volume) -> None:
        one.status.used_by = None

    assert (await volumes.update_status(made, same)).metadata.resource_version == made.metadata.resource_version


async def test_a_stale_write_is_applied_to_the_newer_state(runtime: Runtime) -> None:
    volumes = runtime.resources(VOLUME, Volume)
    made = await volumes.create(volume())

    def use(one: Volume) -> None:
        one.status.used_by = "w"

    def measure(one: Volume) -> None:
        one.status.allocated_bytes = 7

    await volumes.update_status(made, use)
    both = await volumes.update_status(made, measure)
    assert (both.status.used_by, both.status.allocated_bytes) == ("w", 7)


async def test_events_of_the_same_kind_are_counted(runtime: Runtime, clock: FakeClock) -> None:
    volumes = runtime.resources(VOLUME, Volume)
    made = await volumes.create(volume())
    for _ in range(3):
        runtime.events.record(VOLUME, made, EventKind.NORMAL, "Grown", "to 2Mi")
    await runtime.events.flush()
    await clock.advance(60)
    # Another daemon goes on counting: the name says what the event is.
    other = Runtime(runtime.store, "host", clock=clock)
    other.events.record(VOLUME, made, EventKind.NORMAL, "Grown", "to 2Mi")
    await other.events.flush()
    (event,) = await runtime.resources(EVENT, Event).list()
    assert event.count == 4
    assert event.first_timestamp is not None
    assert event.last_timestamp is not None
    assert (event.last_timestamp - event.first_timestamp).total_seconds() == 60
    await clock.advance(3601)
    await runtime.events.prune()
    assert await runtime.resources(EVENT, Event).list() == []


async def test_informer_lists_again_when_its_watch_expired(tmp_path: Path, clock: FakeClock) -> None:
    """A watch that is ended with ``Expired`` in the middle loses nothing that still is."""
    async with open_store(tmp_path) as store:
        expiring = _Expiring(store)
        runtime = Runtime(expiring, "host", clock=clock)  # type: ignore[arg-type]
        passes = Passes()
        add(runtime, passes)
        await runtime.start()
        volumes = runtime.resources(VOLUME, Volume)
        await volumes.create(volume("a"))
        await passes.wait(1)
        expiring.expire.set()
        await volumes.create(volume("b"))
        await volumes.delete(await volumes.get(Key("default", "a")))
        await clock.advance(1)
        await passes.wait(3)
        assert sorted(passes.keys[1:]) == [Key("default", "a"), Key("default", "b")]
        await runtime.stop(0.1)


async def _conditions_shown(runtime: Runtime) -> None:
    """Until a volume has conditions."""
    shown = asyncio.Event()
    runtime.informer(VOLUME).listen(
        lambda change: shown.set() if "conditions" in (change.states[-1].get("status") or {}) else None
    )
    async with asyncio.timeout(5):
        await shown.wait()


class _Expiring:
    """A store whose next event of each watch is ``Expired``, once ``expire`` is set."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.expire = asyncio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def watch(self, *args: object, **options: object) -> _ExpiringWatch:
        return _ExpiringWatch(self._store.watch(*args, **options), self.expire)  # type: ignore[arg-type]


class _ExpiringWatch:
    def __init__(self, watch: object, expire: asyncio.Event) -> None:
        self._watch = watch
        self._expire = expire

    async def __aenter__(self) -> Self:
        self._events = await self._watch.__aenter__()  # type: ignore[attr-defined]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._watch.__aexit__(*exc)  # type: ignore[attr-defined]

    def __aiter__(self) -> _ExpiringWatch:
        return self

    async def __anext__(self) -> object:
        event = await anext(self._events)
        if self._expire.is_set():
            self._expire.clear()
            raise Expired("too old")
        return event
