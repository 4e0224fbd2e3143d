"""A Kubernetes ``Status`` answer becomes the error of ``carmel.errors`` that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carmel import errors
from carmel.errors import CarmelError, Cause, WithCauses

_BY_REASON: Mapping[str, type[CarmelError]] = {
    one.reason: one
    for one in (
        errors.BadRequest,
        errors.Unauthorized,
        errors.Forbidden,
        errors.NotFound,
        errors.MethodNotAllowed,
        errors.AlreadyExists,
        errors.Conflict,
        errors.Expired,
        errors.TooLarge,
        errors.UnsupportedMediaType,
        errors.Invalid,
        errors.Refused,
        errors.TooManyRequests,
        errors.Unavailable,
        errors.TimedOut,
        errors.InsufficientStorage,
        errors.InternalError,
    )
}
_BY_HTTP_STATUS: Mapping[int, type[CarmelError]] = {
    400: errors.BadRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    409: errors.Conflict,
    410: errors.Expired,
    413: errors.TooLarge,
    415: errors.UnsupportedMediaType,
    422: errors.Invalid,
    429: errors.TooManyRequests,
    503: errors.Unavailable,
    504: errors.TimedOut,
    507: errors.InsufficientStorage,
}


def error_from_status(status: Mapping[str, Any], http_status: int) -> CarmelError:
    """The error that a ``Status`` describes. ``http_status`` decides where its reason is not known.

    Carmel's own server puts code, hint and the rest into ``details.carmel``; any other has a message and causes.
    """
    reason = str(status.get("reason") or "")
    found = _BY_REASON.get(reason) or _BY_HTTP_STATUS.get(http_status, errors.InternalError)
    details = status.get("details")
    details = details if isinstance(details, dict) else {}
    ours = details.get("carmel")
    ours = ours if isinstance(ours, dict) else {}
    said = _text(ours.get("message")) or _text(status.get("message"))
    message = said or f"the server answered with HTTP status {http_status}"
    retryable = ours.get("retryable")
    causes = _causes(details)
    field = _text(ours.get("field")) or (causes[0].field if causes else None)
    code = _text(ours.get("code")) or (None if reason in _BY_REASON else reason or None)
    hint = _text(ours.get("hint"))
    flag = retryable if isinstance(retryable, bool) else None
    if issubclass(found, WithCauses):
        return found(message, causes=causes, field=field, code=code, hint=hint, retryable=flag)
    return found(message, field=field, code=code, hint=hint, retryable=flag)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _causes(details: Mapping[str, Any]) -> list[Cause]:
    listed = details.get("causes")
    return [
        Cause(str(one.get("field")), str(one.get("message") or ""), str(one.get("reason") or "FieldValueInvalid"))
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and one.get("field")
    ]
