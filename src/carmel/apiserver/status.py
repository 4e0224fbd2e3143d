"""Errors as Kubernetes ``Status`` objects (API conventions, "Response Status Kind").

kubectl shows ``message`` and, for ``Invalid``, the causes. The hint is part of the message, so that everybody sees
it; our own clients find the parts of the error in ``details.carmel``, in the shape of ``CarmelError.to_dict``.
"""

from __future__ import annotations

import orjson
from starlette.responses import Response

from carmel.errors import CarmelError, Cause, Invalid
from carmel.resources.base import JsonObject

JSON = "application/json"
_RETRY_AFTER_SECONDS = 1
_LABELS = {
    "FieldValueRequired": "Required value",
    "FieldValueDuplicate": "Duplicate value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueNotSupported": "Unsupported value",
    "FieldValueTooLong": "Too long",
}
"""Kubernetes' names for what can be wrong with a field (``field.ErrorType``); the rest is an invalid value."""


def failure(error: CarmelError, *, kind: str = "", group: str = "", name: str = "") -> JsonObject:
    """The Status of ``error``. ``kind`` is the resource's plural name, as Kubernetes has it."""
    details: JsonObject = {"carmel": error.to_dict()}
    for key, value in (("name", name), ("group", group), ("kind", kind)):
        if value:
            details[key] = value
    if isinstance(error, Invalid) and error.causes:
        details["causes"] = [_cause(cause) for cause in error.causes]
    elif error.field:
        details["causes"] = [{"reason": "FieldValueInvalid", "message": error.message, "field": error.field}]
    if error.http_status in {429, 503, 504}:
        details["retryAfterSeconds"] = _RETRY_AFTER_SECONDS
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"{error.message}; {error.hint}" if error.hint else error.message,
        "reason": error.reason,
        "details": details,
        "code": error.http_status,
    }


def _cause(cause: Cause) -> JsonObject:
    """kubectl shows field and message only, so the message begins with what is the matter."""
    label = _LABELS.get(cause.reason, "Invalid value")
    message = cause.message if cause.message.startswith(label) else f"{label}: {cause.message}"
    return {"reason": cause.reason, "message": message, "field": cause.field}


def success(*, kind: str, group: str, name: str, uid: str) -> JsonObject:
    """What a deletion answers when the object is gone."""
    details = {"name": name, "group": group, "kind": kind, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }


def status_response(status: JsonObject) -> Response:
    headers = {}
    if status.get("details", {}).get("retryAfterSeconds"):
        headers["retry-after"] = str(status["details"]["retryAfterSeconds"])
    if status.get("code") == 401:
        headers["www-authenticate"] = 'Bearer realm="carmel"'
    return Response(orjson.dumps(status), status.get("code", 200), headers, JSON)
