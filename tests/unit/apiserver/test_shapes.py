"""Accept headers, printer columns, ages."""

from __future__ import annotations

import pytest

from carmel.apiserver.jsonpath import compile_path
from carmel.apiserver.negotiation import NotAcceptable, Shape, wanted
from carmel.apiserver.tables import human_duration
from carmel.resources.registry import KINDS

KUBECTL = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
OBJECT = {
    "status": {
        "conditions": [{"type": "Placed", "status": "False"}, {"type": "Ready", "status": "True"}],
        "addresses": ["10.0.2.15"],
        "odd-name": 1,
    }
}


@pytest.mark.parametrize(
    ("header", "shape", "version"),
    [
        ("", Shape.OBJECT, "v1"),
        ("*/*", Shape.OBJECT, "v1"),
        (KUBECTL, Shape.TABLE, "v1"),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Shape.TABLE, "v1beta1"),
        ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Shape.PARTIAL, "v1"),
        ("application/vnd.kubernetes.protobuf, application/json", Shape.OBJECT, "v1"),
        ("application/json;as=Unknown;v=v1;g=meta.k8s.io, application/json", Shape.OBJECT, "v1"),
    ],
)
def test_accept(header: str, shape: Shape, version: str) -> None:
    assert (wanted(header).shape, wanted(header).version) == (shape, version)


@pytest.mark.parametrize("header", ["text/html", "application/json;as=Table;v=v3;g=meta.k8s.io", "image/*;q=1"])
def test_nothing_acceptable(header: str) -> None:
    with pytest.raises(NotAcceptable):
        wanted(header)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ('.status.conditions[?(@.type=="Ready")].status', "True"),
        (".status.conditions[?(@.type=='Gone')].status", None),
        (".status.addresses[0]", "10.0.2.15"),
        (".status.addresses[7]", None),
        (".status['odd-name']", 1),
        (".status.addresses.deeper", None),
        (".nothing[0].there", None),
    ],
)
def test_jsonpath(path: str, value: object) -> None:
    assert compile_path(path)(OBJECT) == value


def test_every_column_there_is_can_be_read() -> None:
    for kind in KINDS:
        for column in kind.columns:
            compile_path(column.path)({})
    with pytest.raises(ValueError, match="not a simple JSONPath"):
        compile_path(".spec..name")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-30, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 61, "3h1m"),
        (8 * 3600, "8h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (9 * 86400, "9d"),
        (800 * 86400, "2y70d"),
        (3650 * 86400, "10y"),
    ],
)
def test_ages_are_written_as_kubernetes_does(seconds: int, text: str) -> None:
    assert human_duration(seconds) == text
