"""What every object goes through before it is stored: pruning, defaults, validation, limits."""

from __future__ import annotations

from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind

MAX_OBJECT_BYTES = 256 * 1024


def admit(kind: Kind, new: JsonObject, old: JsonObject | None) -> JsonObject:
    """``new`` in its stored form: unknown fields dropped, defaults set, values canonical.

    ``old`` is the stored object, ``None`` at creation. Metadata that the server sets (uid, generation, ...) is the
    store's work and passes through untouched. Raises ``Invalid`` with one cause a field, or ``TooLarge``.
    """
    raise NotImplementedError
