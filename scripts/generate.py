"""Writes what is generated: deploy/crds/*.yaml and docs/api.md from the models, docs/boards.md from the catalogue of
boards. ``--check`` only compares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from carmel.hardware.boards.page import page
from carmel.resources.registry import KINDS
from carmel.resources.schema import crd, structural_schema

ROOT = Path(__file__).resolve().parent.parent
_OURS = [kind for kind in KINDS if kind.group == "carmel.dev"]


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = [path for path, text in _files() if not path.exists() or path.read_text() != text]
    if check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what the models say: run make generate", file=sys.stderr)
        return 1 if stale else 0
    for path, text in _files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"{len(stale)} files written")
    return 0


def _files() -> Iterator[tuple[Path, str]]:
    for kind in _OURS:
        text = yaml.safe_dump(crd(kind), sort_keys=False, width=110)
        yield ROOT / "deploy" / "crds" / f"{kind.plural}.yaml", text
    yield ROOT / "docs" / "api.md", "\n".join(_reference()) + "\n"
    boards = ROOT / "docs" / "boards.md"
    yield boards, page(boards.read_text())


def _reference() -> Iterator[str]:
    yield "# API reference"
    yield ""
    yield "Generated from the models by `make generate`: change those. Group `carmel.dev`, version `v1alpha1`;"
    yield "`carmel explain KIND.FIELD` and `kubectl explain` show the same."
    for kind in _OURS:
        yield ""
        yield f"## {kind.kind}"
        yield ""
        schema = structural_schema(kind)
        yield schema["description"]
        names = ", ".join(f"`{name}`" for name in (kind.plural, kind.singular, *kind.short_names))
        yield f"{'Lives in a namespace' if kind.namespaced else 'Cluster-wide'}. Names: {names}."
        for part in ("spec", "status"):
            if part in schema["properties"]:
                yield ""
                yield f"| `{part}` field | type | default | meaning |"
                yield "| --- | --- | --- | --- |"
                yield from _rows(schema["properties"][part], part)


def _rows(schema: dict[str, Any], path: str) -> Iterator[str]:
    required = schema.get("required", [])
    for name, child in schema.get("properties", {}).items():
        where = f"{path}.{name}"
        default = "required" if name in required else _default(child)
        meaning = child.get("description", "").replace("|", "\\|")
        yield f"| `{where}` | {_type(child)} | {default} | {meaning} |"
        if child.get("type") == "array":
            yield from _rows(child["items"], where + "[]")
        else:
            yield from _rows(child, where)


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "size"
    if schema.get("format") == "date-time":
        return "time"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    limits = [f"{sign} {schema[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in schema]
    return str(schema.get("type", "any")) + (f" ({', '.join(limits)})" if limits else "")


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    if value is None or value in ({}, []):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    raise SystemExit(main())
