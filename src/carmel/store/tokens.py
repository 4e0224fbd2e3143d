"""Continue tokens: where a list in parts goes on, and the revision that all its parts show."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import orjson

from carmel.errors import BadRequest
from carmel.resources.kinds import Kind

_LARGEST = 2048


@dataclass(frozen=True, slots=True)
class Position:
    """The next part of a list begins behind ``(namespace, name)``, at ``resource_version``."""

    resource_version: str
    namespace: str
    name: str


def encode(kind: Kind, position: Position) -> str:
    """The token for a position in the list of ``kind``."""
    parts = [1, kind.resource, position.resource_version, position.namespace, position.name]
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def decode(kind: Kind, token: str) -> Position:
    """The position that ``encode`` wrote. Raises ``BadRequest`` for what is not a token of this kind's lists."""
    wrong = BadRequest("continue key is not valid", hint="start the list again without 'continue'")
    if len(token) > _LARGEST:
        raise wrong
    try:
        parts = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError):
        raise wrong from None
    match parts:
        case [1, kind.resource, str(version), str(namespace), str(name)]:
            return Position(version, namespace, name)
    raise wrong
