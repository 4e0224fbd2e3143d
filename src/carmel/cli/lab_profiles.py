"""The machines that ``carmel lab`` can make: manifests in ``labs/``, in ``labs/full/`` those of the full size."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from carmel.cli.manifests import parse_documents
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import NotFound

LAB_LABEL = "carmel.dev/lab"
SIZE_LABEL = "carmel.dev/lab-size"
MICRO, FULL = "micro", "full"
_DESCRIPTION = "carmel.dev/description"


@dataclass(frozen=True, slots=True)
class Profile:
    """One machine in one size. ``manifest`` is that of its VirtualMachine."""

    name: str
    size: str
    manifest: JsonObject

    @property
    def description(self) -> str:
        return str(dig(self.manifest, "metadata", "annotations", _DESCRIPTION) or "")

    @property
    def vm_name(self) -> str:
        return metadata(self.manifest, "name")

    @property
    def image(self) -> str:
        """The image that it starts from, which is also the name of the recipe that makes it."""
        kernel = dig(self.manifest, "spec", "firmware", "imageRef", "name")
        return str(kernel or dig(self.manifest, "spec", "disks", 0, "imageRef", "name"))

    @property
    def secret(self) -> tuple[str, str]:
        """The Secret with the machine's keys, and the key in it."""
        reference = dig(self.manifest, "spec", "cloudInit", "userDataSecretRef")
        return reference["name"], reference["key"]

    @property
    def api_port(self) -> int:
        """The port of the machine that its API answers at."""
        for forward in dig(self.manifest, "spec", "networks", 0, "forwards"):
            if forward["name"] == "api":
                return int(forward["guestPort"])
        raise NotFound(f"the manifest of {self.name} has no forward that is called api")

    def named(self, name: str) -> Profile:
        """The same machine by another name, with a Secret of its own."""
        manifest = copy.deepcopy(self.manifest)
        manifest["metadata"]["name"] = name
        manifest["spec"]["cloudInit"]["userDataSecretRef"]["name"] = f"{name}-keys"
        manifest["metadata"]["labels"] |= {LAB_LABEL: self.name, SIZE_LABEL: self.size}
        return Profile(self.name, self.size, manifest)


def profiles() -> list[Profile]:
    """All there are, by name; of each the micro size first."""
    folder = resources.files("carmel.cli") / "labs"
    found = [*_in(folder, MICRO), *_in(folder / FULL, FULL)]
    return sorted(found, key=lambda profile: (profile.name, profile.size != MICRO))


def find_profile(name: str, size: str) -> Profile:
    """Raises ``NotFound`` (``ProfileNotFound``)."""
    known = profiles()
    for profile in known:
        if (profile.name, profile.size) == (name, size):
            return profile
    sizes = [profile.size for profile in known if profile.name == name]
    if sizes:
        raise NotFound(f"the lab {name} has no size {size}", code="ProfileNotFound", hint=f"it has: {', '.join(sizes)}")
    names = ", ".join(dict.fromkeys(profile.name for profile in known))
    raise NotFound(f"there is no lab {name!r}", code="ProfileNotFound", hint=f"there are: {names}")


def _in(folder: Traversable, size: str) -> list[Profile]:
    if not folder.is_dir():
        return []
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    return [
        Profile(file.name.removesuffix(".yaml"), size, parse_documents(file.read_text("utf-8"), file.name)[0])
        for file in files
    ]
