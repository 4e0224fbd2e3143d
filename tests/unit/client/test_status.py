from __future__ import annotations

from typing import Any

import pytest

from carmel import errors
from carmel.apiserver.status import failure
from carmel.client.status import error_from_status
from carmel.errors import CarmelError, Cause, Invalid


def subclasses(of: type[CarmelError]) -> list[type[CarmelError]]:
    found = [one for one in of.__subclasses__() if one.__module__ == errors.__name__]
    below = [one for each in found for one in subclasses(each)]
    return [*(one for one in found if one is not errors.WithCauses), *below]


@pytest.mark.parametrize("kind", subclasses(CarmelError), ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_it_was_sent(kind: type[CarmelError]) -> None:
    sent = kind("it went wrong", code="VerySpecial", hint="do this", field="spec.x", retryable=True)
    got = error_from_status(failure(sent), sent.http_status)
    assert type(got) is kind
    assert got.to_dict() == sent.to_dict()


def test_causes_come_back() -> None:
    sent = Invalid("no", causes=[Cause("spec.a", "bad"), Cause("spec.b", "worse", "FieldValueRequired")])
    got = error_from_status(failure(sent), 422)
    assert isinstance(got, Invalid)
    assert [(one.field, one.reason) for one in got.causes] == [(one.field, one.reason) for one in sent.causes]
    assert got.field == "spec.a"


@pytest.mark.parametrize(
    ("status", "http_status", "kind", "code"),
    [
        ({"reason": "NotFound", "message": "gone"}, 404, errors.NotFound, "NotFound"),
        ({"reason": "FromTheFuture", "message": "x"}, 409, errors.Conflict, "FromTheFuture"),
        ({}, 503, errors.Unavailable, "ServiceUnavailable"),
        ({"details": "nonsense", "message": 3}, 418, errors.InternalError, "InternalError"),
        ({"details": {"carmel": [], "causes": [None, {"field": "a"}]}}, 422, errors.Invalid, "Invalid"),
    ],
)
def test_other_servers_say_less(status: dict[str, Any], http_status: int, kind: type[CarmelError], code: str) -> None:
    got = error_from_status(status, http_status)
    assert (type(got), got.code) == (kind, code)
    assert got.message
