"""In which shape an answer is wanted: the object itself, a Table for people, or its metadata alone.

``Accept`` as Kubernetes reads it (API concepts, "Receiving resources as Tables"): the first media type of the list
that we speak wins; ``as``, ``g`` and ``v`` are its parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from carmel.errors import CarmelError


class NotAcceptable(CarmelError):
    """Nothing the client would take is something we have."""

    http_status = 406
    reason = "NotAcceptable"
    vim_fault = "NotSupported"
    exit_status = 5


class Shape(StrEnum):
    OBJECT = "Object"
    TABLE = "Table"
    PARTIAL = "PartialObjectMetadata"


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One entry of an Accept header: its type, and its parameters."""

    type: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The shape, and for a Table or metadata the version of ``meta.k8s.io``."""

    shape: Shape = Shape.OBJECT
    version: str = "v1"
    yaml: bool = False

    @property
    def api_version(self) -> str:
        return f"meta.k8s.io/{self.version}"


PLAIN = Wanted()
_SHAPES = {"Table": Shape.TABLE, "PartialObjectMetadata": Shape.PARTIAL, "PartialObjectMetadataList": Shape.PARTIAL}
_JSON = frozenset({"application/json", "application/*", "*/*"})


def accepted(header: str) -> list[MediaRange]:
    """The entries of an Accept header, in order. Bounded by the header's own length."""
    ranges = []
    for entry in header.split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        if kind:
            pairs = (parameter.partition("=") for parameter in parameters)
            ranges.append(MediaRange(kind.lower(), {key.strip().lower(): value.strip() for key, _, value in pairs}))
    return ranges


def wanted(header: str) -> Wanted:
    """What to answer with. Raises ``NotAcceptable``."""
    if not header or header == "application/json":
        return PLAIN
    ranges = accepted(header)
    for entry in ranges:
        shape = _SHAPES.get(entry.parameters.get("as", ""))
        version = entry.parameters.get("v", "v1")
        if "as" in entry.parameters:
            meta = entry.parameters.get("g") == "meta.k8s.io" and version in {"v1", "v1beta1"}
            if shape is not None and meta and entry.type in _JSON:
                return Wanted(shape, version)
        elif entry.type in _JSON:
            return PLAIN
        elif entry.type == "application/yaml":
            return Wanted(yaml=True)
    if not ranges:
        return PLAIN
    raise NotAcceptable(
        "only the following media types are accepted: application/json, application/yaml, "
        "application/json;as=Table;v=v1;g=meta.k8s.io, application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    )
