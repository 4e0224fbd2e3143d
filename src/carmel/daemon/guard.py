"""A store that acknowledges nothing once its directory is gone.

SQLite goes on writing into a deleted file without a word; what it acknowledged would be lost with the process. So each
write asks first whether the state directory is still the one that the daemon was started on.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from carmel.errors import Unavailable
from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind
from carmel.resources.selectors import Selector
from carmel.store.protocol import (
    Page,
    PatchType,
    Preconditions,
    Store,
    Stored,
    WatchEvent,
    WriteOptions,
)

_log = logging.getLogger(__name__)


class GuardedStore:
    """A ``Store`` in front of another. ``in_place`` is asked before and after every write; one system call."""

    def __init__(self, store: Store, in_place: Callable[[], bool], where: str) -> None:
        self._store = store
        self._in_place = in_place
        self._where = where
        self._told = False

    def check(self) -> None:
        """Raises ``Unavailable`` (``StateDirectoryGone``)."""
        if self._in_place():
            return
        error = Unavailable(
            f"the state directory {self._where} was removed while carmeld runs: nothing more is stored",
            code="StateDirectoryGone",
            hint="bring it back (from a backup) and restart carmeld; the VMs run on meanwhile",
            retryable=False,
        )
        if not self._told:
            self._told = True
            _log.critical("%s; %s", error.message, error.hint)
        raise error

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Stored:
        return await self._store.get(kind, namespace, name)

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        selector: Selector | None = None,
        limit: int = 0,
        continue_token: str = "",
    ) -> Page:
        return await self._store.list(kind, namespace, selector=selector, limit=limit, continue_token=continue_token)

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
        return self._store.watch(
            kind, namespace, since=since, selector=selector, send_initial=send_initial, bookmarks=bookmarks
        )

    async def create(self, kind: Kind, body: JsonObject, options: WriteOptions | None = None) -> Stored:
        self.check()
        stored = await self._store.create(kind, body, options)
        self.check()
        return stored

    async def replace(
        self, kind: Kind, body: JsonObject, *, subresource: str = "", options: WriteOptions | None = None
    ) -> Stored:
        self.check()
        stored = await self._store.replace(kind, body, subresource=subresource, options=options)
        self.check()
        return stored

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
        self.check()
        stored = await self._store.patch(
            kind, namespace, name, patch, patch_type, subresource=subresource, options=options
        )
        self.check()
        return stored

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        preconditions: Preconditions | None = None,
        dry_run: bool = False,
    ) -> Stored:
        self.check()
        stored = await self._store.delete(kind, namespace, name, preconditions=preconditions, dry_run=dry_run)
        self.check()
        return stored

    async def close(self) -> None:
        await self._store.close()
