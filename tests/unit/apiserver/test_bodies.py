"""Bodies within limits."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest

from carmel.apiserver.bodies import MAX_DEPTH, parse_json, parse_object, parse_yaml
from carmel.apiserver.request import MAX_BODY_BYTES
from carmel.errors import BadRequest, UnsupportedMediaType
from tests.unit.apiserver.asgi import call
from tests.unit.apiserver.conftest import Served

NAMESPACES = "/api/v1/namespaces"


def test_yaml_is_json_in_other_clothes() -> None:
    text = b"a: 2026-11-23\nb: [1, 2.5, yes]\nc: {d: ~}\n1: x\n"
    assert parse_yaml(text[:-5]) == {"a": "2026-11-23", "b": [1, 2.5, True], "c": {"d": None}}
    with pytest.raises(BadRequest):
        parse_yaml(text)


@pytest.mark.parametrize(
    "text",
    [
        b"a: &x [1]\nb: *x\n",
        b"a: !!python/object/apply:os.system ['true']\n",
        b"a: !!binary aGVsbG8=\n",
        b"a: !!set {b}\n",
        b"--- 1\n--- 2\n",
        b"a: [" * (MAX_DEPTH + 1),
        b"[" * 200_000,
        b"a: 0x" + b"f" * 40 + b"\n",
        b"\xff\xfe\x00",
        b"a: \x07",
        b"{",
    ],
)
def test_yaml_that_is_not(text: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_yaml(text)


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 1000 + b"]" * 1000, b'"\\ud800"', b"\xff", b'{"a":NaN}'])
def test_json_that_is_not(text: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_json(text)


def test_depth_is_counted_to_the_end() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' * depth + b"1" + b"}" * depth

    assert parse_json(nested(MAX_DEPTH))
    with pytest.raises(BadRequest):
        parse_json(nested(MAX_DEPTH + 2))


def test_objects_only() -> None:
    assert parse_object(b"{}", "application/json; charset=utf-8") == {}
    with pytest.raises(BadRequest):
        parse_object(b"[]", "application/json")
    with pytest.raises(UnsupportedMediaType):
        parse_object(b"{}", "text/html")


async def test_gzip_is_taken_and_its_bombs_are_not(served: Served) -> None:
    small = gzip.compress(b'{"metadata":{"name":"zipped"}}')
    headers = {"content-encoding": "gzip"}
    assert (await call(served.app, "POST", NAMESPACES, small, headers)).status == 201
    bomb = gzip.compress(b" " * 400_000_000, compresslevel=9)
    assert len(bomb) < MAX_BODY_BYTES
    tracemalloc.start()
    try:
        answer = await call(served.app, "POST", NAMESPACES, bomb, headers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status == 413
    assert peak < 20 * MAX_BODY_BYTES
    for broken in (small[:-4], small + b"x", b"nothing of that kind"):
        assert (await call(served.app, "POST", NAMESPACES, broken, headers)).status == 400
    assert (await call(served.app, "POST", NAMESPACES, b"{}", {"content-encoding": "br"})).status == 415


async def test_a_body_has_a_size(served: Served) -> None:
    answer = await call(served.app, "POST", NAMESPACES, b" " * (MAX_BODY_BYTES + 1))
    assert (answer.status, answer.json()["reason"]) == (413, "RequestEntityTooLarge")
