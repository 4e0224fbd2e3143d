"""JSON patch (RFC 6902), within limits: what a patch may cost is bounded before it is applied."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import jsonpointer
import orjson

from carmel.errors import BadRequest, Invalid, TooLarge
from carmel.resources.admission import MAX_OBJECT_BYTES
from carmel.resources.base import JsonObject

MAX_OPERATIONS = 1000
MAX_POINTER_LENGTH = 4096
_FACTOR = 4
"""How much larger than an object may be the parts may grow while a patch is under way (``copy`` doubles them)."""


def json_patch(target: JsonObject, operations: Any) -> JsonObject:
    """``target`` after all ``operations``, in order; ``target`` itself stays as it is.

    Raises ``BadRequest`` for what is no JSON patch, ``Invalid`` for one that does not fit the object (its ``test``
    fails, its path is not there), ``TooLarge`` for one with too many operations or too large a result.
    """
    if not isinstance(operations, list) or not all(isinstance(one, dict) for one in operations):
        raise BadRequest("a JSON patch is a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise TooLarge(f"a JSON patch may have at most {MAX_OPERATIONS} operations, this one has {len(operations)}")
    document: Any = copy.deepcopy(target)
    budget = _FACTOR * MAX_OBJECT_BYTES
    for index, operation in enumerate(operations):
        document = _apply(document, operation, index)
        if operation.get("op") == "copy":
            budget -= len(orjson.dumps(_value_at(document, operation["path"])))
            if budget < 0:
                raise TooLarge("the copies of a JSON patch make the object too large")
    if not isinstance(document, dict):
        raise Invalid("the patch leaves no object")
    return document


def _apply(document: Any, operation: JsonObject, index: int) -> Any:
    for member in ("path", "from"):
        if len(str(operation.get(member, ""))) > MAX_POINTER_LENGTH:
            raise TooLarge(f"the {member} of operation {index} is longer than {MAX_POINTER_LENGTH} characters")
    try:
        return jsonpatch.JsonPatch([operation]).apply(document, in_place=True)
    except jsonpatch.InvalidJsonPatch as error:
        raise BadRequest(f"operation {index} of the JSON patch is not valid: {error}") from None
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        raise Invalid(f"the JSON patch cannot be applied: operation {index}: {error}") from None
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise BadRequest(f"operation {index} of the JSON patch cannot be read: {error}") from None


def _value_at(document: Any, path: str) -> Any:
    return jsonpointer.resolve_pointer(document, path, None)
