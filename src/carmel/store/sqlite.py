"""The store of one host: objects in memory for reading, in SQLite for keeping.

Writes queue up for the one writer thread, which takes all that wait into one transaction: as many share one fsync as
came while the last one ran. Memory, and with it every reader and watcher, sees a change only when it is durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from carmel.errors import BadRequest, CarmelError, Unavailable
from carmel.resources.base import JsonObject
from carmel.resources.core import NAMESPACE
from carmel.resources.kinds import Kind
from carmel.resources.registry import KINDS
from carmel.resources.selectors import Selector
from carmel.store import tokens, writing
from carmel.store.database import Contents, Database
from carmel.store.memory import HISTORY, Memory, Table
from carmel.store.migrations import STEPS, Steps
from carmel.store.protocol import Page, PatchType, Preconditions, Stored, WatchEvent, WriteOptions
from carmel.store.view import Outcome, View, Write, not_found
from carmel.store.watch import Scope, Watch

_BATCH = 128
BOOKMARK_SECONDS = 60.0


class SqliteStore:
    """A ``Store`` in one SQLite file. Open it with ``open``, on the event loop that uses it."""

    def __init__(self, database: Database, memory: Memory, thread: ThreadPoolExecutor, bookmark_seconds: float) -> None:
        self._database, self._memory, self._thread = database, memory, thread
        self._bookmark_seconds = bookmark_seconds
        self._queue: deque[tuple[Write, asyncio.Future[Stored]]] = deque()
        self._drain: asyncio.Task[None] | None = None
        self._watchers: set[Watch] = set()
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: Path,
        kinds: Sequence[Kind] = KINDS,
        *,
        history: int = HISTORY,
        bookmark_seconds: float = BOOKMARK_SECONDS,
        steps: Steps = STEPS,
    ) -> SqliteStore:
        """Open the database at ``path``, or make it. ``history`` is how many changes of a kind a watch can go back.

        Raises ``Refused`` for a database that another process has open, that a newer release wrote or that is damaged.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="carmel-store")
        loop = asyncio.get_running_loop()
        try:
            database, contents = await loop.run_in_executor(thread, _open, path, kinds, steps)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        memory = Memory(kinds, history)
        memory.start(contents.opened_from, contents.revision)
        for kind, objects in contents.objects.items():
            memory.tables[kind].load(objects)
        return cls(database, memory, thread, bookmark_seconds)

    # -- reading ------------------------------------------------------------------------------------------------
    async def get(self, kind: Kind, namespace: str | None, name: str) -> Stored:
        found = self._table(kind).objects.get((namespace or "", name))
        if found is None:
            raise not_found(kind, name)
        return found

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        selector: Selector | None = None,
        limit: int = 0,
        continue_token: str = "",
    ) -> Page:
        table, memory = self._table(kind), self._memory
        if continue_token:
            start = tokens.decode(kind, continue_token)
            revision = memory.position(start.resource_version)
            items = table.items_at(revision, namespace, (start.namespace, start.name))
        else:
            revision = memory.revision
            items = table.items(namespace)
        rest: Sequence[Stored] = ()
        if selector:
            items, rest = await asyncio.to_thread(_select, items, selector, limit)
        elif limit and len(items) > limit:
            items, rest = items[:limit], items[limit:]
        version = str(revision)
        if not rest:
            return Page(items, version)
        last = items[-1]
        token = tokens.encode(kind, tokens.Position(version, last.namespace or "", last.name))
        return Page(items, version, token, remaining=None if selector else len(rest))

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        since: str | None = None,
        selector: Selector | None = None,
        send_initial: bool = False,
        bookmarks: bool = False,
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        return Watch(
            self._memory,
            self._table(kind),
            Scope(namespace, selector),
            since=since,
            send_initial=send_initial,
            bookmark_seconds=self._bookmark_seconds if bookmarks else None,
            watchers=self._watchers,
        )

    # -- writing ------------------------------------------------------------------------------------------------
    async def create(self, kind: Kind, body: JsonObject, options: WriteOptions | None = None) -> Stored:
        self._table(kind)
        return await self._write(partial(writing.create, kind=kind, body=body, options=options or WriteOptions()))

    async def replace(
        self, kind: Kind, body: JsonObject, *, subresource: str = "", options: WriteOptions | None = None
    ) -> Stored:
        self._check_subresource(kind, subresource)
        options = options or WriteOptions()
        return await self._write(
            partial(writing.replace, kind=kind, body=body, subresource=subresource, options=options)
        )

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: bytes,
        patch_type: PatchType,
        *,
        subresource: str = "",
        options: WriteOptions | None = None,
    ) -> Stored:
        self._check_subresource(kind, subresource)
        return await self._write(
            partial(
                writing.patch,
                kind=kind,
                namespace=namespace,
                name=name,
                document=patch,
                patch_type=patch_type,
                subresource=subresource,
                options=options or WriteOptions(),
            )
        )

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        preconditions: Preconditions | None = None,
        dry_run: bool = False,
    ) -> Stored:
        self._table(kind)
        return await self._write(
            partial(
                writing.delete,
                kind=kind,
                namespace=namespace,
                name=name,
                preconditions=preconditions,
                dry_run=dry_run,
            )
        )

    def _table(self, kind: Kind) -> Table:
        if self._closed:
            raise _closed()
        table = self._memory.tables.get(kind)
        if table is None:
            raise BadRequest(f"this store does not keep {kind.resource}")
        return table

    def _check_subresource(self, kind: Kind, subresource: str) -> None:
        self._table(kind)
        known = {"", *(["status"] if kind.has_status else []), *(["finalize"] if kind == NAMESPACE else [])}
        if subresource not in known:
            raise BadRequest(f"{kind.resource} has no subresource {subresource!r}")

    async def _write(self, write: Write) -> Stored:
        answer: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._queue.append((write, answer))
        if self._drain is None:
            self._drain = asyncio.create_task(self._drain_queue())
        return await answer

    async def _drain_queue(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
                # A caller that went away before its turn is spared; after it, the write happens all the same.
                batch = [(write, answer) for write, answer in batch if not answer.done()]
                writes = [write for write, _ in batch]
                outcomes = await loop.run_in_executor(self._thread, self._outcomes, writes)
                self._take_in(outcomes)
                for (_, answer), outcome in zip(batch, outcomes, strict=True):
                    if answer.done():
                        continue
                    if isinstance(outcome, Outcome):
                        answer.set_result(outcome.answer)
                    else:
                        answer.set_exception(outcome)
        finally:
            self._drain = None

    def _take_in(self, outcomes: Sequence[Outcome | Exception]) -> None:
        changes = [one.change for one in outcomes if isinstance(one, Outcome) and one.change is not None]
        touched = {self._memory.tables[kind] for kind in self._memory.apply(changes)}
        for watcher in self._watchers:
            if any(watcher.concerns(table) for table in touched):
                watcher.notify()

    def _outcomes(self, writes: Sequence[Write]) -> Sequence[Outcome | Exception]:
        try:
            return self._commit(writes)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            return [error for _ in writes]

    def _commit(self, writes: Sequence[Write]) -> Sequence[Outcome | Exception]:
        """On the writer thread: the outcome of each write, all of them durable."""
        view = View(self._memory, datetime.now(UTC))
        outcomes = [_planned(view, write) for write in writes]
        if not view.changes:
            return outcomes
        try:
            self._database.commit(view.changes)
        except CarmelError:
            # A full disk may still have room for some of them: each for itself.
            view = View(self._memory, datetime.now(UTC))
            return [_planned(view, write, self._database) for write in writes]
        return outcomes

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._drain is not None:
            await asyncio.wait([self._drain])
        for watcher in list(self._watchers):
            watcher.close()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._thread.shutdown()


def _open(path: Path, kinds: Sequence[Kind], steps: Steps) -> tuple[Database, Contents]:
    database = Database(path, kinds, steps)
    try:
        return database, database.load()
    except BaseException:
        database.close()
        raise


def _planned(view: View, write: Write, database: Database | None = None) -> Outcome | Exception:
    """What a write comes to, and with a ``database`` made durable there at once."""
    try:
        outcome = write(view)
        if outcome.change is not None:
            if database is not None:
                database.commit([outcome.change])
            view.add(outcome.change)
    except Exception as error:  # noqa: BLE001 - it is raised again where the caller waits
        return error
    return outcome


def _select(items: Sequence[Stored], selector: Selector, limit: int) -> tuple[list[Stored], list[Stored]]:
    """The first ``limit`` items that match, and one more that says whether there are others."""
    found: list[Stored] = []
    for item in items:
        if selector.matches(item.json()):
            found.append(item)
            if limit and len(found) > limit:
                break
    return (found[:limit], found[limit:]) if limit else (found, [])


def _closed() -> Unavailable:
    return Unavailable("the store is closed", code="StoreClosed")
