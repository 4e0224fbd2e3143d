"""Manifests: YAML or JSON in files, directories or standard input; and YAML as people like to read it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from carmel.client.objects import JsonObject
from carmel.errors import Invalid, Refused

_MAX_BYTES = 16 * 1024 * 1024
_SUFFIXES = {".yaml", ".yml", ".json"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object of a file. ``origin`` names the file for error messages."""

    origin: str
    object: JsonObject


class _Loader(yaml.SafeLoader):
    """JSON's types only (a time stays the text it is), and no key twice: the first would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001 - its base's
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands here twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def to_yaml(value: Any) -> str:
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=120
    )
    return text


def parse_value(text: str, origin: str) -> Any:
    """One value. Raises ``Invalid`` with the place."""
    documents = _loaded(text, origin)
    if len(documents) != 1:
        raise Invalid(f"{origin} is not one document", code="ManifestUnreadable")
    return documents[0]


def _loaded(text: str, origin: str) -> list[Any]:
    try:
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as exc:
        raise Invalid(f"{origin} cannot be read: {_place(exc)}", code="ManifestUnreadable") from exc
    except (RecursionError, ValueError) as exc:
        raise Invalid(f"{origin} cannot be read: {type(exc).__name__}", code="ManifestUnreadable") from exc


def parse_documents(text: str, origin: str) -> list[JsonObject]:
    """All objects in a text; the items of Lists one by one. Raises ``Invalid`` with the place."""
    documents = _loaded(text, origin)
    found: list[JsonObject] = []
    for document in documents:
        if document is None:
            continue
        items = document.get("items") if isinstance(document, dict) else None
        found += items if isinstance(items, list) else [document]
    for one in found:
        _check(one, origin)
    return found


def read_manifests(names: tuple[str, ...], *, recursive: bool = False) -> list[Manifest]:
    """The objects in these files, directories or ``-``. All is read and checked before anything is done with it.

    Raises ``Refused`` for files that cannot be read or hold nothing, ``Invalid`` for what is no manifest.
    """
    found = [
        Manifest(origin, obj)
        for name in names
        for origin, text in _texts(name, recursive=recursive)
        for obj in parse_documents(text, origin)
    ]
    if not found:
        raise Refused(f"there is no manifest in {', '.join(names)}", code="NothingToDo")
    return found


def _texts(name: str, *, recursive: bool) -> Iterator[tuple[str, str]]:
    if name == "-":
        yield "standard input", _decoded(sys.stdin.buffer.read(_MAX_BYTES + 1), "standard input")
        return
    path = Path(name)
    try:
        if path.is_dir():
            inside = sorted(path.rglob("*") if recursive else path.iterdir())
            files = [one for one in inside if one.suffix in _SUFFIXES and one.is_file()]
        else:
            files = [path]
        for file in files:
            with file.open("rb") as opened:
                yield str(file), _decoded(opened.read(_MAX_BYTES + 1), str(file))
    except OSError as exc:
        raise Refused(f"{name} cannot be read: {exc.strerror or exc}", code="FileUnreadable") from exc


def _decoded(data: bytes, origin: str) -> str:
    if len(data) > _MAX_BYTES:
        raise Refused(f"{origin} is larger than {_MAX_BYTES // 1024**2} MiB", code="FileTooLarge")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise Invalid(f"{origin} is not UTF-8 text", code="ManifestUnreadable") from exc


def _check(obj: object, origin: str) -> None:
    if not isinstance(obj, dict):
        raise Invalid(f"{origin} holds something that is no object", code="ManifestUnreadable")
    for field in ("apiVersion", "kind"):
        if not isinstance(obj.get(field), str) or not obj[field]:
            raise Invalid(f"{origin}: an object has no {field}", code="ManifestUnreadable", field=field)
    meta = obj.get("metadata")
    if not isinstance(meta, dict) or not (meta.get("name") or meta.get("generateName")):
        raise Invalid(f"{origin}: {obj['kind']} has no metadata.name", code="ManifestUnreadable", field="metadata.name")


def _place(exc: yaml.YAMLError) -> str:
    if isinstance(exc, yaml.MarkedYAMLError) and exc.problem_mark is not None:
        return f"line {exc.problem_mark.line + 1}: {exc.problem or exc.context}"
    return " ".join(str(exc).split())[:200]
