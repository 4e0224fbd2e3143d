"""OpenAPI v2 and v3 of what is served, as far as kubectl and its kin read it.

kubectl takes from it: field documentation (``explain``), client-side validation (1.20), whether a kind's PATCH takes
``dryRun`` and ``fieldValidation``, and merge keys. The schemas are those of the CRDs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import orjson

from carmel import __version__
from carmel.apiserver.discovery import group_versions
from carmel.apiserver.requestinfo import subresources
from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind
from carmel.resources.registry import KINDS
from carmel.resources.schema import structural_schema
from carmel.store.protocol import PatchType

_INFO = {"title": "Carmel", "version": __version__}
_WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation")
_PARAMETERS = {
    "get": (),
    "list": ("labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "watch", "timeoutSeconds"),
    "create": _WRITE_PARAMETERS,
    "update": _WRITE_PARAMETERS,
    "patch": (*_WRITE_PARAMETERS, "force"),
    "delete": ("dryRun", "propagationPolicy", "gracePeriodSeconds"),
    "deletecollection": ("dryRun", "labelSelector", "fieldSelector"),
}
_TYPES = {
    "limit": "integer",
    "timeoutSeconds": "integer",
    "gracePeriodSeconds": "integer",
    "watch": "boolean",
    "force": "boolean",
}
_ITEM = {"get": "get", "put": "update", "patch": "patch", "delete": "delete"}
_COLLECTION = {"get": "list", "post": "create", "delete": "deletecollection"}
_ACTIONS = {"deletecollection": "deletecollection", "create": "post", "update": "put"}


def gvk_of(kind: Kind) -> JsonObject:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def definition_name(kind: Kind) -> str:
    """``dev.carmel.v1alpha1.VirtualMachine``; core kinds as Kubernetes calls them."""
    prefix = ".".join(reversed(kind.group.split("."))) if kind.group else "io.k8s.api.core"
    return f"{prefix}.{kind.version}.{kind.kind}"


def _patch_types(kind: Kind) -> list[str]:
    """Strategic merge patches need Go struct tags: only the kinds that clients have built in take them. kubectl looks
    here before it chooses."""
    ours = kind.group == "carmel.dev"
    return [str(media) for media in PatchType if not (ours and media is PatchType.STRATEGIC)]


def _marked_schema(kind: Kind) -> JsonObject:
    return {**structural_schema(kind), "x-kubernetes-group-version-kind": [gvk_of(kind)]}


def base_path(group: str, version: str) -> str:
    """``api/v1`` or ``apis/GROUP/VERSION``, as the v3 index names documents."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _paths_of(kind: Kind) -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """(path, methods with their verbs, names of its path parameters)."""
    root = "/" + base_path(kind.group, kind.version)
    scope = f"{root}/namespaces/{{namespace}}" if kind.namespaced else root
    within = ["namespace"] if kind.namespaced else []
    if kind.namespaced:
        yield f"{root}/{kind.plural}", {"get": "list"}, []
    yield f"{scope}/{kind.plural}", _COLLECTION, within
    yield f"{scope}/{kind.plural}/{{name}}", _ITEM, [*within, "name"]
    if "status" in subresources(kind):
        methods = {method: verb for method, verb in _ITEM.items() if method != "delete"}
        yield f"{scope}/{kind.plural}/{{name}}/status", methods, [*within, "name"]


def _operation_id(kind: Kind, path: str, verb: str) -> str:
    scope = "Namespaced" if "{namespace}" in path else ""
    everywhere = "ForAllNamespaces" if kind.namespaced and not scope else ""
    group = "".join(part.capitalize() for part in kind.group.split(".")) or "Core"
    status = "Status" if path.endswith("/status") else ""
    return f"{verb}{group}{kind.version.capitalize()}{scope}{kind.kind}{everywhere}{status}"


def _operations(kind: Kind) -> Iterator[tuple[str, str, str, list[str], JsonObject]]:
    """(path, HTTP method, verb, path parameters, what both versions of OpenAPI say of the operation)."""
    for path, methods, within in _paths_of(kind):
        for method, verb in methods.items():
            common: JsonObject = {
                "operationId": _operation_id(kind, path, verb),
                "description": f"{verb} {kind.kind}",
                "tags": [f"{kind.group.partition('.')[0] or 'core'}_{kind.version}"],
                "x-kubernetes-action": _ACTIONS.get(verb, verb),
                "x-kubernetes-group-version-kind": gvk_of(kind),
            }
            yield path, method, verb, within, common


# -- version 3 ------------------------------------------------------------------------------------------------------
@cache
def v3_document(group: str, version: str) -> bytes | None:
    """The document of one group and version as JSON; ``None`` when there is none."""
    if (group, version) not in group_versions():
        return None
    kinds = [kind for kind in KINDS if (kind.group, kind.version) == (group, version)]
    paths: dict[str, JsonObject] = {}
    for kind in kinds:
        reference = {"$ref": f"#/components/schemas/{definition_name(kind)}"}
        for path, method, verb, within, common in _operations(kind):
            operation = {**common, "parameters": _v3_parameters(verb, within), "responses": _v3_responses(reference)}
            if verb in {"create", "update"}:
                operation["requestBody"] = {"content": {"application/json": {"schema": reference}}, "required": True}
            if verb == "patch":
                content = {media: {"schema": {"type": "object"}} for media in _patch_types(kind)}
                operation["requestBody"] = {"content": content, "required": True}
            paths.setdefault(path, {})[method] = operation
    document = {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": paths,
        "components": {"schemas": {definition_name(kind): _marked_schema(kind) for kind in kinds}},
    }
    return orjson.dumps(document)


def _v3_parameters(verb: str, within: list[str]) -> list[JsonObject]:
    in_path = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in within]
    in_query = [
        {"name": name, "in": "query", "schema": {"type": _TYPES.get(name, "string")}} for name in _PARAMETERS[verb]
    ]
    return [*in_path, *in_query]


def _v3_responses(reference: JsonObject) -> JsonObject:
    return {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}}


@cache
def v3_index() -> bytes:
    """``/openapi/v3``: where each document is, named by its content so that clients may keep it for ever."""
    paths = {}
    for group, version in group_versions():
        document = v3_document(group, version)
        assert document is not None
        name = base_path(group, version)
        paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={digest(document)}"}
    return orjson.dumps({"paths": paths})


def digest(document: bytes) -> str:
    return hashlib.sha512(document).hexdigest().upper()[:64]


# -- version 2 ------------------------------------------------------------------------------------------------------
def v2_document() -> JsonObject:
    """The one document of OpenAPI v2 (Swagger). Built anew by each call: encode it once, then let it go."""
    paths: dict[str, JsonObject] = {}
    definitions: dict[str, JsonObject] = {}
    for kind in KINDS:
        reference = {"$ref": f"#/definitions/{definition_name(kind)}"}
        definitions[definition_name(kind)] = _v2_schema(_marked_schema(kind))
        for path, method, verb, within, common in _operations(kind):
            paths.setdefault(path, {})[method] = {
                **common,
                "consumes": _patch_types(kind) if verb == "patch" else ["*/*"],
                "produces": ["application/json", "application/yaml"],
                "schemes": ["https"],
                "parameters": _v2_parameters(verb, within, reference),
                "responses": {"200": {"description": "OK", "schema": reference}},
            }
    return {"swagger": "2.0", "info": _INFO, "paths": paths, "definitions": definitions}


def _v2_parameters(verb: str, within: list[str], reference: JsonObject) -> list[JsonObject]:
    parameters: list[JsonObject] = [{"name": name, "in": "path", "required": True, "type": "string"} for name in within]
    if verb in {"create", "update"}:
        parameters.append({"name": "body", "in": "body", "required": True, "schema": reference})
    if verb == "patch":
        parameters.append({"name": "body", "in": "body", "required": True, "schema": {"type": "object"}})
    in_query = [{"name": name, "in": "query", "type": _TYPES.get(name, "string")} for name in _PARAMETERS[verb]]
    return [*parameters, *in_query]


def _v2_schema(schema: Any) -> Any:
    """A structural schema in the words that version 2 has: no ``anyOf``, and an int-or-string is of no type."""
    if isinstance(schema, list):
        return [_v2_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    plain: JsonObject = {}
    for key, value in schema.items():
        if key in {"anyOf", "oneOf", "not", "nullable", "exclusiveMinimum", "exclusiveMaximum", "const"}:
            continue
        if key == "properties":
            plain[key] = {name: _v2_schema(child) for name, child in value.items()}
        elif key in {"items", "additionalProperties"}:
            plain[key] = _v2_schema(value)
        else:
            plain[key] = value
    if plain.get("x-kubernetes-int-or-string"):
        plain.pop("type", None)
    return plain
