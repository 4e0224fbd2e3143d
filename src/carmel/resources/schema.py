"""OpenAPI v3 schemas of the kinds, in the structural form that CRDs need (apiextensions/v1, "structural schema").

Pydantic writes JSON Schema with references, nulls and titles; CRDs and kubectl want one inlined tree with camelCase
names, defaults and ``x-kubernetes-*`` marks. What the schema says about a field is all that pruning, warnings and
server-side apply know of it.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind

Schema = dict[str, Any]

_DROPPED = ("title", "default", "$defs")


@cache
def structural_schema(kind: Kind) -> Schema:
    """The whole object's schema: inlined (no ``$ref``), with defaults, descriptions and list types.

    Shared by all callers: do not change it.
    """
    document = kind.model.model_json_schema(by_alias=True, mode="validation")
    schema: Schema = _inline(document, document.get("$defs", {}))
    _add_defaults(schema, kind.model)
    properties = schema["properties"]
    properties["apiVersion"] = {"type": "string", "description": "Group and version, such as carmel.dev/v1alpha1."}
    properties["kind"] = {"type": "string", "description": f"Always {kind.kind}."}
    schema["description"] = _first_paragraph(kind.model)
    return schema


def _inline(node: Any, definitions: Schema) -> Any:
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[1]]
        merged = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
        return _inline(merged, definitions)
    if "anyOf" in node and "x-kubernetes-int-or-string" not in node:
        node = _without_null(node)
        if "$ref" in node:
            return _inline(node, definitions)
    plain: Schema = {}
    for key, value in node.items():
        if key in _DROPPED:
            continue
        if key == "properties":
            plain[key] = {name: _inline(child, definitions) for name, child in value.items()}
        else:
            plain[key] = _inline(value, definitions)
    if plain.get("type") == "object" and plain.get("additionalProperties") is True:
        plain = {key: value for key, value in plain.items() if key != "additionalProperties"}
        plain["x-kubernetes-preserve-unknown-fields"] = True
    if isinstance(plain.get("description"), str):
        plain["description"] = " ".join(plain["description"].replace("``", "").split())
    return plain


def _without_null(node: Schema) -> Schema:
    """``anyOf: [T, null]`` is how pydantic says optional; in a structural schema that is plain ``T``."""
    options = [option for option in node["anyOf"] if option.get("type") != "null"]
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    return {**options[0], **rest} if len(options) == 1 else {**rest, "anyOf": options}


def _add_defaults(schema: Schema, model: type[BaseModel]) -> None:
    """Set ``default`` where admission would. Status and metadata have none: they are not the user's."""
    for name, info in model.model_fields.items():
        if name in {"api_version", "kind", "metadata", "status"}:
            continue
        child = schema["properties"][info.alias or name]
        nested = _model_of(info)
        if nested is not None and child.get("type") == "object":
            _add_defaults(child, nested)
        elif nested is not None and child.get("type") == "array":
            _add_defaults(child["items"], nested)
        default = _default_of(info)
        if default is not None:
            child["default"] = default


def _default_of(info: FieldInfo) -> Any:
    if info.is_required():
        return None
    value = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return value.value if isinstance(value, Enum) else value


def _model_of(info: FieldInfo) -> type[BaseModel] | None:
    pending: list[Any] = [info.annotation]
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        pending.extend(getattr(annotation, "__args__", ()))
    return None


def _first_paragraph(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").strip().split("\n\n")[0].replace("``", "").split())


def unknown_fields(kind: Kind, obj: JsonObject) -> list[str]:
    """Paths of fields that the schema does not know (``spec.cpu.cuont``), metadata included, in document order."""
    found: list[str] = []
    _find_unknown(structural_schema(kind), obj, "", found)
    return found


def _find_unknown(schema: Schema, value: Any, path: str, found: list[str]) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _find_unknown(schema.get("items", {}), item, f"{path}[{index}]", found)
    if not isinstance(value, dict):
        return
    properties = schema.get("properties")
    if properties is None:
        return
    for key, child in value.items():
        where = f"{path}.{key}" if path else key
        if key in properties:
            _find_unknown(properties[key], child, where, found)
        else:
            found.append(where)


def crd(kind: Kind) -> Schema:
    """The CustomResourceDefinition that makes a Kubernetes cluster serve ``kind`` (apiextensions.k8s.io/v1)."""
    schema = dict(structural_schema(kind))
    schema["properties"] = {**schema["properties"], "metadata": {"type": "object"}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.resource},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.singular,
                **({"shortNames": list(kind.short_names)} if kind.short_names else {}),
                **({"categories": list(kind.categories)} if kind.categories else {}),
            },
            "versions": [
                {
                    "name": kind.version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    **({"subresources": {"status": {}}} if kind.has_status else {}),
                    "additionalPrinterColumns": [
                        {
                            "name": column.name,
                            "type": column.type,
                            "jsonPath": column.path,
                            **({"priority": column.priority} if column.priority else {}),
                        }
                        for column in kind.columns
                    ],
                }
            ],
        },
    }
