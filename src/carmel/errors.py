"""The one error hierarchy.

A class says what *sort* of failure it is, and so how it looks on every surface: HTTP status, Kubernetes
``Status.reason``, vim25 fault and the exit status of ``carmel``. ``code`` names the very case (``PortInUse``)
and is stable: scripts may match on it. ``message`` is one sentence, ``hint`` says what to do about it,
``field`` is the path of the field to blame (``spec.disks[0].size``), ``retryable`` says whether the same
request can succeed later without anybody changing anything.

Exit statuses: 1 internal, 2 usage, 3 not found, 4 conflict, 5 refused, 6 time-out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing wrong with one field, in the words of Kubernetes' ``StatusCause``."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class CarmelError(Exception):
    """What every error that Carmel raises on purpose is. Anything else is a bug and is shown as ``InternalError``."""

    http_status: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"
    vim_fault: ClassVar[str] = "SystemError"
    exit_status: ClassVar[int] = 1
    retryable_by_default: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        field: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.reason
        self.hint = hint
        self.field = field
        self.retryable = self.retryable_by_default if retryable is None else retryable

    def to_dict(self) -> dict[str, Any]:
        """``{code, message, hint, retryable, field}``: what ``carmel -o json`` prints and a Task's error holds."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
            "field": self.field,
        }


class WithCauses(CarmelError):
    """An error that several fields have a part in: each cause names its field."""

    def __init__(
        self,
        message: str,
        *,
        causes: Iterable[Cause] = (),
        code: str | None = None,
        hint: str | None = None,
        field: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        self.causes = tuple(causes)
        if field is None and self.causes:
            field = self.causes[0].field
        super().__init__(message, code=code, hint=hint, field=field, retryable=retryable)


class InternalError(CarmelError):
    """A bug of ours, or a state that should not be."""


class BadRequest(CarmelError):
    """The request cannot be read: not JSON, an unknown parameter value."""

    http_status = 400
    reason = "BadRequest"
    vim_fault = "InvalidRequest"
    exit_status = 5


class Unauthorized(CarmelError):
    """Nobody we know."""

    http_status = 401
    reason = "Unauthorized"
    vim_fault = "InvalidLogin"
    exit_status = 5


class Forbidden(CarmelError):
    """Known, but not allowed to do this."""

    http_status = 403
    reason = "Forbidden"
    vim_fault = "NoPermission"
    exit_status = 5


class NotFound(CarmelError):
    """The thing is not there."""

    http_status = 404
    reason = "NotFound"
    vim_fault = "ManagedObjectNotFound"
    exit_status = 3


class MethodNotAllowed(CarmelError):
    """The thing is there, but this verb is not for it."""

    http_status = 405
    reason = "MethodNotAllowed"
    vim_fault = "NotSupported"
    exit_status = 5


class AlreadyExists(CarmelError):
    """The name is taken."""

    http_status = 409
    reason = "AlreadyExists"
    vim_fault = "DuplicateName"
    exit_status = 4


class Conflict(WithCauses):
    """Somebody else changed it since, owns the field (a cause each), or it is in use."""

    http_status = 409
    reason = "Conflict"
    vim_fault = "ConcurrentAccess"
    exit_status = 4


class Expired(CarmelError):
    """The resourceVersion or continue token is older than what is kept: list again."""

    http_status = 410
    reason = "Expired"
    vim_fault = "InvalidCollectorVersion"
    exit_status = 4


class TooLarge(CarmelError):
    """The object or upload is larger than is taken."""

    http_status = 413
    reason = "RequestEntityTooLarge"
    vim_fault = "InvalidRequest"
    exit_status = 5


class UnsupportedMediaType(CarmelError):
    """The body's content type (or patch type) is not spoken here."""

    http_status = 415
    reason = "UnsupportedMediaType"
    vim_fault = "NotSupported"
    exit_status = 5


class Invalid(WithCauses):
    """The object reads well but its values cannot be: each cause names its field."""

    http_status = 422
    reason = "Invalid"
    vim_fault = "InvalidArgument"
    exit_status = 5


class Refused(CarmelError):
    """Well formed and allowed, but this machine or this state cannot do it (no QEMU, port in use, disk full)."""

    http_status = 422
    reason = "Refused"
    vim_fault = "InvalidState"
    exit_status = 5


class TooManyRequests(CarmelError):
    """Later, please."""

    http_status = 429
    reason = "TooManyRequests"
    vim_fault = "TaskInProgress"
    exit_status = 5
    retryable_by_default = True


class Unavailable(CarmelError):
    """A part that is needed is not there at the moment: daemon down, QEMU not answering, network away."""

    http_status = 503
    reason = "ServiceUnavailable"
    vim_fault = "HostCommunication"
    exit_status = 1
    retryable_by_default = True


class TimedOut(CarmelError):
    """It took longer than it was given."""

    http_status = 504
    reason = "Timeout"
    vim_fault = "Timedout"
    exit_status = 6
    retryable_by_default = True


class InsufficientStorage(CarmelError):
    """The disk is full, or the datastore smaller than what was asked for."""

    http_status = 507
    reason = "InsufficientStorage"
    vim_fault = "NoDiskSpace"
    exit_status = 5


def from_dict(error: Mapping[str, Any]) -> CarmelError:
    """The error that ``to_dict`` described, as a plain ``CarmelError`` that keeps its code, hint and retryability."""
    return CarmelError(
        str(error.get("message") or "unknown error"),
        code=error.get("code"),
        hint=error.get("hint"),
        field=error.get("field"),
        retryable=bool(error.get("retryable")),
    )
