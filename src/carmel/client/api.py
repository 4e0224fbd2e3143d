"""The client: list, get, create, replace, patch, apply, delete, watch, and the streams of VMs and images."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import urlencode

from carmel.client.answers import error_of, event_of, parsed_object, version_of
from carmel.client.discovery import Discovery, ResourceType
from carmel.client.endpoint import Context
from carmel.client.objects import JsonObject, Row, Table, WatchEvent, metadata, table_from_json
from carmel.client.transport import REQUEST_SECONDS, Readable, Response, Stream, Transport
from carmel.errors import TimedOut

FIELD_MANAGER = "carmel"
_PAGE = 500
_SHORTEST_WATCH_SECONDS = 0.25
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

PatchType = Literal["merge", "json", "apply"]
_PATCH_TYPES: Mapping[PatchType, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a kind. ``namespace`` ``None`` is all namespaces."""

    namespace: str | None = None
    labels: str = ""
    fields: str = ""

    def query(self) -> dict[str, str]:
        wanted = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {key: value for key, value in wanted.items() if value}


def by_name(namespace: str | None, name: str) -> Selection:
    """The one object of that name, to be listed or watched."""
    return Selection(namespace, fields=f"metadata.name={name}")


class Client:
    """One server. Use it from one thread, and close it (it is a context manager).

    ``cut`` alone may be called from another thread: whatever waits for the server ends at once.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.transport = Transport(context.endpoint)
        self.discovery = Discovery(self.get_json)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.transport.close()

    def cut(self) -> None:
        """What waits raises ``Unavailable``, and so does whatever is asked later."""
        self.transport.cut()

    # -- any path -----------------------------------------------------------------------------------------------
    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        seconds: float = REQUEST_SECONDS,
    ) -> Response:
        """One request; ``body`` is sent as JSON. Raises the error that a Status answer describes."""
        headers = {"Accept": accept}
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = json.dumps(body, separators=(",", ":")).encode()
        answer = self.transport.request(method, with_query(path, query), body=data, headers=headers, seconds=seconds)
        if answer.status >= 400:
            raise error_of(answer.status, answer.body)
        return answer

    def get_json(self, path: str, query: Mapping[str, str] | None = None) -> JsonObject:
        return parsed_object(self.call("GET", path, query=query).body)

    # -- objects ------------------------------------------------------------------------------------------------
    def kind(self, word: str) -> ResourceType:
        """The kind a person means. Raises ``NotFound``."""
        return self.discovery.find(word)

    def get(self, kind: ResourceType, namespace: str | None, name: str) -> JsonObject:
        return self.get_json(kind.path(namespace, name))

    def list(self, kind: ResourceType, selection: Selection) -> JsonObject:
        """The whole list as one List object, fetched in pages. Its resourceVersion is where a watch may begin."""
        query = {**selection.query(), "limit": str(_PAGE)}
        path = kind.path(selection.namespace)
        whole = self.get_json(path, query)
        page = whole
        while token := metadata(page, "continue"):
            page = self.get_json(path, {**query, "continue": token})
            whole["items"] = [*(whole.get("items") or []), *(page.get("items") or [])]
        for one in whole.get("items") or []:
            one.setdefault("apiVersion", kind.api_version)
            one.setdefault("kind", kind.kind)
        for leftover in ("continue", "remainingItemCount"):
            (whole.get("metadata") or {}).pop(leftover, None)
        return whole

    def table(self, kind: ResourceType, selection: Selection, name: str | None = None) -> Table:
        """What the server shows people of these objects, or of the one called ``name``."""
        path = kind.path(selection.namespace, name)
        query = {} if name else {**selection.query(), "limit": str(_PAGE)}
        rows: list[Row] = []
        while True:
            answer = parsed_object(self.call("GET", path, query=query, accept=_TABLE).body)
            page = table_from_json(answer)
            rows += page.rows
            token = metadata(answer, "continue")
            if not token:
                return Table(page.columns, tuple(rows), page.resource_version)
            query["continue"] = token

    def create(
        self, kind: ResourceType, namespace: str | None, obj: JsonObject, *, dry_run: bool = False
    ) -> JsonObject:
        query = _write_query(dry_run=dry_run, strict=True)
        return parsed_object(self.call("POST", kind.path(namespace), query=query, body=obj).body)

    def replace(self, kind: ResourceType, obj: JsonObject, *, dry_run: bool = False) -> JsonObject:
        """Write the whole object. ``metadata.resourceVersion`` makes it a ``Conflict`` if somebody was faster."""
        path = kind.path(metadata(obj, "namespace") or None, metadata(obj, "name"))
        return parsed_object(self.call("PUT", path, query=_write_query(dry_run=dry_run, strict=True), body=obj).body)

    def patch(
        self,
        kind: ResourceType,
        namespace: str | None,
        name: str,
        patch: Any,
        *,
        patch_type: PatchType = "merge",
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> JsonObject:
        return parsed_object(
            self.call(
                "PATCH",
                kind.path(namespace, name, subresource),
                query=_write_query(dry_run=dry_run, strict=patch_type != "json"),
                body=patch,
                content_type=_PATCH_TYPES[patch_type],
            ).body
        )

    def apply(
        self, kind: ResourceType, namespace: str | None, obj: JsonObject, *, force: bool = False, dry_run: bool = False
    ) -> tuple[JsonObject, bool]:
        """Server-side apply as the manager ``carmel``: the object, and whether it was created."""
        query = _write_query(dry_run=dry_run, strict=True)
        if force:
            query["force"] = "true"
        answer = self.call(
            "PATCH",
            kind.path(namespace, metadata(obj, "name")),
            query=query,
            body=obj,
            content_type=_PATCH_TYPES["apply"],
        )
        return parsed_object(answer.body), answer.status == 201

    def delete(
        self, kind: ResourceType, namespace: str | None, name: str, *, uid: str | None = None, dry_run: bool = False
    ) -> JsonObject:
        """Ask for an object's end: it may stay for a while, with a deletionTimestamp. ``uid`` must be its own."""
        options: JsonObject = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if dry_run:
            options["dryRun"] = ["All"]
        query = {"dryRun": "All"} if dry_run else None
        return parsed_object(self.call("DELETE", kind.path(namespace, name), query=query, body=options).body)

    # -- watch --------------------------------------------------------------------------------------------------
    def watch(
        self,
        kind: ResourceType,
        selection: Selection,
        resource_version: str,
        *,
        table: bool = False,
        deadline: float | None = None,
    ) -> Iterator[WatchEvent]:
        """What happens after ``resource_version``, until ``deadline`` (``time.monotonic``) or for ever.

        Goes on where it was when the server ends a watch that has lasted long. Raises ``Expired`` when the server no
        longer knows what happened since (list again), ``TimedOut`` at the deadline, and what else goes wrong.
        """
        while True:
            began = time.monotonic()
            query = {
                **selection.query(),
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": resource_version,
            }
            path = with_query(kind.path(selection.namespace), query)
            headers = {"Accept": _TABLE if table else "application/json"}
            with self.transport.stream("GET", path, headers=headers, seconds=_left(deadline)) as stream:
                if stream.status >= 400:
                    raise error_of(stream.status, stream.rest())
                while line := _line_before(stream, deadline):
                    event = event_of(line)
                    resource_version = version_of(event.object) or resource_version
                    if event.type != "BOOKMARK":
                        yield event
            if time.monotonic() - began < _SHORTEST_WATCH_SECONDS:
                time.sleep(_SHORTEST_WATCH_SECONDS)  # a server that ends every watch at once is not to be hammered

    # -- streams ------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Readable | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> Iterator[Stream]:
        """One request whose answer is read piece by piece (a log) or whose body is large (an upload)."""
        with self.transport.stream(
            method, with_query(path, query), body=body, headers=headers, seconds=seconds
        ) as stream:
            if stream.status >= 400:
                raise error_of(stream.status, stream.rest())
            yield stream


def with_query(path: str, query: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _write_query(*, dry_run: bool, strict: bool) -> dict[str, str]:
    query = {"fieldManager": FIELD_MANAGER}
    if strict:
        query["fieldValidation"] = "Strict"
    if dry_run:
        query["dryRun"] = "All"
    return query


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimedOut("the time is over")
    return left


def _line_before(stream: Stream, deadline: float | None) -> bytes:
    stream.wait_at_most(_left(deadline))
    return stream.line()
