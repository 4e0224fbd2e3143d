"""Image: an immutable template that VMs start from, with its origin and digest."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from carmel.errors import Cause
from carmel.resources.base import JsonObject, LocalReference, Model, Name, Resource, Status, StatusError
from carmel.resources.kinds import Column, Kind


class ImageType(StrEnum):
    """A disk, or a kernel with its initrd (for firmware type DirectKernel)."""

    DISK = "Disk"
    KERNEL = "Kernel"


class ImagePhase(StrEnum):
    PENDING = "Pending"
    UPLOADING = "Uploading"
    DOWNLOADING = "Downloading"
    BUILDING = "Building"
    CONVERTING = "Converting"
    READY = "Ready"
    FAILED = "Failed"


class UrlSource(Model):
    """A disk image on a server. Its digest comes from the vendor's checksum file, or is given."""

    url: str = Field(max_length=2048, pattern=r"^https://[^\s]+$")
    checksum_url: str | None = Field(default=None, max_length=2048, pattern=r"^https://[^\s]+$", alias="checksumURL")
    checksum: str | None = Field(default=None, pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$")


class Fallback(StrEnum):
    """What to do when the network does not have the official image."""

    BUILD = "Build"
    FAIL = "Fail"


class CatalogSource(Model):
    """An official cloud image by its name in the catalogue (``carmel image list --catalog``)."""

    name: str = Field(min_length=1, max_length=63)
    fallback: Fallback = Fallback.FAIL


class BuildSource(Model):
    """An image that the host makes itself from Debian's packages."""

    recipe: str = Field(min_length=1, max_length=63)
    mirror: str | None = Field(default=None, max_length=2048, pattern=r"^https?://[^\s]+$")


class UploadSource(Model):
    """An image whose bytes are sent to ``.../images/NAME/upload`` (raw, qcow2 or vmdk)."""


class ImageSource(Model):
    """Exactly one of its fields is set."""

    url: UrlSource | None = None
    catalog: CatalogSource | None = None
    build: BuildSource | None = None
    upload: UploadSource | None = None


class ImageSpec(Model):
    """Where an image comes from. Cannot be changed afterwards."""

    source: ImageSource
    datastore_ref: LocalReference = Field(default_factory=lambda: LocalReference(name="local"))


class ImageStatus(Status):
    """What an image is. ``digest`` is that of the bytes as they came, before conversion."""

    phase: ImagePhase | None = None
    type: ImageType | None = None
    architecture: str | None = None
    digest: str | None = None
    origin: str | None = Field(default=None, description="Where the bytes came from: a URL, upload, or build:RECIPE.")
    format: str | None = None
    virtual_size_bytes: int | None = None
    size_bytes: int | None = Field(default=None, description="Bytes it takes in its datastore.")
    progress_percent: int | None = None
    message: str | None = None
    command_line: str | None = Field(default=None, description="Kernel command line that a Kernel image needs.")
    task_name: Name | None = None
    error: StatusError | None = None


class Image(Resource):
    """An image."""

    spec: ImageSpec
    status: ImageStatus = Field(default_factory=ImageStatus)


def _validate(new: JsonObject, old: JsonObject | None) -> list[Cause]:
    source = (new.get("spec") or {}).get("source") or {}
    causes = []
    if sum(source.get(name) is not None for name in ImageSource.model_fields) != 1:
        causes.append(Cause("spec.source", "needs exactly one of url, catalog, build or upload", "FieldValueRequired"))
    url = source.get("url")
    if url is not None and (url.get("checksumURL") is None) == (url.get("checksum") is None):
        causes.append(
            Cause(
                "spec.source.url", "needs a checksumURL or a checksum, so that it can be verified", "FieldValueRequired"
            )
        )
    if old is not None and old.get("spec") != new.get("spec"):
        causes.append(Cause("spec", "an image cannot be changed: make another one", "FieldValueForbidden"))
    return causes


IMAGE = Kind(
    group="carmel.dev",
    version="v1alpha1",
    kind="Image",
    plural="images",
    short_names=("img",),
    categories=("carmel",),
    model=Image,
    validate=_validate,
    columns=(
        Column("Phase", ".status.phase"),
        Column("Type", ".status.type"),
        Column("Progress", ".status.progressPercent", "integer"),
        Column("Size", ".status.virtualSizeBytes", "integer", priority=1),
        Column("Origin", ".status.origin", priority=1),
        Column("Digest", ".status.digest", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
