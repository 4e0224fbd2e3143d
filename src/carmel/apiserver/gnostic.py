"""OpenAPI v2 as protocol buffers, in the schema of gnostic's ``OpenAPIv2.proto`` (package ``openapi.v2``).

Older kubectl (1.20 to 1.28) validates, explains and applies from this form alone. The tables below name the messages'
fields by number; what a message of that schema cannot hold goes into ``vendor_extension`` as YAML, as gnostic does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

ACCEPTED = frozenset(f"application/com.github.proto-openapi.spec.v2{mark}v1.0+protobuf" for mark in "@.")
"""What clients ask for: older ones with ``@``, which is no character of a media type (RFC 9110 section 8.3.1)."""
MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""What is answered to all: Go's parser of media types refuses the ``@``."""
_VARINT, _FIXED64, _BYTES = 0, 1, 2

Encode = Callable[[Any], bytes]


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _block(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return _varint(number << 3 | _BYTES) + _varint(len(payload)) + payload


def _any(value: Any) -> bytes:
    """``Any``: JSON is YAML, and a trailing newline is what gnostic's own writer puts there."""
    return _block(2, orjson.dumps(value) + b"\n")


def _named(name: str, value: bytes) -> bytes:
    """``NamedAny``, ``NamedSchema``, ...: all have the name first and the value second."""
    return _block(1, name.encode()) + _block(2, value)


@dataclass(frozen=True)
class Message:
    """A message type: for each JSON field its number and how its value is written (repeated for a list)."""

    fields: Mapping[str, tuple[int, Encode | str]]
    extension: int | None = None

    def encode(self, value: Mapping[str, Any]) -> bytes:
        out = bytearray()
        for key, child in value.items():
            if key.startswith("x-"):
                assert self.extension is not None, key
                out += _block(self.extension, _named(key, _any(child)))
            else:
                number, how = self.fields[key]
                out += _field(number, how, child)
        return bytes(out)


def _field(number: int, how: Encode | str, value: Any) -> bytes:
    if how == "bool":
        return _varint(number << 3 | _VARINT) + (b"\x01" if value else b"\x00")
    if how == "int":
        return _varint(number << 3 | _VARINT) + _varint(value)
    if how == "double":
        return _varint(number << 3 | _FIXED64) + struct.pack("<d", value)
    if how == "anys":
        return b"".join(_block(number, _any(one)) for one in value)
    if how == "strings":
        return b"".join(_block(number, one.encode()) for one in value)
    if how == "string":
        return _block(number, value.encode())
    assert callable(how)
    if isinstance(value, list) and how not in {_type_item, _any}:
        return b"".join(_block(number, how(one)) for one in value)
    return _block(number, how(value))


def _type_item(value: Any) -> bytes:
    """``TypeItem``: one type or several."""
    return b"".join(_block(1, one.encode()) for one in ([value] if isinstance(value, str) else value))


def _schema(value: Mapping[str, Any]) -> bytes:
    return SCHEMA.encode(value)


def _items(value: Mapping[str, Any]) -> bytes:
    """``ItemsItem``."""
    return _block(1, _schema(value))


def _additional(value: Any) -> bytes:
    """``AdditionalPropertiesItem``: a schema, or a boolean."""
    return _field(2, "bool", value) if isinstance(value, bool) else _block(1, _schema(value))


def _properties(value: Mapping[str, Any]) -> bytes:
    """``Properties`` and ``Definitions``."""
    return b"".join(_block(1, _named(name, _schema(child))) for name, child in value.items())


def _parameter(value: Mapping[str, Any]) -> bytes:
    """``ParametersItem`` > ``Parameter`` > a body's, or a ``NonBodyParameter`` of the query or path."""
    if value["in"] == "body":
        return _block(1, _block(1, BODY_PARAMETER.encode(value)))
    number, message = (3, QUERY_PARAMETER) if value["in"] == "query" else (4, PATH_PARAMETER)
    return _block(1, _block(2, _block(number, message.encode(value))))


def _responses(value: Mapping[str, Any]) -> bytes:
    """``Responses`` > ``NamedResponseValue`` > ``ResponseValue`` > ``Response``."""
    return b"".join(_block(1, _named(code, _block(1, RESPONSE.encode(one)))) for code, one in value.items())


def _schema_item(value: Mapping[str, Any]) -> bytes:
    return _block(1, _schema(value))


def _paths(value: Mapping[str, Any]) -> bytes:
    return b"".join(_block(2, _named(path, PATH_ITEM.encode(item))) for path, item in value.items())


def _operation(value: Mapping[str, Any]) -> bytes:
    return OPERATION.encode(value)


def _info(value: Mapping[str, Any]) -> bytes:
    return INFO.encode(value)


SCHEMA = Message(
    {
        "$ref": (1, "string"),
        "format": (2, "string"),
        "title": (3, "string"),
        "description": (4, "string"),
        "default": (5, _any),
        "multipleOf": (6, "double"),
        "maximum": (7, "double"),
        "minimum": (9, "double"),
        "maxLength": (11, "int"),
        "minLength": (12, "int"),
        "pattern": (13, "string"),
        "maxItems": (14, "int"),
        "minItems": (15, "int"),
        "uniqueItems": (16, "bool"),
        "maxProperties": (17, "int"),
        "minProperties": (18, "int"),
        "required": (19, "strings"),
        "enum": (20, "anys"),
        "additionalProperties": (21, _additional),
        "type": (22, _type_item),
        "items": (23, _items),
        "properties": (25, _properties),
    },
    extension=31,
)
_NON_BODY = {"description": (3, "string"), "name": (4, "string")}
BODY_PARAMETER = Message(
    {
        "description": (1, "string"),
        "name": (2, "string"),
        "in": (3, "string"),
        "required": (4, "bool"),
        "schema": (5, _schema),
    }
)
QUERY_PARAMETER = Message({"required": (1, "bool"), "in": (2, "string"), **_NON_BODY, "type": (6, "string")})
PATH_PARAMETER = Message({"required": (1, "bool"), "in": (2, "string"), **_NON_BODY, "type": (5, "string")})
RESPONSE = Message({"description": (1, "string"), "schema": (2, _schema_item)})
OPERATION = Message(
    {
        "tags": (1, "strings"),
        "summary": (2, "string"),
        "description": (3, "string"),
        "operationId": (5, "string"),
        "produces": (6, "strings"),
        "consumes": (7, "strings"),
        "parameters": (8, _parameter),
        "responses": (9, _responses),
        "schemes": (10, "strings"),
    },
    extension=13,
)
PATH_ITEM = Message(
    {
        "get": (2, _operation),
        "put": (3, _operation),
        "post": (4, _operation),
        "delete": (5, _operation),
        "patch": (8, _operation),
    }
)
INFO = Message({"title": (1, "string"), "version": (2, "string")})
DOCUMENT = Message(
    {"swagger": (1, "string"), "info": (2, _info), "paths": (8, _paths), "definitions": (9, _properties)}
)


def encode(document: Mapping[str, Any]) -> bytes:
    """An OpenAPI v2 document as ``openapi.v2.Document``."""
    return DOCUMENT.encode(document)
