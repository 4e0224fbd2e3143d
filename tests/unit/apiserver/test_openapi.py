"""OpenAPI: what kubectl reads of it, and that the protobuf is the JSON."""

from __future__ import annotations

from typing import Any

import jsonschema
import orjson
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from carmel.apiserver import gnostic, openapi
from carmel.resources.registry import KINDS
from tests.unit.apiserver.asgi import call
from tests.unit.apiserver.conftest import Served

FIELD = descriptor_pb2.FieldDescriptorProto
# A part of gnostic's OpenAPIv2.proto, written down apart from the encoder: (message, number, field, type or message).
SUBSET: tuple[tuple[str, int, str, str], ...] = (
    ("Document", 1, "swagger", "string"),
    ("Document", 2, "info", "Info"),
    ("Document", 8, "paths", "Paths"),
    ("Document", 9, "definitions", "Definitions"),
    ("Info", 1, "title", "string"),
    ("Info", 2, "version", "string"),
    ("Paths", 2, "path", "*NamedPathItem"),
    ("NamedPathItem", 1, "name", "string"),
    ("NamedPathItem", 2, "value", "PathItem"),
    ("PathItem", 2, "get", "Operation"),
    ("PathItem", 8, "patch", "Operation"),
    ("Operation", 5, "operation_id", "string"),
    ("Operation", 7, "consumes", "*string"),
    ("Operation", 8, "parameters", "*ParametersItem"),
    ("Operation", 13, "vendor_extension", "*NamedAny"),
    ("ParametersItem", 1, "parameter", "Parameter"),
    ("Parameter", 1, "body_parameter", "BodyParameter"),
    ("Parameter", 2, "non_body_parameter", "NonBodyParameter"),
    ("BodyParameter", 2, "name", "string"),
    ("BodyParameter", 5, "schema", "Schema"),
    ("NonBodyParameter", 3, "query", "QueryParameter"),
    ("NonBodyParameter", 4, "path", "PathParameter"),
    ("QueryParameter", 2, "in", "string"),
    ("QueryParameter", 4, "name", "string"),
    ("QueryParameter", 6, "type", "string"),
    ("PathParameter", 4, "name", "string"),
    ("PathParameter", 5, "type", "string"),
    ("NamedAny", 1, "name", "string"),
    ("NamedAny", 2, "value", "Any"),
    ("Any", 2, "yaml", "string"),
    ("Definitions", 1, "additional_properties", "*NamedSchema"),
    ("Properties", 1, "additional_properties", "*NamedSchema"),
    ("NamedSchema", 1, "name", "string"),
    ("NamedSchema", 2, "value", "Schema"),
    ("Schema", 4, "description", "string"),
    ("Schema", 7, "maximum", "double"),
    ("Schema", 9, "minimum", "double"),
    ("Schema", 14, "max_items", "int64"),
    ("Schema", 19, "required", "*string"),
    ("Schema", 20, "enum", "*Any"),
    ("Schema", 22, "type", "TypeItem"),
    ("Schema", 23, "items", "ItemsItem"),
    ("Schema", 25, "properties", "Properties"),
    ("Schema", 31, "vendor_extension", "*NamedAny"),
    ("TypeItem", 1, "value", "*string"),
    ("ItemsItem", 1, "schema", "*Schema"),
)
SCALARS = {"string": FIELD.TYPE_STRING, "double": FIELD.TYPE_DOUBLE, "int64": FIELD.TYPE_INT64}


def document_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="subset.proto", package="openapi.v2", syntax="proto3")
    messages: dict[str, descriptor_pb2.DescriptorProto] = {}
    for name, number, field, kind in SUBSET:
        message = messages.setdefault(name, descriptor_pb2.DescriptorProto(name=name))
        plain = kind.removeprefix("*")
        added = message.field.add(
            name=field, number=number, label=FIELD.LABEL_REPEATED if kind != plain else FIELD.LABEL_OPTIONAL
        )
        if plain in SCALARS:
            added.type = SCALARS[plain]
        else:
            added.type = FIELD.TYPE_MESSAGE
            added.type_name = f".openapi.v2.{plain}"
    file.message_type.extend(messages.values())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("openapi.v2.Document"))


def same_schema(message: Any, schema: dict[str, Any]) -> None:
    """A decoded schema says what the JSON says."""
    assert message.description == schema.get("description", "")
    assert list(message.type.value) == ([schema["type"]] if "type" in schema else [])
    assert list(message.required) == schema.get("required", [])
    assert [orjson.loads(one.yaml) for one in message.enum] == schema.get("enum", [])
    assert message.minimum == schema.get("minimum", 0)
    assert message.max_items == schema.get("maxItems", 0)
    extensions = {one.name: orjson.loads(one.value.yaml) for one in message.vendor_extension}
    assert extensions == {key: value for key, value in schema.items() if key.startswith("x-")}
    properties = {one.name: one.value for one in message.properties.additional_properties}
    assert list(properties) == list(schema.get("properties", {}))
    for name, child in properties.items():
        same_schema(child, schema["properties"][name])
    if "items" in schema:
        same_schema(message.items.schema[0], schema["items"])


def test_the_protobuf_is_the_json() -> None:
    document = openapi.v2_document()
    decoded = document_class().FromString(gnostic.encode(document))
    assert decoded.swagger == "2.0"
    assert decoded.info.title == "Carmel"
    assert [one.name for one in decoded.paths.path] == list(document["paths"])
    definitions = {one.name: one.value for one in decoded.definitions.additional_properties}
    assert set(definitions) == {openapi.definition_name(kind) for kind in KINDS}
    for name, message in definitions.items():
        same_schema(message, document["definitions"][name])


def test_the_protobuf_says_that_patch_takes_trials() -> None:
    decoded = document_class().FromString(gnostic.encode(openapi.v2_document()))
    item = next(one.value for one in decoded.paths.path if one.name.endswith("/virtualmachines/{name}"))
    queried = [one.parameter.non_body_parameter.query.name for one in item.patch.parameters]
    assert {"dryRun", "fieldValidation", "force"} <= set(queried)
    extensions = {one.name: orjson.loads(one.value.yaml) for one in item.patch.vendor_extension}
    assert extensions["x-kubernetes-group-version-kind"]["kind"] == "VirtualMachine"
    assert "application/strategic-merge-patch+json" not in item.patch.consumes


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**63 - 1])
def test_varints(value: int) -> None:
    message = gnostic.SCHEMA.encode({"maxItems": value})
    holder = gnostic.DOCUMENT.encode({"definitions": {"x": {"maxItems": value}}})
    assert message in holder
    decoded = document_class().FromString(holder)
    assert decoded.definitions.additional_properties[0].value.max_items == value


async def test_version_3_has_what_kubectl_asks_for(served: Served) -> None:
    index = (await call(served.app, "GET", "/openapi/v3")).json()["paths"]
    for name, entry in index.items():
        answer = await call(served.app, "GET", entry["serverRelativeURL"])
        assert answer.headers["cache-control"] == "public, immutable"
        document = answer.json()
        for schema in document["components"]["schemas"].values():
            jsonschema.Draft7Validator.check_schema(schema)
        if name != "apis/carmel.dev/v1alpha1":
            continue
        path = "/apis/carmel.dev/v1alpha1/namespaces/{namespace}/virtualmachines/{name}"
        patch = document["paths"][path]["patch"]
        assert "fieldValidation" in {one["name"] for one in patch["parameters"]}
        assert patch["x-kubernetes-group-version-kind"]["kind"] == "VirtualMachine"
        ids = [one["operationId"] for item in document["paths"].values() for one in item.values()]
        assert len(ids) == len(set(ids))


async def test_clients_may_keep_documents(served: Served) -> None:
    for path, accept in (("/openapi/v2", "*/*"), ("/openapi/v2", gnostic.MEDIA_TYPE), ("/openapi/v3", "*/*")):
        first = await call(served.app, "GET", path, headers={"accept": accept})
        again = await call(served.app, "GET", path, headers={"accept": accept, "if-none-match": first.headers["etag"]})
        assert (first.status, again.status, again.body) == (200, 304, b"")
    unknown = await call(served.app, "GET", "/openapi/v3/apis/carmel.dev/v9")
    assert unknown.status == 404
    assert (await call(served.app, "GET", "/openapi/v2", headers={"accept": "text/html"})).status == 406
