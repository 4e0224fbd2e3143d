"""A recipe: which packages, and what is made of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from carmel.storage.build.context import BuildContext, Make, Package
from carmel.storage.build.packages import PrivateApt
from carmel.storage.build.programs import require
from carmel.storage.build.sources import Origin, find_origin

ARCHITECTURE = "arm64"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one image is built.

    ``packages`` are resolved with their dependencies; of those, ``keep`` (a regular expression for whole names, all
    if ``None``) are downloaded. ``inputs`` gives the bytes of everything else that goes into the image, so that the
    key changes with it; ``version`` stands for the code.
    ``components`` are those of Debian's archive that are looked in, ``main`` first.
    ``download_share`` is how many of the hundred per cent the download takes.
    """

    name: str
    summary: str
    kind: Literal["Kernel", "Disk"]
    version: int
    packages: tuple[str, ...]
    programs: tuple[str, ...]
    inputs: Callable[[], bytes]
    make: Make
    keep: str | None = None
    download_share: int = 50
    suite: str = "bookworm"
    components: tuple[str, ...] = ("main",)

    def origin(self, context: BuildContext) -> Origin:
        """Raises ``Refused`` if no mirror is known."""
        return find_origin(self.suite, context.mirror, self.components)

    def apt(self, context: BuildContext) -> PrivateApt:
        """Raises ``Refused`` if a program or a mirror is missing."""
        require(("apt-get", "apt-config", "dpkg-deb", *self.programs))
        name = "-".join(["apt", self.suite, ARCHITECTURE, *self.components[1:]])
        return PrivateApt(context.cache / name, self.origin(context), ARCHITECTURE, context.runner)

    async def resolve(self, context: BuildContext) -> tuple[Package, ...]:
        """The packages that are downloaded. Errors as ``PrivateApt.resolve``."""
        packages = await self.apt(context).resolve(self.packages, context.progress)
        return tuple(package for package in packages if self.keep is None or re.fullmatch(self.keep, package.name))

    async def cache_key(self, context: BuildContext) -> str:
        """The same for the same recipe and the same versions of the same packages, for ever."""
        return self.key_of(await self.resolve(context))

    def key_of(self, packages: Sequence[Package]) -> str:
        facts = [self.name, self.version, self.suite, ARCHITECTURE, sorted(str(package) for package in packages)]
        digest = hashlib.sha256(json.dumps(facts).encode())
        digest.update(self.inputs())
        return digest.hexdigest()[:32]
