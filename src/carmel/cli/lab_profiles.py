"""The labs that ``carmel lab`` can make: manifests in ``labs/``, in ``labs/full/`` those of the full size.

A manifest has the machines of the lab, the one that people talk to first, and networks that only they are on. All of
them have the name of the first, or a name that begins with it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from carmel.cli.manifests import parse_documents
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import NotFound

LAB_LABEL = "carmel.dev/lab"
SIZE_LABEL = "carmel.dev/lab-size"
ROLE_LABEL = "carmel.dev/lab-role"
HOST, SMART_NIC = "host", "smartnic"
MICRO, FULL = "micro", "full"
API, RELAY = "api", "relay"
"""What forwards are called: to the machine's own API, and to that of its SmartNIC."""
_DESCRIPTION = "carmel.dev/description"


@dataclass(frozen=True, slots=True)
class LabMachine:
    """``manifest`` is that of a VirtualMachine."""

    manifest: JsonObject

    @property
    def name(self) -> str:
        return metadata(self.manifest, "name")

    @property
    def role(self) -> str:
        return str(dig(self.manifest, "metadata", "labels", ROLE_LABEL) or HOST)

    @property
    def description(self) -> str:
        return description_of(self.manifest)

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

    def guest_port(self, forward: str) -> int:
        """The port of the machine that the forward of that name leads to. Raises ``NotFound``."""
        for nic in dig(self.manifest, "spec", "networks"):
            for one in nic.get("forwards") or []:
                if one["name"] == forward:
                    return int(one["guestPort"])
        raise NotFound(f"the manifest of {self.name} has no forward that is called {forward}")


@dataclass(frozen=True, slots=True)
class Profile:
    """A lab in one size. ``networks`` are manifests of Networks; there is at least one machine."""

    name: str
    size: str
    machines: tuple[LabMachine, ...]
    networks: tuple[JsonObject, ...] = ()

    @property
    def host(self) -> LabMachine:
        """The machine that the lab is called by."""
        return self.machines[0]

    @property
    def smart_nics(self) -> tuple[LabMachine, ...]:
        return tuple(machine for machine in self.machines if machine.role == SMART_NIC)

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(machine.image for machine in self.machines))

    def named(self, name: str) -> Profile:
        """The same lab by another name: each of its objects, and what they refer to, is called so or begins so."""
        labels = {LAB_LABEL: self.name, SIZE_LABEL: self.size}
        own = {metadata(network, "name") for network in self.networks}

        def renamed(text: str) -> str:
            return name + text.removeprefix(self.host.name)

        def object_of(manifest: JsonObject) -> JsonObject:
            made = copy.deepcopy(manifest)
            made["metadata"]["name"] = renamed(made["metadata"]["name"])
            made["metadata"]["labels"] = (made["metadata"].get("labels") or {}) | labels
            return made

        def machine_of(machine: LabMachine) -> LabMachine:
            made = object_of(machine.manifest)
            reference = made["spec"]["cloudInit"]["userDataSecretRef"]
            reference["name"] = renamed(reference["name"])
            for nic in made["spec"]["networks"]:
                if dig(nic, "networkRef", "name") in own:
                    nic["networkRef"]["name"] = renamed(nic["networkRef"]["name"])
            return LabMachine(made)

        return Profile(
            self.name,
            self.size,
            tuple(machine_of(machine) for machine in self.machines),
            tuple(object_of(network) for network in self.networks),
        )


def description_of(vm: JsonObject) -> str:
    """Of a machine of any lab: what it is."""
    return str(dig(vm, "metadata", "annotations", _DESCRIPTION) or "")


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
        _profile(file.name.removesuffix(".yaml"), size, parse_documents(file.read_text("utf-8"), file.name))
        for file in files
    ]


def _profile(name: str, size: str, documents: Iterable[JsonObject]) -> Profile:
    machines, networks = list[LabMachine](), list[JsonObject]()
    for document in documents:
        if document["kind"] == "VirtualMachine":
            machines.append(LabMachine(document))
        else:
            networks.append(document)
    return Profile(name, size, tuple(machines), tuple(networks))
