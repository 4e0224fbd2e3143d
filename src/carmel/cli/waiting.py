"""``--wait`` and ``carmel wait``: what an object must be like, and waiting until it is."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from carmel.cli.jsonpath import select
from carmel.cli.text import parse_duration
from carmel.client.api import Client
from carmel.client.discovery import ResourceType
from carmel.client.follow import follow
from carmel.client.objects import JsonObject, condition, dig
from carmel.errors import CarmelError, NotFound, Refused, TimedOut

WORDS = ("ready", "running", "stopped", "paused", "suspended", "deleted")
_POWER = {"running": "PoweredOn", "stopped": "PoweredOff", "paused": "Paused", "suspended": "Suspended"}
_CONDITION = re.compile(r"condition=(?P<type>[A-Za-z][\w.-]*)(?:=(?P<status>\w+))?")
_JSONPATH = re.compile(r"jsonpath=(?P<path>.+?)(?:=(?P<value>[^=\]]*))?")


@dataclass(frozen=True, slots=True)
class Goal:
    """What is waited for. ``holds`` is asked with the object, or ``None`` when there is none."""

    text: str
    holds: Callable[[JsonObject | None], bool]


class GoalType(click.ParamType[Goal]):
    """Reads ``ready``, ``running``, ..., ``condition=TYPE[=STATUS]`` and ``jsonpath=PATH[=VALUE]``."""

    name = "goal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Goal:
        if isinstance(value, Goal):
            return value
        goal = parse_goal(str(value))
        if goal is None:
            self.fail(
                f"{value!r} is not one of {', '.join(WORDS)}, condition=TYPE[=STATUS], jsonpath=PATH[=VALUE]",
                param,
                ctx,
            )
        return goal


class DurationType(click.ParamType[float]):
    """Reads ``90``, ``90s``, ``5m``, ``1h30m`` as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else parse_duration(str(value))
        except CarmelError as exc:
            self.fail(exc.message, param, ctx)


def timeout_option(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--timeout",
        type=DurationType(),
        default=default,
        show_default=True,
        metavar="TIME",
        help="Wait no longer than that: 90s, 5m, 1h.",
    )


def wait_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--wait",
        "goal",
        type=GoalType(),
        metavar="GOAL",
        help="Wait until it is ready, running, stopped, condition=TYPE or jsonpath=PATH=VALUE.",
    )(function)


def parse_goal(text: str) -> Goal | None:
    lowered = text.lower()
    if lowered == "ready":
        return Goal(lowered, is_ready)
    if lowered in {"deleted", "delete"}:
        return Goal("deleted", lambda obj: obj is None)
    if lowered in _POWER:
        return power_goal(lowered, _POWER[lowered])
    if match := _CONDITION.fullmatch(text):
        return _condition_goal(text, match["type"], match["status"] or "True")
    if match := _JSONPATH.fullmatch(text):
        return _path_goal(text, match["path"], match["value"])
    return None


def power_goal(text: str, state: str) -> Goal:
    return Goal(text, lambda obj: obj is not None and _current(obj) and dig(obj, "status", "powerState") == state)


def _condition_goal(text: str, type_: str, status: str) -> Goal:
    def holds(obj: JsonObject | None) -> bool:
        found = condition(obj, type_).get("status") if obj is not None and _current(obj) else None
        return str(found).lower() == status.lower()

    return Goal(text, holds)


def _path_goal(text: str, path: str, value: str | None) -> Goal:
    inner = path.strip("{}")
    inner = inner if inner.startswith((".", "[")) else f".{inner}"

    def holds(obj: JsonObject | None) -> bool:
        found = select(inner, obj) if obj is not None else []
        return any(value is None or str(one) == value for one in found)

    return Goal(text, holds)


def is_ready(obj: JsonObject | None) -> bool:
    """Its condition Ready, or where a kind has none its phase, as of the newest change of its spec."""
    if obj is None or not _current(obj):
        return False
    ready = condition(obj, "Ready").get("status")
    if ready is not None:
        return bool(ready == "True")
    return dig(obj, "status", "phase") in {"Ready", "Active", "Succeeded"}


def _current(obj: JsonObject) -> bool:
    """Whether the status speaks of this spec and not of the one before."""
    observed = dig(obj, "status", "observedGeneration")
    return observed is None or observed >= (dig(obj, "metadata", "generation") or 0)


def failure_of(obj: JsonObject | None) -> CarmelError | None:
    """Why waiting is in vain: the object was not accepted, or has failed for good."""
    if obj is None or not _current(obj):
        return None
    if dig(obj, "status", "phase") == "Failed":
        return _error_of(dig(obj, "status", "error"), dig(obj, "status", "message"), obj)
    accepted = condition(obj, "Accepted")
    if accepted.get("status") == "False":
        return _error_of(None, accepted.get("message"), obj, code=accepted.get("reason"))
    return None


def _error_of(error: Any, message: Any, obj: JsonObject, *, code: Any = None) -> CarmelError:
    error = error if isinstance(error, dict) else {}
    name = f"{str(obj.get('kind') or 'object').lower()} {dig(obj, 'metadata', 'name')}"
    said = error.get("message") or message or "it gives no reason"
    return Refused(
        f"{name} failed: {said}",
        code=error.get("code") or code or "Failed",
        hint=error.get("hint"),
        field=error.get("field"),
        retryable=bool(error.get("retryable")),
    )


def wait_for(
    client: Client,
    kind: ResourceType,
    namespace: str | None,
    name: str,
    goal: Goal,
    *,
    seconds: float,
    on_change: Callable[[JsonObject], None] | None = None,
) -> JsonObject | None:
    """The object once ``goal`` holds. ``on_change`` sees every state on the way.

    Raises ``TimedOut``, ``NotFound`` when it is not there or goes away, and ``Refused`` when it can only fail.
    """
    deadline = time.monotonic() + seconds
    last: JsonObject | None = None
    try:
        for obj in follow(client, kind, namespace, name, deadline=deadline):
            if goal.holds(obj):
                return obj
            if obj is None:
                raise NotFound(f"{kind.singular} {name!r} is not there", code="NotFound")
            if failure := failure_of(obj):
                raise failure
            last = obj
            if on_change is not None:
                on_change(obj)
    except TimedOut as exc:
        raise _too_late(kind, name, goal, seconds, last) from exc
    raise AssertionError("a follow never ends by itself")


def _too_late(kind: ResourceType, name: str, goal: Goal, seconds: float, last: JsonObject | None) -> TimedOut:
    what = f"{kind.singular} {name!r} is not {goal.text} after {seconds:g} s"
    why = condition(last or {}, "Ready").get("message") or dig(last, "status", "message")
    return TimedOut(
        f"{what}: {why}" if why else what,
        code="WaitTimedOut",
        hint=f"`carmel describe {kind.singular} {name}` shows where it is; --timeout gives it longer",
    )
