"""One error looks right on every surface."""

from __future__ import annotations

import pytest

from carmel import errors
from carmel.errors import CarmelError, Cause, Invalid, NotFound, Unavailable, from_dict

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, CarmelError) and value is not CarmelError
]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_has_a_face_for_each_surface(error: type[CarmelError]) -> None:
    assert 400 <= error.http_status < 600
    assert error.exit_status in {1, 3, 4, 5, 6}
    assert error.reason
    assert error.vim_fault


def test_an_error_survives_the_way_through_json() -> None:
    sent = Unavailable("QEMU does not answer", code="QEMUSilent", hint="look at the log")
    received = from_dict(sent.to_dict())
    assert received.to_dict() == sent.to_dict()
    assert received.retryable


def test_the_code_is_the_reason_unless_named() -> None:
    assert NotFound("x").code == "NotFound"
    assert NotFound("x", code="ImageMissing").code == "ImageMissing"


def test_invalid_blames_its_first_field() -> None:
    assert Invalid("x", causes=[Cause("spec.a", "b"), Cause("spec.c", "d")]).field == "spec.a"
