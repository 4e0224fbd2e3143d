"""Query parameters, read strictly: a value that is not understood is an error, never a guess."""

from __future__ import annotations

from collections.abc import Mapping

from carmel.errors import BadRequest, Cause, Invalid

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False", ""})
_MAX_NUMBER = 2**53


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean in the spellings that Go's ``strconv.ParseBool`` takes; absent is false."""
    value = query.get(name, "")
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise BadRequest(f"{name}: {value[:40]!r} is neither true nor false", field=name)


def number(query: Mapping[str, str], name: str) -> int | None:
    """A whole number, 0 or more; absent or empty is ``None``."""
    value = query.get(name, "")
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 16 and int(value) <= _MAX_NUMBER):
        raise BadRequest(f"{name}: {value[:40]!r} is not a whole number of 0 or more", field=name)
    return int(value)


def dry_run(values: list[str]) -> bool:
    """``dryRun=All``. Any other value is refused: a write that was meant as a trial must never be a real one."""
    for value in values:
        if value != "All":
            raise invalid("dryRun", f'Unsupported value: {value[:40]!r}: supported values: "All"')
    return bool(values)


def invalid(field: str, message: str) -> Invalid:
    """A parameter whose value cannot be, in the shape in which Kubernetes reports options."""
    return Invalid(f"{field}: {message}", causes=[Cause(field, message)])
