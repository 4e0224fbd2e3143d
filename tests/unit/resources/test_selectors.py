"""Selectors, in the syntax that kubectl sends."""

from __future__ import annotations

import pytest

from carmel.errors import BadRequest
from carmel.resources.core import EVENT
from carmel.resources.selectors import parse_selector
from carmel.resources.virtualmachine import VIRTUAL_MACHINE

WEB = {"metadata": {"name": "web-0", "namespace": "default", "labels": {"app": "web", "tier": "front"}}}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=front", True),
        ("app=db", False),
        ("app!=db", True),
        ("missing!=x", True),
        ("app", True),
        ("!app", False),
        ("!missing", True),
        ("app in (web, db)", True),
        ("app notin (web,db)", False),
        ("missing notin (a)", True),
        ("tier in (front),app=web", True),
        ("app=", False),
    ],
)
def test_labels(labels: str, expected: bool) -> None:
    assert parse_selector(VIRTUAL_MACHINE, labels=labels).matches(WEB) is expected


def test_fields() -> None:
    assert parse_selector(VIRTUAL_MACHINE, fields="metadata.name=web-0").matches(WEB)
    assert not parse_selector(VIRTUAL_MACHINE, fields="metadata.name!=web-0").matches(WEB)
    event = {"metadata": {"name": "e"}, "involvedObject": {"kind": "VirtualMachine", "name": "web-0"}}
    assert parse_selector(EVENT, fields="involvedObject.name=web-0,involvedObject.uid=").matches(event)


@pytest.mark.parametrize("labels", ["=x", "a=b=c", "a in b", "a in (b", "(", "a,,b", "a b"])
def test_a_broken_selector_is_a_bad_request(labels: str) -> None:
    with pytest.raises(BadRequest):
        parse_selector(VIRTUAL_MACHINE, labels=labels)


def test_a_field_that_is_not_selectable_is_a_bad_request() -> None:
    with pytest.raises(BadRequest):
        parse_selector(VIRTUAL_MACHINE, fields="spec.cpu.count=2")
