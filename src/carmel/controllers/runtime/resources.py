"""Typed access to one kind: models in, models out, and a write only when something changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from carmel.controllers.runtime.keys import Key, key_of
from carmel.errors import Conflict, NotFound
from carmel.resources.base import Resource
from carmel.resources.kinds import Kind
from carmel.resources.selectors import Selector
from carmel.store.protocol import Preconditions, Store, Stored, WriteOptions

T = TypeVar("T", bound=Resource)

_ATTEMPTS = 8
"""How often a write is tried when others keep changing the object."""


class Resources(Generic[T]):
    """The objects of ``kind`` as values of ``model``.

    Reads ask the store and are never behind. A returned model is the caller's own. ``manager`` is the field
    manager of what is written: the controller's name.
    """

    def __init__(self, store: Store, kind: Kind, model: type[T], *, manager: str = "carmeld") -> None:
        self.kind = kind
        self._store = store
        self._model = model
        self._manager = manager

    def parse(self, stored: Stored) -> T:
        return self._model.model_validate_json(stored.raw)

    async def get(self, key: Key) -> T:
        """Raises ``NotFound``."""
        return self.parse(await self._store.get(self.kind, *key))

    async def find(self, key: Key) -> T | None:
        try:
            return await self.get(key)
        except NotFound:
            return None

    async def list(self, namespace: str | None = None, selector: Selector | None = None) -> list[T]:
        page = await self._store.list(self.kind, namespace, selector=selector)
        return [self.parse(stored) for stored in page.items]

    async def create(self, obj: T) -> T:
        """Raises ``AlreadyExists``, ``Invalid``."""
        return self.parse(await self._store.create(self.kind, self._body(obj), self._options()))

    async def update_status(self, obj: T, change: Callable[[T], object]) -> T:
        """Let ``change`` edit the status and store it, if it then differs.

        On a conflict ``change`` is applied to the newer state, so it must say what is to be, not how it was.
        Raises ``NotFound`` when this very object is gone.
        """
        return await self._write(obj, change, "status")

    async def update(self, obj: T, change: Callable[[T], object]) -> T:
        """The same for all but the status (metadata, spec)."""
        return await self._write(obj, change, "")

    async def add_finalizer(self, obj: T, finalizer: str) -> T:
        def change(one: T) -> None:
            if finalizer not in (one.metadata.finalizers or []):
                one.metadata.finalizers = [*(one.metadata.finalizers or []), finalizer]

        return await self.update(obj, change)

    async def remove_finalizer(self, obj: T, finalizer: str) -> None:
        """The last one gone from an object that is being deleted: it is gone. Gone already is fine."""

        def change(one: T) -> None:
            one.metadata.finalizers = [f for f in one.metadata.finalizers or [] if f != finalizer] or None

        try:
            await self.update(obj, change)
        except NotFound:
            return

    async def delete(self, obj: T) -> None:
        """Delete this very object (by uid). Gone already is fine."""
        try:
            await self._store.delete(self.kind, *key_of(obj), preconditions=Preconditions(uid=obj.metadata.uid))
        except NotFound:
            return

    async def _write(self, obj: T, change: Callable[[T], object], subresource: str) -> T:
        current = obj
        for attempt in range(_ATTEMPTS):
            wanted = current.model_copy(deep=True)
            change(wanted)
            if wanted == current:
                return current
            try:
                stored = await self._store.replace(
                    self.kind, self._body(wanted), subresource=subresource, options=self._options()
                )
                return self.parse(stored)
            except Conflict:
                if attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0)
                current = await self.get(key_of(obj))
                if current.metadata.uid != obj.metadata.uid:
                    raise NotFound(f"{self.kind.kind} {key_of(obj)} was deleted and made anew") from None
        raise AssertionError("unreachable")

    def _body(self, obj: T) -> dict[str, Any]:
        return {**obj.to_json(), "apiVersion": self.kind.api_version, "kind": self.kind.kind}

    def _options(self) -> WriteOptions:
        return WriteOptions(manager=self._manager)
