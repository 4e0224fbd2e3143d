"""Small valid objects for store tests."""

from __future__ import annotations

from typing import Any

from carmel.resources.base import JsonObject


def vm(name: str, namespace: str = "default", *, cpus: int = 1, **metadata: Any) -> JsonObject:
    """A VirtualMachine with nothing but CPUs."""
    return {"metadata": {"name": name, "namespace": namespace, **metadata}, "spec": {"cpu": {"count": cpus}}}


def secret(name: str, namespace: str = "default", **metadata: Any) -> JsonObject:
    """A Secret with one key."""
    return {"metadata": {"name": name, "namespace": namespace, **metadata}, "data": {"key": "dmFsdWU="}}
