"""What every store promises of lists and watches. See ``writes`` for how a store runs this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from carmel.errors import BadRequest, Expired
from carmel.resources.core import NAMESPACE, SECRET
from carmel.resources.selectors import parse_selector
from carmel.store.protocol import EventType, PatchType, Store, Stored, WatchEvent
from tests.contract.objects import secret

Compact = Callable[[], Awaitable[None]]
"""Makes the store forget the history of Secrets up to now."""

DEADLINE = 10


async def take(watch: AsyncIterator[WatchEvent], count: int) -> list[WatchEvent]:
    async with asyncio.timeout(DEADLINE):
        return [await anext(watch) for _ in range(count)]


def told(events: list[WatchEvent]) -> list[tuple[str, str]]:
    return [(event.type.value, event.object.name if event.object else "") for event in events]


class ReadContract:
    async def test_lists_are_ordered_and_of_one_namespace_or_all(self, store: Store) -> None:
        await store.create(NAMESPACE, {"metadata": {"name": "a-space"}})
        for name, namespace in (("b", "default"), ("a", "default"), ("c", "a-space")):
            await store.create(SECRET, secret(name, namespace))
        everywhere = await store.list(SECRET)
        assert [(one.namespace, one.name) for one in everywhere.items] == [
            ("a-space", "c"),
            ("default", "a"),
            ("default", "b"),
        ]
        assert [one.name for one in (await store.list(SECRET, "default")).items] == ["a", "b"]
        assert not (await store.list(SECRET, "defaul")).items

    async def test_selectors(self, store: Store) -> None:
        for name, app in (("a", "web"), ("b", "db"), ("c", "web")):
            await store.create(SECRET, secret(name, labels={"app": app}))
        page = await store.list(SECRET, selector=parse_selector(SECRET, "app=web"), limit=1)
        assert [one.name for one in page.items] == ["a"]
        rest = await store.list(
            SECRET, selector=parse_selector(SECRET, "app=web"), limit=1, continue_token=page.continue_token
        )
        assert [one.name for one in rest.items] == ["c"]
        assert not rest.continue_token
        by_name = await store.list(SECRET, selector=parse_selector(SECRET, fields="metadata.name=b"))
        assert [one.name for one in by_name.items] == ["b"]

    async def test_the_parts_of_a_list_show_one_moment(self, store: Store) -> None:
        for name in "bdfh":
            await store.create(SECRET, secret(name))
        whole = await store.list(SECRET)
        first = await store.list(SECRET, limit=1)
        assert first.remaining == 3
        await store.create(SECRET, secret("a"))
        await store.create(SECRET, secret("c"))
        await store.delete(SECRET, "default", "d")
        await store.patch(SECRET, "default", "f", b'{"metadata":{"labels":{"x":"y"}}}', PatchType.MERGE)
        await store.delete(SECRET, "default", "h")
        await store.create(SECRET, secret("h"))
        found, token = list(first.items), first.continue_token
        while token:
            page = await store.list(SECRET, limit=2, continue_token=token)
            assert page.resource_version == first.resource_version
            found += page.items
            token = page.continue_token
        assert found == list(whole.items)

    async def test_a_continue_token_expires(self, store: Store, compact: Compact) -> None:
        for name in "ab":
            await store.create(SECRET, secret(name))
        page = await store.list(SECRET, limit=1)
        await compact()
        with pytest.raises(Expired):
            await store.list(SECRET, limit=1, continue_token=page.continue_token)

    @pytest.mark.parametrize("token", ["x", "e30", "W10", "WzEsIm5ldHdvcmtzIiwiMSIsIiIsIiJd", "a" * 5000])
    async def test_a_continue_token_that_is_none(self, store: Store, token: str) -> None:
        with pytest.raises(BadRequest):
            await store.list(SECRET, continue_token=token)

    async def test_a_watch_from_a_list_goes_on_where_it_ended(self, store: Store) -> None:
        await store.create(SECRET, secret("before"))
        page = await store.list(SECRET)
        await store.create(SECRET, secret("between"))
        async with store.watch(SECRET, since=page.resource_version) as watch:
            await store.create(SECRET, secret("after"))
            changed = await store.patch(SECRET, "default", "after", b'{"data":{"a":"eA=="}}', PatchType.MERGE)
            gone = await store.delete(SECRET, "default", "before")
            events = await take(watch, 4)
        assert told(events) == [("ADDED", "between"), ("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "before")]
        assert events[2].object == changed
        assert events[3].object == gone
        assert gone.resource_version == events[3].resource_version

    async def test_a_watch_sees_its_namespace_and_kind_only(self, store: Store) -> None:
        await store.create(NAMESPACE, {"metadata": {"name": "other"}})
        async with store.watch(SECRET, "other") as watch:
            await store.create(SECRET, secret("a"))
            await store.create(SECRET, secret("b", "other"))
            assert told(await take(watch, 1)) == [("ADDED", "b")]

    async def test_a_selector_makes_objects_come_and_go(self, store: Store) -> None:
        async with store.watch(SECRET, selector=parse_selector(SECRET, "on=yes")) as watch:
            await store.create(SECRET, secret("a"))
            for document in (b'{"on":"yes"}', b'{"on":"yes","x":"y"}', b'{"on":"no"}', b'{"on":"yes"}'):
                await store.patch(SECRET, "default", "a", b'{"metadata":{"labels":' + document + b"}}", PatchType.MERGE)
            await store.delete(SECRET, "default", "a")
            events = await take(watch, 5)
        assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
        versions = [event.resource_version for event in events]
        assert versions == [event.object.json()["metadata"]["resourceVersion"] for event in events if event.object]
        assert len(set(versions)) == 5

    async def test_initial_objects_then_a_bookmark_then_changes(self, store: Store) -> None:
        for name in "ab":
            await store.create(SECRET, secret(name))
        async with store.watch(SECRET, send_initial=True, bookmarks=True) as watch:
            await store.create(SECRET, secret("c"))
            events = await take(watch, 4)
        assert told(events) == [("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", ""), ("ADDED", "c")]
        assert events[2].initial_events_end

    async def test_a_watch_from_what_is_forgotten(self, store: Store, compact: Compact) -> None:
        page = await store.list(SECRET)
        await store.create(SECRET, secret("a"))
        await compact()
        with pytest.raises(Expired):
            async with store.watch(SECRET, since=page.resource_version) as watch:
                await take(watch, 1)

    async def test_a_watcher_that_falls_behind(self, store: Store, compact: Compact) -> None:
        async with store.watch(SECRET) as watch:
            await store.create(SECRET, secret("a"))
            await take(watch, 1)
            await store.create(SECRET, secret("b"))
            await compact()
            await store.create(SECRET, secret("c"))
            with pytest.raises(Expired):
                await take(watch, 1000)

    @pytest.mark.parametrize("since", ["x", "-1", "1", "9" * 30, "٣"])
    async def test_a_version_that_never_was(self, store: Store, since: str) -> None:
        with pytest.raises(Expired):
            async with store.watch(SECRET, since=since) as watch:
                await take(watch, 1)

    async def test_a_watch_misses_nothing_under_concurrent_writes(self, store: Store) -> None:
        """Many writers; a watch from a list in their midst, applied to that list, ends where the store ends."""
        writers = 8

        async def write(worker: int) -> None:
            for turn in range(15):
                name = f"s{worker}-{turn % 4}"
                await store.create(SECRET, secret(name))
                await store.patch(SECRET, "default", name, b'{"data":{"n":"eA=="}}', PatchType.MERGE)
                if turn % 2:
                    await store.patch(SECRET, "default", name, b'{"data":{"n":"eQ=="}}', PatchType.MERGE)
                await store.delete(SECRET, "default", name)
            await store.create(SECRET, secret(f"end{worker}"))

        tasks = [asyncio.create_task(write(worker)) for worker in range(writers)]
        async with store.watch(SECRET) as progress:
            await take(progress, 20)
        page = await store.list(SECRET)
        seen = {one.name: one for one in page.items}
        async with store.watch(SECRET, since=page.resource_version) as watch:
            while sum(name.startswith("end") for name in seen) < writers:
                (event,) = await take(watch, 1)
                assert event.object is not None
                _check_step(event, seen)
        await asyncio.gather(*tasks)
        assert list((await store.list(SECRET)).items) == [seen[name] for name in sorted(seen)]


def _check_step(event: WatchEvent, seen: dict[str, Stored]) -> None:
    assert event.object is not None
    name = event.object.name
    assert (name in seen) == (event.type is not EventType.ADDED)
    if event.type is EventType.DELETED:
        del seen[name]
    else:
        seen[name] = event.object
