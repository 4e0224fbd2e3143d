"""What kubectl 1.37.1 sends for built-in kinds (recorded), and what nobody should send."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmel.apiserver.kubernetes_protobuf import parse_protobuf
from carmel.errors import BadRequest

META = b'\n\x11\n\x01x\x12\x00\x1a\x00"\x00*\x002\x008\x00B\x00'
NAMESPACE = b"k8s\x00\n\x0f\n\x02v1\x12\tNamespace\x12\x19" + META + b'\x12\x00\x1a\x02\n\x00\x1a\x00"\x00'
SECRET = b"k8s\x00\n\x0c\n\x02v1\x12\x06Secret\x12\x1d" + META + b'\x12\x06\n\x01a\x12\x01b\x1a\x00\x1a\x00"\x00'
REVIEW = (
    b"k8s\x00\n2\n\x17authorization.k8s.io/v1\x12\x17SelfSubjectAccessReview\x12=\n\x10\n\x00\x12\x00\x1a\x00"
    b'"\x00*\x002\x008\x00B\x00\x12\x1f\n\x1d\n\x07default\x12\x06create\x1a\x00"\x00*\x02vm2\x00:\x00\x1a\x08\x08'
    b'\x00\x12\x00\x1a\x00 \x00\x1a\x00"\x00'
)


def test_recorded_requests() -> None:
    assert parse_protobuf(NAMESPACE) == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}
    assert parse_protobuf(SECRET)["data"] == {"a": "Yg=="}
    assert parse_protobuf(REVIEW)["spec"] == {
        "resourceAttributes": {"namespace": "default", "verb": "create", "resource": "vm"}
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"k8s\x00",
        b"k8s\x00\x0a\xff",
        NAMESPACE[:-20],
        NAMESPACE.replace(b"Namespace", b"Nonsenses"),
        b"k8s\x00\x08\x01",
        b"k8s\x00" + b"\xff" * 20,
    ],
)
def test_what_is_none(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_protobuf(body)


@given(st.sampled_from([NAMESPACE, SECRET, REVIEW]), st.data())
def test_a_damaged_request_is_read_or_refused(body: bytes, data: st.DataObject) -> None:
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(4, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadRequest):
        assert isinstance(parse_protobuf(bytes(damaged)), dict)
