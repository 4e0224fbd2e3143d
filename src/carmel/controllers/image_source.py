"""Brings one image into its datastore, whichever way its source says. What the image's controller runs behind.

Each way ends with the image in its place, whole, or not at all, and may be begun again at any point: a download goes
on where it was, what was received or downloaded whole is only converted again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from carmel.controllers.datastore import OpenDatastore
from carmel.errors import CarmelError, InternalError, NotFound, Refused
from carmel.paths import Paths
from carmel.resources.catalog import CatalogEntry, find_entry
from carmel.resources.image import BuildSource, CatalogSource, Fallback, Image, ImagePhase, UrlSource
from carmel.run import Runner
from carmel.storage import build
from carmel.storage.child import Child
from carmel.storage.datastore import RESERVE_BYTES
from carmel.storage.download import download
from carmel.storage.files import explained, sync_directory, sync_file
from carmel.storage.images import Origin

_WHOLE = "whole"
_ORIGIN = "origin.json"
_NOT_FROM_HERE = frozenset({"SourceUnavailable", "SourceNotFound", "SourceForbidden", "CertificateInvalid"})
"""How a download fails where the network does not have the vendor's site: then a catalogue image may be built."""

OnProgress = Callable[[ImagePhase, int | None, str], None]
"""What is being done, per cent of it where that is known, and a line for people."""


def verb(image: Image) -> str:
    """What the Task for an image is called."""
    source = image.spec.source
    if source.upload is not None:
        return "Import"
    return "Build" if source.build is not None else "Pull"


@dataclass(frozen=True, slots=True)
class Gathered:
    """The directory where an image's bytes gather before they are converted."""

    directory: Path

    @property
    def whole(self) -> Path:
        """There once all bytes are there and on the disk."""
        return self.directory / _WHOLE

    def finish(self, part: Path, origin: Origin) -> None:
        """``part`` is whole: keep it, also over a power cut. Blocking."""
        with explained("keep what was received"):
            place = self.directory / _ORIGIN
            place.write_text(json.dumps(asdict(origin)))
            sync_file(place)
            sync_file(part)
            part.rename(self.whole)
            sync_directory(self.directory)

    def origin(self) -> Origin:
        with explained("read where an image came from"):
            return Origin(**json.loads((self.directory / _ORIGIN).read_text()))


class ImageSources:
    """Runs what an image's source asks for."""

    def __init__(self, paths: Paths, runner: Runner, catalog: Callable[[str], CatalogEntry] = find_entry) -> None:
        self._paths = paths
        self._runner = runner
        self._find_entry = catalog

    async def bring(self, image: Image, datastore: OpenDatastore, progress: OnProgress) -> None:
        """Make ``image``; return when it is in its place. Cancelling leaves nothing but the part of a download."""
        source, uid = image.spec.source, image.metadata.uid or ""
        if source.build is not None:
            await self._build(uid, source.build, datastore, progress)
            return
        gathered = await asyncio.to_thread(lambda: Gathered(datastore.directory.download(uid)))
        if not gathered.whole.exists():
            if source.url is not None:
                await self._fetch(source.url, datastore, gathered, progress)
            elif source.catalog is not None:
                if await self._catalog(uid, source.catalog, datastore, gathered, progress):
                    return
            else:
                raise InternalError("an upload is to be converted before it was received")
        origin = await asyncio.to_thread(gathered.origin)
        await datastore.images.import_file(
            uid, gathered.whole, origin, lambda percent: progress(ImagePhase.CONVERTING, percent, "converting")
        )
        await datastore.directory.remove_download(uid)

    async def _catalog(
        self, uid: str, source: CatalogSource, datastore: OpenDatastore, gathered: Gathered, progress: OnProgress
    ) -> bool:
        """Answers whether the image was built, and so is in its place already."""
        may_build = source.fallback is Fallback.BUILD
        try:
            entry = self._find_entry(source.name)
        except NotFound:
            if not may_build or source.name not in build.RECIPES:
                raise
            await self._build(uid, BuildSource(recipe=source.name), datastore, progress)
            return True
        recipe = entry.recipe if may_build and entry.recipe in build.RECIPES else None
        try:
            await self._fetch(_url(entry), datastore, gathered, progress, tries=4 if recipe is None else 2)
        except CarmelError as error:
            if recipe is None or error.code not in _NOT_FROM_HERE:
                raise
            progress(ImagePhase.BUILDING, None, f"building, as the official image is out of reach: {error.message}")
            await self._build(uid, BuildSource(recipe=recipe), datastore, progress)
            return True
        return False

    async def _fetch(
        self,
        source: UrlSource,
        datastore: OpenDatastore,
        gathered: Gathered,
        progress: OnProgress,
        tries: int = 4,
    ) -> None:
        progress(ImagePhase.DOWNLOADING, None, "downloading")
        capacity = await asyncio.to_thread(datastore.directory.capacity)
        downloaded = await download(
            Child(self._runner, datastore.directory.user),
            source,
            gathered.directory,
            max_bytes=max(capacity.capacity_bytes - RESERVE_BYTES, 0),
            on_bytes=lambda percent, text: progress(ImagePhase.DOWNLOADING, percent, f"downloading: {text}"),
            tries=tries,
        )
        await asyncio.to_thread(gathered.finish, downloaded.path, Origin(source.url, downloaded.checksum))

    async def _build(self, uid: str, source: BuildSource, datastore: OpenDatastore, progress: OnProgress) -> None:
        if source.recipe not in build.RECIPES:
            raise Refused(
                f"there is no recipe {source.recipe!r}",
                code="RecipeNotFound",
                hint=f"there are: {', '.join(sorted(build.RECIPES))}",
                field="spec.source.build.recipe",
            )
        # A catalogue image that is built instead has begun a download, and will never need it.
        await datastore.directory.remove_download(uid)
        progress(ImagePhase.BUILDING, None, "building")
        await asyncio.to_thread(self._paths.build_cache.mkdir, parents=True, exist_ok=True)
        await datastore.images.build(
            uid,
            source.recipe,
            self._paths.build_cache,
            lambda percent, message: progress(ImagePhase.BUILDING, percent, message),
            source.mirror,
            self._paths.ready_made,
        )


def _url(entry: CatalogEntry) -> UrlSource:
    return UrlSource(url=entry.url, checksum_url=entry.checksum_url)
