"""Schemas: structural, complete, and the same for CRDs, OpenAPI and pruning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from carmel.resources.admission import admit
from carmel.resources.kinds import Kind
from carmel.resources.registry import KINDS, by_word
from carmel.resources.schema import crd, structural_schema, unknown_fields
from carmel.resources.virtualmachine import VIRTUAL_MACHINE


def nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for child in schema.get("properties", {}).values():
        yield from nodes(child)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_schemas_are_structural(kind: Kind) -> None:
    jsonschema.Draft7Validator.check_schema(structural_schema(kind))
    for node in nodes(structural_schema(kind)):
        assert "$ref" not in node
        assert "title" not in node
        assert node.get("type") != "null"
        assert "type" in node or "x-kubernetes-int-or-string" in node, node
        if node.get("x-kubernetes-list-type") == "map":
            item = node["items"]["properties"]
            assert all(key in item for key in node["x-kubernetes-list-map-keys"])


def with_schema_defaults(schema: dict[str, Any], value: Any) -> Any:
    """What a kube-apiserver does with a structural schema's defaults."""
    if isinstance(value, dict) and "properties" in schema:
        filled = dict(value)
        for name, child in schema["properties"].items():
            if name not in filled and "default" in child:
                filled[name] = child["default"]
            if name in filled:
                filled[name] = with_schema_defaults(child, filled[name])
        return filled
    if isinstance(value, list):
        return [with_schema_defaults(schema.get("items", {}), item) for item in value]
    return value


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"cpu": {"count": 4, "topology": {"cores": 4}}},
        {"disks": [{"name": "a", "size": "1Gi"}], "networks": [{"name": "n", "forwards": [{"guestPort": 22}]}]},
        {"cloudInit": {"userDataSecretRef": {"name": "s"}}},
    ],
)
def test_a_cluster_sets_the_same_defaults_as_admission(spec: dict[str, Any]) -> None:
    ours = admit(VIRTUAL_MACHINE, {"metadata": {"name": "a"}, "spec": spec}, None)["spec"]
    schema = structural_schema(VIRTUAL_MACHINE)["properties"]["spec"]
    assert with_schema_defaults(schema, spec) == ours


def test_admitted_objects_satisfy_their_schema() -> None:
    admitted = admit(
        VIRTUAL_MACHINE, {"metadata": {"name": "a"}, "spec": {"disks": [{"name": "a", "size": 1 << 30}]}}, None
    )
    jsonschema.validate(admitted, structural_schema(VIRTUAL_MACHINE))


def test_unknown_fields_are_named_by_path() -> None:
    body = {"metadata": {"nmae": 1, "labels": {"any": "x"}}, "spec": {"cpu": {"cuont": 1}, "disks": [{"nme": 1}]}}
    assert unknown_fields(VIRTUAL_MACHINE, body) == ["metadata.nmae", "spec.cpu.cuont", "spec.disks[0].nme"]


def test_a_crd_has_what_a_cluster_needs() -> None:
    definition = crd(VIRTUAL_MACHINE)
    version = definition["spec"]["versions"][0]
    assert definition["metadata"]["name"] == "virtualmachines.carmel.dev"
    assert version["subresources"] == {"status": {}}
    assert {"name": "Power", "type": "string", "jsonPath": ".status.powerState"} in version["additionalPrinterColumns"]


@pytest.mark.parametrize("word", ["vm", "vms", "VirtualMachine", "virtualmachine", "virtualmachines.carmel.dev"])
def test_people_say_vm_in_many_ways(word: str) -> None:
    assert by_word(word) is VIRTUAL_MACHINE
