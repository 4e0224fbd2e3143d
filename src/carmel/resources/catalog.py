"""The official arm64 cloud images that are known by a short name.

An entry names where the vendor publishes the image and its list of checksums; the checksum itself is read from there
at each download. The addresses follow the vendors' published layout; they were not fetched in Carmel's own tests,
which use a server of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from carmel.errors import NotFound

ARCHITECTURE = "arm64"

_DEBIAN = "https://cloud.debian.org/images/cloud"
_UBUNTU = "https://cloud-images.ubuntu.com/releases"


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One image. ``user`` is whom cloud-init gives the ssh keys to; ``recipe`` builds one like it without the site."""

    name: str
    summary: str
    url: str
    checksum_url: str
    user: str
    recipe: str | None = None
    aliases: tuple[str, ...] = ()
    architecture: str = ARCHITECTURE


def _debian(version: int, codename: str, *aliases: str, recipe: str | None = None) -> CatalogEntry:
    folder = f"{_DEBIAN}/{codename}/latest"
    return CatalogEntry(
        name=f"debian-{version}",
        summary=f"Debian {version} ({codename}), generic cloud image",
        url=f"{folder}/debian-{version}-genericcloud-arm64.qcow2",
        checksum_url=f"{folder}/SHA512SUMS",
        user="debian",
        recipe=recipe,
        aliases=(f"debian-{codename}", *aliases),
    )


def _ubuntu(version: str, codename: str, *aliases: str) -> CatalogEntry:
    folder = f"{_UBUNTU}/{version}/release"
    return CatalogEntry(
        name=f"ubuntu-{version}",
        summary=f"Ubuntu {version} LTS ({codename}), server cloud image",
        url=f"{folder}/ubuntu-{version}-server-cloudimg-arm64.img",
        checksum_url=f"{folder}/SHA256SUMS",
        user="ubuntu",
        aliases=(f"ubuntu-{codename}", *aliases),
    )


CATALOG: tuple[CatalogEntry, ...] = (
    # The default is the release that the recipe builds, so that both ways lead to the same system.
    _debian(12, "bookworm", "debian", recipe="debian"),
    _debian(13, "trixie"),
    _ubuntu("22.04", "jammy"),
    _ubuntu("24.04", "noble", "ubuntu"),
)


def find_entry(name: str) -> CatalogEntry:
    """The entry of that name or alias. Raises ``NotFound`` (``CatalogEntryNotFound``)."""
    for entry in CATALOG:
        if name == entry.name or name in entry.aliases:
            return entry
    raise NotFound(
        f"there is no image {name[:64]!r} in the catalogue",
        code="CatalogEntryNotFound",
        hint="there are: " + ", ".join(entry.name for entry in CATALOG),
    )
