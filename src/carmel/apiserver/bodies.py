"""Bodies to JSON: JSON and YAML in, within limits of size, depth and kind of value.

YAML is a risk of its own: aliases make small texts huge, tags make objects, deep nesting overflows stacks. Only the
part of it that is JSON in other clothes is read, and its events are counted before anything is built.
"""

from __future__ import annotations

from typing import Any

import orjson

from carmel.apiserver import kubernetes_protobuf
from carmel.errors import BadRequest, UnsupportedMediaType
from carmel.resources.base import JsonObject
from carmel.resources.nesting import is_deeper

MAX_DEPTH = 64
JSON_TYPES = frozenset({"application/json", ""})
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})


PROTOBUF_TYPE = kubernetes_protobuf.MEDIA_TYPE
OBJECT_TYPES = ("application/json", "application/yaml", PROTOBUF_TYPE)
"""What a body may be; protobuf for the kinds that Kubernetes itself has."""


def media_type(content_type: str) -> str:
    """``application/json`` out of ``Application/JSON; charset=utf-8``."""
    return content_type.partition(";")[0].strip().lower()


def parse_object(body: bytes, content_type: str) -> JsonObject:
    """A body that must be an object. Blocks for as long as parsing takes: at most tens of milliseconds."""
    kind = media_type(content_type)
    if kind in JSON_TYPES:
        parsed = parse_json(body)
    elif kind in YAML_TYPES:
        parsed = parse_yaml(body)
    elif kind == PROTOBUF_TYPE:
        parsed = kubernetes_protobuf.parse_protobuf(body)
    else:
        raise unsupported(kind, OBJECT_TYPES)
    if not isinstance(parsed, dict):
        raise BadRequest("the body must be an object")
    return parsed


def unsupported(given: str, spoken: tuple[str, ...]) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"the body of the request was in an unknown format ({given[:80] or 'none'}); "
        f"accepted media types include: {', '.join(spoken)}"
    )


def parse_json(body: bytes) -> Any:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if is_deeper(parsed, MAX_DEPTH + 1):
        raise _too_deep()
    return parsed


def parse_yaml(body: bytes) -> Any:
    """One YAML document of plain values, as JSON has them. Times stay text, and keys are strings."""
    import yaml  # 10 ms and 3 MB that most daemons never need

    base: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader = type("PlainLoader", (base,), {"yaml_implicit_resolvers": _without_times(base.yaml_implicit_resolvers)})
    try:
        _check_events(yaml.parse(body, Loader=loader))
        parsed = yaml.load(body, Loader=loader)  # noqa: S506 - a safe loader's subclass
        canonical = orjson.dumps(parsed)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not YAML: {' '.join(str(error).split())[:300]}") from None
    except (TypeError, ValueError, orjson.JSONEncodeError) as error:
        raise BadRequest(f"the body has values that JSON has not: {error}") from None
    return orjson.loads(canonical)


def _without_times(resolvers: dict[str, list[tuple[str, Any]]]) -> dict[str, list[tuple[str, Any]]]:
    return {
        letter: [(tag, pattern) for tag, pattern in entries if not tag.endswith(":timestamp")]
        for letter, entries in resolvers.items()
    }


def _check_events(events: Any) -> None:
    depth = documents = 0
    for event in events:
        name = type(event).__name__
        if name == "AliasEvent":
            raise BadRequest("YAML aliases are not taken here", hint="write the value out at each place")
        if name == "DocumentStartEvent":
            documents += 1
            if documents > 1:
                raise BadRequest("the body has more than one YAML document")
        depth += name.endswith(("MappingStartEvent", "SequenceStartEvent"))
        depth -= name.endswith(("MappingEndEvent", "SequenceEndEvent"))
        if depth > MAX_DEPTH:
            raise _too_deep()


def _too_deep() -> BadRequest:
    return BadRequest(f"the body is nested more than {MAX_DEPTH} levels deep")
