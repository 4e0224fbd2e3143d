"""create, replace, patch, delete and deletecollection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from carmel.apiserver import query
from carmel.apiserver.bodies import (
    JSON_TYPES,
    OBJECT_TYPES,
    PROTOBUF_TYPE,
    YAML_TYPES,
    media_type,
    parse_json,
    parse_object,
    parse_yaml,
    unsupported,
)
from carmel.apiserver.negotiation import wanted
from carmel.apiserver.orphans import disown
from carmel.apiserver.reading import object_response, selector_of
from carmel.apiserver.request import Request
from carmel.apiserver.requestinfo import RequestInfo
from carmel.apiserver.status import JSON, success
from carmel.errors import BadRequest, Conflict, NotFound
from carmel.resources.base import JsonObject
from carmel.resources.core import SECRET
from carmel.resources.kinds import Kind
from carmel.store.protocol import FieldValidation, PatchType, Preconditions, Store, Stored, WriteOptions

_THREAD_BYTES = 16 * 1024
"""Bodies larger than this, and all YAML, are parsed in a thread."""
_MAX_MANAGER = 128
_ORPHAN_POLICY = "Orphan"
_POLICIES = frozenset({"", "Background", "Foreground", _ORPHAN_POLICY})


async def create(store: Store, info: RequestInfo, request: Request) -> Response:
    kind = _kind(info)
    shape = wanted(request.headers.get("accept", ""))
    options = write_options(request)
    body = await read_object(request)
    _place(kind, info, request, body)
    stored = await store.create(kind, body, options)
    return object_response(stored, shape, request, 201, **_warnings(options))


async def replace(store: Store, info: RequestInfo, request: Request) -> Response:
    kind = _kind(info)
    shape = wanted(request.headers.get("accept", ""))
    options = write_options(request)
    body = await read_object(request)
    _place(kind, info, request, body)
    stored = await store.replace(kind, body, subresource=info.subresource, options=options)
    return object_response(stored, shape, request, 200, **_warnings(options))


async def patch(store: Store, info: RequestInfo, request: Request) -> Response:
    kind = _kind(info)
    shape = wanted(request.headers.get("accept", ""))
    patch_type = _patch_type(request)
    options = write_options(request)
    if patch_type is PatchType.APPLY:
        if not request.query.get("fieldManager"):
            raise query.invalid("fieldManager", "Required value: is required for apply patch")
        options.force = query.flag(request.query, "force")
    elif "force" in request.query:
        raise query.invalid("force", "Forbidden: may not be specified for non-apply patch")
    body = await request.body()
    parse = parse_yaml if patch_type is PatchType.APPLY else parse_json
    document = await _in_thread(parse, body, always=patch_type is PatchType.APPLY)
    if patch_type is PatchType.APPLY:
        if not isinstance(document, dict):
            raise BadRequest("the body must be an object")
        _place(kind, info, request, document)
    existed = patch_type is not PatchType.APPLY or await _exists(store, kind, info)
    stored = await store.patch(
        kind,
        info.namespace,
        info.name,
        orjson.dumps(document),
        patch_type,
        subresource=info.subresource,
        options=options,
    )
    return object_response(stored, shape, request, 200 if existed else 201, **_warnings(options))


async def delete(store: Store, info: RequestInfo, request: Request) -> Response:
    kind = _kind(info)
    options = await _delete_options(request)
    dry_run = _is_dry_run(request, options)
    wanted_object = _preconditions(options)
    if _is_orphaning(request, options):
        await store.delete(kind, info.namespace, info.name, preconditions=wanted_object, dry_run=True)
        writing = WriteOptions(manager=_manager(request.query, request.user_agent()), dry_run=dry_run)
        await disown(store, kind, info.namespace, info.name, writing)
    stored = await store.delete(kind, info.namespace, info.name, preconditions=wanted_object, dry_run=dry_run)
    # Who may delete a Secret may not always read it.
    if kind != SECRET and await _is_held_back(store, stored):
        return Response(stored.raw, media_type=JSON)
    done = success(kind=kind.plural, group=kind.group, name=info.name, uid=stored.uid)
    return Response(orjson.dumps(done), media_type=JSON)


async def _is_held_back(store: Store, deleted: Stored) -> bool:
    """It is marked for deletion, and its finalizers are not done."""
    if not deleted.json()["metadata"].get("deletionTimestamp"):
        return False
    try:
        return (await store.get(deleted.kind, deleted.namespace, deleted.name)).uid == deleted.uid
    except NotFound:
        return False


async def delete_collection(store: Store, info: RequestInfo, request: Request) -> Response:
    """Delete what the selectors choose; what somebody else deletes or replaces meanwhile is left to them."""
    kind = _kind(info)
    options = await _delete_options(request)
    dry_run = _is_dry_run(request, options)
    page = await store.list(
        kind,
        info.namespace,
        selector=selector_of(kind, request),
        limit=query.number(request.query, "limit") or 0,
        continue_token=request.query.get("continue", ""),
    )
    deleted: list[Stored] = []
    for stored in page.items:
        try:
            one = Preconditions(uid=stored.uid)
            deleted.append(await store.delete(kind, stored.namespace, stored.name, preconditions=one, dry_run=dry_run))
        except (NotFound, Conflict):
            continue
    items = b"" if kind == SECRET else b",".join(stored.raw for stored in deleted)
    head: JsonObject = {
        "apiVersion": kind.api_version,
        "kind": f"{kind.kind}List",
        "metadata": {"resourceVersion": page.resource_version},
    }
    return Response(orjson.dumps(head)[:-1] + b',"items":[' + items + b"]}", media_type=JSON)


def _kind(info: RequestInfo) -> Kind:
    assert info.kind is not None
    return info.kind


async def _in_thread(parse: Any, body: bytes, *arguments: Any, always: bool = False) -> Any:
    if always or len(body) > _THREAD_BYTES:
        return await asyncio.to_thread(parse, body, *arguments)
    return parse(body, *arguments)


async def read_object(request: Request) -> JsonObject:
    """The body, which must be an object."""
    content_type = request.headers.get("content-type", "")
    kind = media_type(content_type)
    if kind not in {*JSON_TYPES, *YAML_TYPES, PROTOBUF_TYPE}:
        raise unsupported(kind, OBJECT_TYPES)
    body = await request.body()
    parsed: JsonObject = await _in_thread(parse_object, body, content_type, always=kind in YAML_TYPES)
    return parsed


def _patch_type(request: Request) -> PatchType:
    given = media_type(request.headers.get("content-type", ""))
    try:
        return PatchType(given)
    except ValueError:
        raise unsupported(given, tuple(PatchType)) from None


def _place(kind: Kind, info: RequestInfo, request: Request, body: JsonObject) -> None:
    """What the body says of itself must be what the URL says; what it leaves out is taken from there."""
    for field, right in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        given = body.setdefault(field, right)
        if given != right:
            raise BadRequest(
                f"the {field} in the data ({str(given)[:80]}) does not match the expected {field} ({right})",
                field=field,
            )
    metadata = body.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object", field="metadata")
    name = metadata.get("name")
    request.object_name = name if isinstance(name, str) else ""
    if info.name and metadata.setdefault("name", info.name) != info.name:
        raise BadRequest(
            f"the name of the object ({str(metadata['name'])[:80]}) does not match the name on the URL ({info.name})",
            field="metadata.name",
        )
    if info.namespace is None:
        return
    if (metadata.get("namespace") or info.namespace) != info.namespace:
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request",
            field="metadata.namespace",
        )
    metadata["namespace"] = info.namespace


def write_options(request: Request) -> WriteOptions:
    """What the query and the User-Agent say about a write."""
    parameters = request.query
    validation = parameters.get("fieldValidation") or FieldValidation.WARN
    try:
        field_validation = FieldValidation(validation)
    except ValueError:
        raise query.invalid(
            "fieldValidation", f"Unsupported value: {validation[:40]!r}: supported values: Ignore, Strict, Warn"
        ) from None
    return WriteOptions(
        manager=_manager(parameters, request.user_agent()),
        dry_run=query.dry_run(parameters.getlist("dryRun")),
        field_validation=field_validation,
    )


def _manager(parameters: Mapping[str, str], user_agent: str) -> str:
    """The field manager: as given, else what the User-Agent has before its first slash, as Kubernetes does."""
    given = parameters.get("fieldManager", "")
    if len(given) > _MAX_MANAGER or not given.isprintable():
        raise query.invalid("fieldManager", f"Invalid value: must have at most {_MAX_MANAGER} printable characters")
    if given:
        return given
    prefix = "".join(letter for letter in user_agent.partition("/")[0] if letter.isprintable())
    return prefix[:_MAX_MANAGER] or "unknown"


def _warnings(options: WriteOptions) -> dict[str, str]:
    """RFC 7234's Warning header, code 299, as kubectl shows it. One header holds them all."""
    quoted = []
    for warning in options.warnings[:32]:
        plain = "".join(letter if " " <= letter <= "~" else "?" for letter in warning[:256])
        quoted.append('299 - "{}"'.format(plain.replace("\\", "\\\\").replace('"', '\\"')))
    return {"warning": ", ".join(quoted)} if quoted else {}


async def _exists(store: Store, kind: Kind, info: RequestInfo) -> bool:
    try:
        await store.get(kind, info.namespace, info.name)
    except NotFound:
        return False
    return True


async def _delete_options(request: Request) -> JsonObject:
    """The body of a DELETE, which may be empty, and what stands in the query instead."""
    body = await request.body()
    options: JsonObject = parse_object(body, request.headers.get("content-type", "")) if body.strip() else {}
    if options.get("kind", "DeleteOptions") != "DeleteOptions":
        raise BadRequest("the body of a DELETE must be DeleteOptions", field="kind")
    policy = options.get("propagationPolicy") or request.query.get("propagationPolicy", "")
    if policy not in _POLICIES:
        raise query.invalid("propagationPolicy", "Unsupported value: supported values: Background, Foreground, Orphan")
    query.number(request.query, "gracePeriodSeconds")
    return options


def _is_orphaning(request: Request, options: JsonObject) -> bool:
    """By its name, or by the older flag that means the same."""
    policy = options.get("propagationPolicy") or request.query.get("propagationPolicy")
    if policy:
        return bool(policy == _ORPHAN_POLICY)
    return options.get("orphanDependents") is True or query.flag(request.query, "orphanDependents")


def _is_dry_run(request: Request, options: JsonObject) -> bool:
    given = options.get("dryRun")
    if given is not None and not (isinstance(given, list) and all(isinstance(one, str) for one in given)):
        raise BadRequest("dryRun must be a list of strings", field="dryRun")
    return query.dry_run([*request.query.getlist("dryRun"), *(given or [])])


def _preconditions(options: JsonObject) -> Preconditions | None:
    given = options.get("preconditions")
    if given is None:
        return None
    values = {}
    for field in ("uid", "resourceVersion"):
        value = given.get(field) if isinstance(given, dict) else 0
        if value is not None and not isinstance(value, str):
            raise BadRequest(f"preconditions.{field} must be a string", field=f"preconditions.{field}")
        values[field] = value or None
    return Preconditions(uid=values["uid"], resource_version=values["resourceVersion"])
