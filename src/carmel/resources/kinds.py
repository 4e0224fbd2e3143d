"""What a kind is to the API: its names, where it lives, its columns. ``registry.KINDS`` lists them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from carmel.errors import Cause
from carmel.resources.base import JsonObject, Resource

Validator = Callable[[JsonObject, JsonObject | None], list[Cause]]
"""(new object, old object or None at creation) -> what is wrong. Beyond what the schema can say."""


@dataclass(frozen=True, slots=True)
class Column:
    """One printer column. ``path`` is the simple JSONPath that CRDs take (``.status.powerState``).

    ``priority`` above 0 is shown by ``-o wide`` only.
    """

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    description: str = ""
    format: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource. Equal and hashable by its group and plural name."""

    group: str
    version: str
    kind: str
    plural: str
    model: type[Resource] = field(compare=False, hash=False)
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    columns: tuple[Column, ...] = field(default=(), compare=False, hash=False)
    has_status: bool = True
    """There is a ``/status`` subresource: status and the rest are written apart, and generation counts the rest."""
    validate: Validator | None = field(default=None, compare=False, hash=False)
    selectable_fields: tuple[str, ...] = ()
    """Dotted paths a ``fieldSelector`` takes beside ``metadata.name`` and ``metadata.namespace``."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def resource(self) -> str:
        """``virtualmachines.carmel.dev``; core kinds have no group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural
