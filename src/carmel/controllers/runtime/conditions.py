"""Conditions: what is so of a resource, and since when (Kubernetes API conventions, "Typical status properties")."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from carmel.errors import CarmelError
from carmel.resources.base import Condition, Status

MAX_MESSAGE = 4096


Truth = Literal["True", "False", "Unknown"]


def condition(type_: str, status: Truth, reason: str, message: str = "", *, generation: int | None = None) -> Condition:
    """A condition without its time. ``reason`` is one CamelCase word, ``message`` a sentence for people."""
    return Condition(
        type=type_, status=status, reason=reason, message=message[:MAX_MESSAGE], observed_generation=generation
    )


def find_condition(status: Status, type_: str) -> Condition | None:
    return next((one for one in status.conditions or [] if one.type == type_), None)


def is_true(status: Status, type_: str) -> bool:
    found = find_condition(status, type_)
    return found is not None and found.status == "True"


def set_conditions(status: Status, wanted: Iterable[Condition], now: datetime) -> None:
    """Put ``wanted`` among the status' conditions. A time moves only when a condition's status does."""
    merged = {one.type: one for one in status.conditions or []}
    for one in wanted:
        before = merged.get(one.type)
        since = before.last_transition_time if before is not None and before.status == one.status else None
        # Whole seconds, as they are stored: else every pass would see a difference.
        merged[one.type] = one.model_copy(update={"last_transition_time": since or now.replace(microsecond=0)})
    status.conditions = list(merged.values()) or None


def remove_condition(status: Status, type_: str) -> None:
    status.conditions = [one for one in status.conditions or [] if one.type != type_] or None


def error_message(error: CarmelError) -> str:
    """The error's sentence with what to do about it."""
    sentence = error.message.rstrip(".")
    return f"{sentence}. {error.hint[:1].upper()}{error.hint[1:]}." if error.hint else f"{sentence}."
