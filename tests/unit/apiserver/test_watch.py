"""Watches: from where, in which shape, and how they end."""

from __future__ import annotations

import asyncio
from typing import Any

from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from tests.unit.apiserver.asgi import Exchange, call, start
from tests.unit.apiserver.conftest import Served
from tests.unit.apiserver.test_objects import TABLE, VMS, fill, vm

LIST_STREAM = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"


def watch(served: Served, query: str = "", headers: dict[str, str] | None = None) -> Exchange:
    return start(served.app, "GET", f"{VMS}?watch=true&{query}", headers=headers)


async def add(served: Served, name: str, **metadata: Any) -> None:
    await served.store.create(VIRTUAL_MACHINE, vm(name, namespace="default", **metadata))


async def test_from_what_there_is(served: Served) -> None:
    await fill(served.store, 2)
    exchange = watch(served)
    first, second = await exchange.lines(2)
    assert (first["type"], second["object"]["metadata"]["name"]) == ("ADDED", "vm-001")
    await add(served, "late")
    assert (await exchange.lines(3))[2]["object"]["metadata"]["name"] == "late"
    await exchange.end()


async def test_from_a_list(served: Served) -> None:
    await fill(served.store, 2)
    version = (await call(served.app, "GET", VMS)).json()["metadata"]["resourceVersion"]
    await add(served, "between")
    exchange = watch(served, f"resourceVersion={version}")
    (event,) = await exchange.lines(1)
    assert event["object"]["metadata"]["name"] == "between"
    await served.store.delete(VIRTUAL_MACHINE, "default", "between")
    assert (await exchange.lines(2))[1]["type"] == "DELETED"
    await exchange.end()


async def test_a_list_as_a_stream(served: Served) -> None:
    await fill(served.store, 2)
    exchange = watch(served, LIST_STREAM)
    lines = await exchange.lines(3)
    assert [one["type"] for one in lines] == ["ADDED", "ADDED", "BOOKMARK"]
    metadata = lines[2]["object"]["metadata"]
    assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert metadata["resourceVersion"]
    await exchange.end()


async def test_tables_have_columns_once(served: Served) -> None:
    await fill(served.store, 2)
    exchange = watch(served, LIST_STREAM, TABLE)
    first, second, bookmark = await exchange.lines(3)
    assert first["object"]["kind"] == "Table"
    assert first["object"]["columnDefinitions"]
    assert second["object"]["columnDefinitions"] is None
    assert second["object"]["rows"][0]["cells"][0] == "vm-001"
    row = bookmark["object"]["rows"][0]["object"]
    assert row["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    await exchange.end()


async def test_selected_objects_only(served: Served) -> None:
    exchange = watch(served, "labelSelector=app%3Dweb")
    await add(served, "other")
    await add(served, "mine", labels={"app": "web"})
    (event,) = await exchange.lines(1)
    assert event["object"]["metadata"]["name"] == "mine"
    await exchange.end()


async def test_too_old_is_told_inside(served: Served) -> None:
    exchange = watch(served, "resourceVersion=1")
    (event,) = await exchange.lines(1)
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
    async with asyncio.timeout(10):
        await exchange.task
    assert exchange.sent[-1].get("more_body") is False


async def test_it_ends_in_time(served: Served) -> None:
    exchange = watch(served, "timeoutSeconds=1")
    async with asyncio.timeout(10):
        await exchange.task
    assert exchange.sent[-1].get("more_body") is False


async def test_it_ends_when_the_server_stops(served: Served) -> None:
    exchange = watch(served)
    await asyncio.sleep(0)
    served.app.shared.stopping.set()
    async with asyncio.timeout(10):
        await exchange.task
    assert exchange.sent[-1].get("more_body") is False
    assert served.app.shared.watches.taken == 0


async def test_it_is_let_go_when_the_client_goes(served: Served) -> None:
    exchange = watch(served)
    await add(served, "web")
    await exchange.lines(1)
    assert served.app.shared.watches.taken == 1
    await exchange.end()
    assert served.app.shared.watches.taken == 0


async def test_there_are_only_so_many(served: Served) -> None:
    served.app.shared.watches.taken = 1024
    answer = await call(served.app, "GET", f"{VMS}?watch=true")
    served.app.shared.watches.taken = 0
    assert (answer.status, answer.json()["details"]["retryAfterSeconds"]) == (429, 1)
    assert answer.headers["retry-after"] == "1"
