"""get and list."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp

from carmel.apiserver import query, tables
from carmel.apiserver.negotiation import PLAIN, Shape, Wanted, wanted
from carmel.apiserver.request import Request
from carmel.apiserver.requestinfo import RequestInfo
from carmel.apiserver.responses import Pieces
from carmel.apiserver.status import JSON
from carmel.errors import BadRequest, Expired
from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind
from carmel.resources.selectors import Selector, parse_selector
from carmel.store.protocol import Page, Store, Stored

_BATCH = 25
"""Objects that are made into rows at once: a millisecond or two."""


def selector_of(kind: Kind, request: Request) -> Selector | None:
    selector = parse_selector(kind, request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))
    return selector or None


def include_of(request: Request) -> tables.Include:
    value = request.query.get("includeObject") or tables.Include.METADATA
    try:
        return tables.Include(value)
    except ValueError:
        raise BadRequest(f"includeObject: {value[:40]!r} is none of None, Metadata, Object") from None


def yaml_response(obj: JsonObject) -> Response:
    import yaml  # 10 ms and 3 MB that most daemons never need

    return Response(yaml.safe_dump(obj, sort_keys=False), media_type="application/yaml")


def object_response(stored: Stored, shape: Wanted, request: Request, status: int = 200, **headers: str) -> Response:
    """One object in the shape that was asked for."""
    if shape.shape is Shape.TABLE:
        version = stored.resource_version
        body = tables.table(stored.kind, [stored], shape, include_of(request), resourceVersion=version)
        return Response(orjson.dumps(body), status, headers, JSON)
    if shape.shape is Shape.PARTIAL:
        return Response(orjson.dumps(tables.partial(stored.json(), shape)), status, headers, JSON)
    if shape.yaml:
        return yaml_response(stored.json())
    return Response(stored.raw, status, headers, JSON)


async def get(store: Store, info: RequestInfo, request: Request) -> Response:
    assert info.kind is not None
    shape = wanted(request.headers.get("accept", ""))
    stored = await store.get(info.kind, info.namespace, info.name)
    return object_response(stored, shape, request)


async def list_objects(store: Store, info: RequestInfo, request: Request) -> ASGIApp:
    kind = info.kind
    assert kind is not None
    shape = wanted(request.headers.get("accept", ""))
    include = include_of(request)
    _check_version_match(request.query)
    page = await store.list(
        kind,
        info.namespace,
        selector=selector_of(kind, request),
        limit=query.number(request.query, "limit") or 0,
        continue_token=request.query.get("continue", ""),
    )
    _check_exact(request.query, page)
    if shape.shape is Shape.OBJECT and not shape.yaml:
        return Pieces(_joined(kind, page), JSON)
    rows = await _shaped(page.items, kind, shape, include)
    if shape.shape is Shape.TABLE:
        head = tables.table(kind, (), shape, include, **_list_metadata(page))
        return Pieces(_with_items(head, "rows", rows), JSON)
    if shape.shape is Shape.PARTIAL:
        head = {
            "kind": "PartialObjectMetadataList",
            "apiVersion": shape.api_version,
            "metadata": _list_metadata(page),
            "items": [],
        }
        return Pieces(_with_items(head, "items", rows), JSON)
    whole = orjson.loads(b"".join(_joined(kind, page)))
    return await asyncio.to_thread(yaml_response, whole)


async def _shaped(items: Sequence[Stored], kind: Kind, shape: Wanted, include: tables.Include) -> list[bytes]:
    """The JSON of each row (or partial object), a few at a time. A thread would be worse for whoever waits behind it:
    with the interpreter's lock, each turn of the event loop would cost 5 ms."""
    if shape == PLAIN or shape.yaml:
        return []
    made: list[bytes] = []
    for start in range(0, len(items), _BATCH):
        some = items[start : start + _BATCH]
        if shape.shape is Shape.TABLE:
            rows = tables.table(kind, some, shape, include)["rows"]
        else:
            rows = [tables.partial(stored.json(), shape) for stored in some]
        made.append(orjson.dumps(rows)[1:-1])
        await asyncio.sleep(0)
    return made


def _joined(kind: Kind, page: Page) -> list[bytes]:
    """The list from the stored bytes: no object is parsed for it."""
    head: JsonObject = {
        "apiVersion": kind.api_version,
        "kind": f"{kind.kind}List",
        "metadata": _list_metadata(page),
        "items": [],
    }
    return _with_items(head, "items", [stored.raw for stored in page.items])


def _with_items(head: JsonObject, field: str, items: Sequence[bytes]) -> list[bytes]:
    before, empty, after = orjson.dumps({**head, field: []}).partition(f'"{field}":['.encode())
    parts = [before + empty]
    for item in items:
        parts += (item, b",")
    if items:
        parts.pop()
    parts.append(after)
    return parts


def _list_metadata(page: Page) -> dict[str, Any]:
    metadata: dict[str, Any] = {"resourceVersion": page.resource_version}
    if page.continue_token:
        metadata["continue"] = page.continue_token
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
    return metadata


def _check_version_match(parameters: Mapping[str, str]) -> None:
    """Which combinations mean something (API concepts, "Resource versions", ``list``)."""
    match = parameters.get("resourceVersionMatch", "")
    version = parameters.get("resourceVersion", "")
    if match and not version:
        raise query.invalid(
            "resourceVersionMatch", "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        )
    if match not in {"", "Exact", "NotOlderThan"}:
        raise query.invalid(
            "resourceVersionMatch", f"Unsupported value: {match[:40]!r}: supported values: Exact, NotOlderThan"
        )
    if match == "Exact" and version == "0":
        raise query.invalid("resourceVersionMatch", "Forbidden: Exact is forbidden for resourceVersion 0")
    if match and parameters.get("continue"):
        raise query.invalid(
            "resourceVersionMatch", "Forbidden: resourceVersionMatch is forbidden when continue is provided"
        )
    if parameters.get("sendInitialEvents"):
        raise query.invalid("sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list")


def _check_exact(parameters: Mapping[str, str], page: Page) -> None:
    """Only the present is kept whole: an exact version of the past is gone."""
    exact = parameters.get("resourceVersionMatch") == "Exact"
    if exact and parameters.get("resourceVersion") != page.resource_version:
        raise Expired("the resourceVersion for the provided list is not available any more", hint="list without it")
